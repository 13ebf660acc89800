"""Celery's own commands, `celery -A worker.app worker` and `beat`, with a real broker: what any user of Celery expects of them."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from rotation.states import RotationState, Stage
from tests.processes import Process
from tests.promises import assert_kept
from tests.rigs import PATIENCE, Rig, is_ready
from worker.sandbox.vercel_faults import delayed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.rigs import CustomersServer

EVERY = timedelta(seconds=3)
CELERY = [sys.executable, "-P", "-m", "celery", "-A", "worker.app"]


@pytest.fixture
def rig(tmp_path: Path, customers: CustomersServer) -> Iterator[Rig]:
    with Rig(tmp_path, [customers]) as rig:
        yield rig


def start(rig: Rig, *arguments: str) -> Process:
    process = Process(arguments[0], [*CELERY, *arguments], rig.environment, rig.directory / f"celery-{arguments[0]}.log")
    rig.processes.append(process)
    return process


@pytest.fixture
def worker(rig: Rig) -> Iterator[Process]:
    """With all the options that a deployment may have."""
    queues = "rollover.urgent,rollover.scheduled,rollover.retirement,rollover.healing,rollover.tick"
    worker = start(rig, "worker", "-Q", queues, "-c", "2", "--pool", "prefork", "-n", "one@here", "--loglevel", "info")
    beat = start(rig, "beat")
    try:
        rig.wait("the worker is ready", lambda: is_ready(worker))
        yield worker
    finally:
        beat.end()
        worker.end()


def children(process: Process) -> list[str]:
    """The processes that any of its threads started."""
    return [pid for thread in Path(f"/proc/{process.pid}/task").iterdir() for pid in (thread / "children").read_text().split()]


def inspect(rig: Rig, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(rig.environment, "inspect", "--timeout", "5", "--destination", "one@here", *arguments)


def run(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*CELERY, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603 - our own


def test_they_rotate_and_retire_with_forked_children(rig: Rig, worker: Process) -> None:
    (resource,) = rig.add(every=EVERY)
    with rig.witness() as witness:
        rig.wait("a login was retired", lambda: rig.staged(resource, Stage.RETIRED))
        rig.unschedule()
        rig.wait_until_settled()
    assert_kept(rig, witness)
    assert len(children(worker)) == 2


def test_they_answer_to_inspection(rig: Rig, worker: Process) -> None:
    assert worker.runs
    assert "pong" in inspect(rig, "ping").stdout
    assert "rollover.urgent" in inspect(rig, "active_queues").stdout


def test_workers_do_not_listen_to_each_other(rig: Rig, worker: Process) -> None:
    assert worker.runs
    with redis.Redis.from_url(rig.broker.url.reveal()) as broker:
        assert broker.pubsub_numpat() == 1, "somebody listens to more than questions"


def test_sigterm_lets_a_rotation_end(rig: Rig, worker: Process) -> None:
    (resource,) = rig.add()
    rig.vercel.script([delayed(1.0)])
    rotation_id = rig.trigger(resource)
    rig.wait_until_pushing(rotation_id)
    worker.ask_to_end()
    assert worker.ended() == 0
    assert rig.rotation(rotation_id).state is RotationState.COMPLETED
    assert len(rig.attempts(rotation_id)) == 1


@pytest.mark.parametrize("command", ["worker", "beat"])
def test_wrong_settings_are_told_together_without_a_traceback(rig: Rig, command: str) -> None:
    late = {"ROLLOVER_CALL_DEADLINE_SECONDS": "30", "ROLLOVER_CLAIM_SECONDS": "20", "ROLLOVER_VISIBILITY_TIMEOUT_SECONDS": "20"}
    ended = run(rig.environment | late, command)
    assert ended.returncode == 2
    assert "ROLLOVER_CALL_DEADLINE_SECONDS" in ended.stderr
    assert "ROLLOVER_VISIBILITY_TIMEOUT_SECONDS" in ended.stderr
    assert "Traceback" not in ended.stderr
