"""Whoever has the broker's password can send hints and nothing else: no message changes anything, and the worker goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis
from celery import Celery
from celery.worker.control import Panel

from rotation.states import RotationState
from tests.canary.hostile_messages import hostile, hostile_questions, written
from tests.canary.sinks import sending
from tests.processes import eventually
from tests.rigs import PATIENCE, Rig, prepared
from worker.consumer import LOOKING
from worker.queues import Queue
from worker.sandbox.postgresql import PrivatePostgresql
from worker.tasks import ADVANCE_ROTATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rotation.model import Resource
    from tests.processes import Process

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("broker messages")]
STEERING = sorted(set(Panel.data) - LOOKING)
ASKED = "/0.celery.pidbox"
"""Where all workers hear what they are asked."""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """On a server of its own: a rig makes its own admin."""
    directory = tmp_path_factory.mktemp("broker-messages")
    with PrivatePostgresql(directory / "postgresql") as postgresql, Rig(directory, [prepared("customers", postgresql, directory)]) as rig:
        rig.start(workers=1, beats=0)
        yield rig


@pytest.fixture
def worker(rig: Rig) -> Process:
    return rig.processes[0]


@pytest.fixture
def resource(rig: Rig) -> Resource:
    (added,) = rig.add()
    rotate(rig, added)
    return added


@pytest.fixture
def broker(rig: Rig) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(rig.broker.url.reveal(), socket_timeout=30) as client:
        yield client


def rotate(rig: Rig, resource: Resource) -> str:
    """Only a message moves anything here: there is no clock."""
    rotation_id = rig.trigger(resource)
    with sending(rig) as send:
        send(ADVANCE_ROTATIONS, [[rotation_id]])
    rig.wait_for(rotation_id, RotationState.COMPLETED)
    return rotation_id


def refusals(worker: Process) -> list[str]:
    return [str(line["problem"]) for line in worker.lines() if line["event"] == "message_refused"]


def becomes(wanted: int, count: Callable[[], int]) -> bool:
    return eventually(lambda: count() == wanted, PATIENCE)


def test_no_message_has_an_effect_and_the_worker_goes_on(
    rig: Rig, resource: Resource, broker: redis.Redis, tmp_path: Path, figure: Callable[[str, int], None]
) -> None:
    worker = rig.processes[0]
    (ended,) = rig.rotations(resource)
    before = rig.snapshot(resource)
    evidence = tmp_path / "evidence"
    messages = list(hostile(evidence, ended.id))
    for name, message in messages:
        broker.lpush(Queue.SCHEDULED, message)
        assert eventually(lambda: not broker.llen(Queue.SCHEDULED), PATIENCE), f"{name} was not taken\n{worker.last_words()}"
        assert worker.runs, f"{name} ended the worker\n{worker.last_words()}"
    (other,) = rig.add()
    rotate(rig, other)  # by which time all that came before has been worked on
    assert rig.snapshot(resource) == before
    assert not evidence.exists()
    assert broker.hlen("unacked") == 0
    assert not [line for line in worker.lines() if line.get("level") == "critical"]
    assert refusals(worker)
    figure("hostile messages", len(messages))


@pytest.mark.parametrize("queue", Queue)
def test_every_queue_is_guarded(rig: Rig, worker: Process, broker: redis.Redis, queue: Queue) -> None:
    before = len(refusals(worker))
    broker.lpush(queue, b"garbage", written("os.system"), b"{}")
    rig.wait("they are refused", lambda: len(refusals(worker)) == before + 3)
    assert worker.runs


def test_what_lies_among_the_unacknowledged_messages_is_not_obeyed(
    rig: Rig, resource: Resource, worker: Process, broker: redis.Redis
) -> None:
    """kombu cannot give it back, and then gives nothing back; a row whose message is lost is found in the store."""
    for tag, lost in (("one", b"garbage"), ("two", b"[]"), ("three", b'[{"a": 1}, "", "rollover.scheduled"]'), ("four", b"7")):
        broker.hset("unacked", tag, lost)
        broker.zadd("unacked_index", {tag: 1})
    rig.wait("it is looked at", lambda: any("Error in timer" in str(line["event"]) for line in worker.lines()))
    rotate(rig, resource)
    assert worker.runs
    broker.delete("unacked", "unacked_index")


def test_nothing_of_a_refused_message_is_repeated(rig: Rig, worker: Process, broker: redis.Redis) -> None:
    before = len(refusals(worker))
    broker.lpush(Queue.SCHEDULED, b"Kanarienvogel", written("Kanarienvogel", ["Kanarienvogel"]), written(body=b"Kanarienvogel"))
    rig.wait("they are refused", lambda: len(refusals(worker)) == before + 3)
    assert "Kanarienvogel" not in worker.log.read_text()


def test_no_question_ends_a_worker_or_holds_it_up(rig: Rig, broker: redis.Redis, figure: Callable[[str, int], None]) -> None:
    worker = rig.processes[0]
    questions = list(hostile_questions())
    told, refused = len(list(worker.lines())), len(refusals(worker))
    with Celery("asking", broker=rig.broker.url.reveal(), set_as_current=False) as celery:
        for name, question in questions:
            assert broker.publish(ASKED, question) == 1, f"{name} was heard by nobody\n{worker.last_words()}"
            refused += 1
            assert becomes(refused, lambda: len(refusals(worker))), f"{name} was not refused\n{worker.last_words()}"
        rig.wait("it still answers", lambda: celery.control.ping(timeout=2, limit=1))
        (revoked,) = (celery.control.inspect(timeout=5, limit=1).revoked() or {}).values()
        (clock,) = (celery.control.inspect(timeout=5, limit=1).clock() or {}).values()
    assert "canary that was revoked" not in revoked
    assert clock["clock"] < 1 << 53
    assert "canary" not in str(list(worker.lines())[told:])
    figure("hostile messages", len(questions))


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(command, {}) for command in sorted(LOOKING - {"query_task"})] + [("query_task", {"ids": ["id"]}), ("conf", {"with_defaults": True})],
)
def test_whoever_looks_is_answered(rig: Rig, worker: Process, command: str, arguments: dict[str, object]) -> None:
    with Celery("looking", broker=rig.broker.url.reveal(), set_as_current=False) as celery:
        answers = celery.control.broadcast(command, arguments=arguments, reply=True, timeout=PATIENCE, limit=1)
    assert answers, "nobody answered"
    (said,) = answers[0].values()
    assert not isinstance(said, dict) or "error" not in said
    assert worker.runs


@pytest.mark.parametrize("command", STEERING)
def test_nobody_steers_a_worker_from_afar(rig: Rig, worker: Process, command: str, figure: Callable[[str, int], None]) -> None:
    with Celery("steering", broker=rig.broker.url.reveal(), set_as_current=False) as celery:
        celery.control.broadcast(command, arguments={"n": 3, "queue": Queue.SCHEDULED.value, "task_id": "x", "task_name": "rollover.tick"})
        rig.wait("it still answers", lambda: celery.control.ping(timeout=2, limit=1))
        (stats,) = (celery.control.inspect(timeout=5, limit=1).stats() or {}).values()
        (queues,) = (celery.control.inspect(timeout=5, limit=1).active_queues() or {}).values()
    assert worker.runs
    assert stats["pool"]["max-concurrency"] == 4
    assert {one["name"] for one in queues} == set(Queue)
    figure("hostile messages", 1)


def test_the_commands_that_steer_are_known_by_name() -> None:
    assert {"shutdown", "pool_grow", "pool_shrink", "cancel_consumer", "add_consumer", "rate_limit", "revoke", "terminate"} <= set(STEERING)
