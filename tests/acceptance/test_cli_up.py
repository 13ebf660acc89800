"""`rollover up` with real processes: what is killed comes back, and nothing is left when it ends, however it ends."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from tests.processes import Process, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
CHILDREN = ("broker", "urgent-worker", "worker", "beat")
START_SECONDS = 60.0


class Up:
    """One `rollover up` on a data directory."""

    def __init__(self, data_dir: Path, log: Path) -> None:
        foreign = {name: value for name, value in os.environ.items() if not name.startswith("ROLLOVER_")}
        ours = {"ROLLOVER_DATA_DIR": str(data_dir), "ROLLOVER_LOG_FORMAT": "json", "ROLLOVER_TICK_SECONDS": "0.5", "PYTHONPATH": str(ROOT)}
        self.run = data_dir / "run"
        self.process = Process("up", [sys.executable, "-P", "-m", "worker", "up", "--threads", "2"], foreign | ours, log)

    def pids(self, child: str) -> Sequence[int]:
        """Every life of a child, the newest last."""
        lines = self.process.lines()
        return [int(one["pid"]) for one in lines if one.get("event") == "child_started" and one.get("child") == child]

    @property
    def everybody(self) -> list[int]:
        return [pid for child in CHILDREN for pid in self.pids(child)]

    def ticks(self) -> int:
        return sum("rollover.tick" in str(one.get("event")) and "succeeded" in str(one.get("event")) for one in self.process.lines())

    def works(self) -> bool:
        """Whether a tick is done after now."""
        before = self.ticks()
        return eventually(lambda: self.ticks() > before, START_SECONDS)

    def nobody_runs(self) -> bool:
        return not any(runs(pid) for pid in self.everybody)

    def broker(self) -> redis.Redis:
        return redis.Redis.from_url((self.run / "broker.url").read_text())


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path / "state", tmp_path / "up.log")
    try:
        assert running.works(), running.process.last_words()
        yield running
    finally:
        running.process.end()
        assert eventually(running.nobody_runs, START_SECONDS)


def test_a_worker_that_is_killed_comes_back_and_the_work_goes_on(up: Up) -> None:
    for child in ("urgent-worker", "worker", "beat"):
        os.kill(up.pids(child)[-1], signal.SIGKILL)
    assert eventually(lambda: all(len(up.pids(child)) == 2 for child in ("urgent-worker", "worker", "beat")), START_SECONDS)
    assert up.works()


def test_a_broker_that_is_killed_comes_back_on_its_port(up: Up) -> None:
    with up.broker() as client:
        port = client.connection_pool.connection_kwargs["port"]
    os.kill(up.pids("broker")[-1], signal.SIGKILL)
    assert eventually(lambda: len(up.pids("broker")) == 2, START_SECONDS)
    with up.broker() as client:
        assert client.connection_pool.connection_kwargs["port"] == port
        assert client.ping()
    assert up.works()
    assert len(up.pids("worker")) == 1


def test_a_second_one_on_the_same_data_is_refused(up: Up, tmp_path: Path) -> None:
    second = Up(up.run.parent, tmp_path / "second.log")
    assert second.process.ended(START_SECONDS) == 1
    assert str(up.process.pid) in second.process.log.read_text()
    assert up.works()


def test_the_brokers_password_is_in_a_private_file_alone(up: Up) -> None:
    url = (up.run / "broker.url").read_text()
    password = re.fullmatch(r"redis://:(.+)@127\.0\.0\.1:\d+/0", url)
    assert password is not None
    assert stat.S_IMODE((up.run / "broker.url").stat().st_mode) == 0o600
    assert stat.S_IMODE(up.run.stat().st_mode) == 0o700
    for pid in up.everybody:
        for place in ("cmdline", "environ"):
            assert password[1].encode() not in Path(f"/proc/{pid}/{place}").read_bytes()
    assert password[1] not in up.process.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ending_it_ends_all(up: Up, number: signal.Signals) -> None:
    os.kill(up.process.pid, number)
    assert up.process.ended() == 0
    assert eventually(up.nobody_runs, START_SECONDS)


def test_killing_it_leaves_nothing_and_the_next_one_starts(up: Up, tmp_path: Path) -> None:
    os.kill(up.process.pid, signal.SIGKILL)
    assert eventually(up.nobody_runs, START_SECONDS)
    following = Up(up.run.parent, tmp_path / "following.log")
    try:
        assert following.works()
    finally:
        following.process.end()
