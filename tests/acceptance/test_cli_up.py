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
from celery import Celery
from kombu.exceptions import OperationalError

from tests.processes import Process, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
PROGRAMS = ("urgent-worker", "worker", "beat")
CHILDREN = ("broker", *PROGRAMS)
PATIENCE = 60.0


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

    def broker_url(self) -> str:
        return (self.run / "broker.url").read_text()

    def ticks(self) -> Mapping[int, int]:
        """How many each worker that answers has begun, by its process."""
        with Celery("test", broker=self.broker_url(), set_as_current=False) as asking:
            try:
                answers = asking.control.inspect(timeout=1.0).stats() or {}
            except (OperationalError, redis.ConnectionError):
                return {}
        return {one["pid"]: one["total"].get("rollover.tick", 0) for one in answers.values()}

    def works(self) -> bool:
        """Whether a tick is begun after now."""
        assert eventually(lambda: self.pids("beat"), PATIENCE), self.process.last_words()
        before = self.ticks()
        return eventually(lambda: any(count > before.get(pid, 0) for pid, count in self.ticks().items()), PATIENCE)

    def nobody_runs(self) -> bool:
        return not any(runs(pid) for pid in self.everybody)

    def end(self) -> None:
        self.process.end()
        assert eventually(self.nobody_runs, PATIENCE)


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Of all tests that do not end it; some kill what it will start again."""
    place = tmp_path_factory.mktemp("up")
    running = Up(place / "state", place / "up.log")
    try:
        assert running.works(), running.process.last_words()
        yield running
    finally:
        running.end()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Up]:
    """One to be ended."""
    running = Up(tmp_path / "state", tmp_path / "up.log")
    try:
        assert running.works(), running.process.last_words()
        yield running
    finally:
        running.end()


def test_a_worker_that_is_killed_comes_back_and_the_work_goes_on(up: Up) -> None:
    lives = {child: len(up.pids(child)) for child in PROGRAMS}
    for child in PROGRAMS:
        os.kill(up.pids(child)[-1], signal.SIGKILL)
    assert eventually(lambda: all(len(up.pids(child)) == lives[child] + 1 for child in PROGRAMS), PATIENCE)
    assert up.works()


def test_a_broker_that_is_killed_comes_back_on_its_port(up: Up) -> None:
    lives = {child: len(up.pids(child)) for child in CHILDREN}
    url = up.broker_url()
    os.kill(up.pids("broker")[-1], signal.SIGKILL)
    assert eventually(lambda: len(up.pids("broker")) == lives["broker"] + 1, PATIENCE)
    assert up.broker_url() == url
    with redis.Redis.from_url(url) as client:
        assert client.ping()
    assert up.works()
    assert [len(up.pids(child)) for child in PROGRAMS] == [lives[child] for child in PROGRAMS]


def test_a_second_one_on_the_same_data_is_refused(up: Up, tmp_path: Path) -> None:
    second = Up(up.run.parent, tmp_path / "second.log")
    assert second.process.ended(PATIENCE) == 1
    assert str(up.process.pid) in second.process.log.read_text()
    assert up.works()


def test_the_brokers_password_is_in_a_private_file_alone(up: Up) -> None:
    password = re.fullmatch(r"redis://:(.+)@127\.0\.0\.1:\d+/0", up.broker_url())
    assert password is not None
    assert stat.S_IMODE((up.run / "broker.url").stat().st_mode) == 0o600
    assert stat.S_IMODE(up.run.stat().st_mode) == 0o700
    for pid in (up.process.pid, *(up.pids(child)[-1] for child in CHILDREN)):
        for place in ("cmdline", "environ"):
            assert password[1].encode() not in Path(f"/proc/{pid}/{place}").read_bytes()
    assert password[1] not in up.process.log.read_text()


def test_it_has_one_thread_so_that_its_copies_hold_no_lock_of_another(up: Up) -> None:
    assert len(list(Path(f"/proc/{up.process.pid}/task").iterdir())) == 1


def test_its_copies_go_by_their_own_names(up: Up) -> None:
    names = [Path(f"/proc/{up.pids(child)[-1]}/comm").read_text().strip() for child in PROGRAMS]
    assert names == list(PROGRAMS)


def test_its_copies_do_not_hold_the_lock_on_the_data_directory(up: Up) -> None:
    lock = (up.run / "up.lock").stat()
    holders = [line.split()[4] for line in Path("/proc/locks").read_text().splitlines() if line.split()[5].endswith(f":{lock.st_ino}")]
    assert holders == [str(up.process.pid)]


def test_the_log_tells_nothing_of_every_tick(up: Up) -> None:
    assert up.works()
    told = [str(line["event"]) for line in up.process.lines() if "rollover.tick" in str(line["event"])]
    assert told == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ending_it_ends_all(mortal: Up, number: signal.Signals) -> None:
    os.kill(mortal.process.pid, number)
    assert mortal.process.ended() == 0
    assert eventually(mortal.nobody_runs, PATIENCE)


def test_killing_it_leaves_nothing_and_the_next_one_starts(mortal: Up, tmp_path: Path) -> None:
    os.kill(mortal.process.pid, signal.SIGKILL)
    assert eventually(mortal.nobody_runs, PATIENCE)
    following = Up(mortal.run.parent, tmp_path / "following.log")
    try:
        assert following.works()
    finally:
        following.end()
