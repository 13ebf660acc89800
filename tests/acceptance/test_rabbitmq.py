"""The broker that is no Redis: rotations, a killed worker and an outage with a real RabbitMQ, where the system has one."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from rotation.states import AttemptState, RotationState, Stage
from tests.processes import Process
from tests.promises import assert_kept
from tests.rabbitmq_servers import INSTALLED, PrivateRabbitmq
from tests.rigs import PATIENCE, Rig, is_ready
from worker.app import celery_settings
from worker.hints import depth, send
from worker.queues import Queue
from worker.sandbox.vercel_faults import delayed
from worker.settings import load
from worker.variables import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.command_line import CommandLine
    from tests.rigs import CustomersServer

__test__ = INSTALLED  # elsewhere there is no test, rather than one that is skipped

EVERY = timedelta(seconds=1)
GRACE = timedelta(seconds=1)
ENDED_SECONDS = 15.0
BROKER_URL = f"{PREFIX}BROKER_URL"


class RigOnRabbitmq(Rig):
    """A rig whose processes know this broker; the rig's own has nothing to do."""

    def __init__(self, directory: Path, customers: CustomersServer, rabbitmq: PrivateRabbitmq) -> None:
        super().__init__(directory, [customers])
        self.rabbitmq = rabbitmq

    def _environment(self, data: Path) -> dict[str, str]:
        return {**super()._environment(data), BROKER_URL: self.rabbitmq.url.reveal()}


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRabbitmq]:
    with PrivateRabbitmq(tmp_path_factory.mktemp("rabbitmq")) as rabbitmq:
        yield rabbitmq


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory, rabbitmq: PrivateRabbitmq, customers: CustomersServer) -> Iterator[RigOnRabbitmq]:
    """Without a worker or a clock."""
    with RigOnRabbitmq(tmp_path_factory.mktemp("rig"), customers, rabbitmq) as rig:
        yield rig


@pytest.fixture(scope="module")
def without_clock(idle: RigOnRabbitmq) -> RigOnRabbitmq:
    idle.start(workers=2, beats=0)
    return idle


@pytest.fixture(scope="module")
def running(without_clock: RigOnRabbitmq) -> RigOnRabbitmq:
    beat = without_clock.start_beat()
    # Until then it ends as any program does that has only begun to start.
    without_clock.wait("the clock has a handler of its own", lambda: beat.catches(signal.SIGTERM))
    return without_clock


@pytest.fixture
def rig(running: RigOnRabbitmq) -> RigOnRabbitmq:
    running.resources.clear()
    running.vercel.script([])
    return running


def test_what_waits_in_a_queue_is_counted_also_before_anybody_made_the_queue(idle: RigOnRabbitmq) -> None:
    with Celery("counting", set_as_current=False) as app:
        app.config_from_object(celery_settings(load(idle.environment)))
        assert depth(app, Queue.RETIREMENT) == 0
        assert send(app, "rollover.sample_use", Queue.RETIREMENT, ["nowhere", "elsewhere"]) == 2
        idle.wait("both wait", lambda: depth(app, Queue.RETIREMENT) == 2)
        with app.connection_for_write() as connection:
            channel: Any = connection.default_channel  # the transport's own class
            channel.queue_purge(Queue.RETIREMENT.value)


def test_a_rotation_on_demand_needs_no_clock_and_with_one_logins_are_retired_and_schedules_kept(
    without_clock: RigOnRabbitmq, request: pytest.FixtureRequest
) -> None:
    (demanded,) = without_clock.add(grace=GRACE)
    command = [sys.executable, "-P", "-m", "worker", "rotate", demanded.name, "--wait"]
    with without_clock.witness() as witness:
        done = subprocess.run(command, env=without_clock.environment, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603 - our own
        assert done.returncode == 0, done.stderr
    assert witness.refused == []
    rig: RigOnRabbitmq = request.getfixturevalue("running")
    (scheduled,) = rig.add(every=EVERY, grace=GRACE)
    with rig.witness() as witness:
        rig.wait("both have retired a login", lambda: all(rig.staged(one, Stage.RETIRED) for one in (demanded, scheduled)))
        rig.unschedule()
        rig.wait_until_settled()
    assert_kept(rig, witness)


def test_a_worker_killed_while_it_pushes_is_replaced_by_another(rig: RigOnRabbitmq) -> None:
    (resource,) = rig.add(grace=GRACE)
    rig.vercel.script([delayed(1.0)])
    with rig.witness() as witness:
        rotation_id = rig.trigger(resource)
        rig.wait_until_pushing(rotation_id)
        victim = rig.holder(rotation_id)
        victim.kill()
        again = rig.start_again(victim)
        rig.wait_for(rotation_id, RotationState.COMPLETED)
        rig.wait_until_settled()
    rig.wait("the one in its stead is ready", lambda: is_ready(again))
    assert_kept(rig, witness)
    first, second = rig.attempts(rotation_id)
    assert (first.state, second.state) == (AttemptState.OPEN, AttemptState.APPLIED)
    assert first.credential_id == second.credential_id


def test_who_is_refused_by_the_broker_is_told_so(
    rig: RigOnRabbitmq, rollover: CommandLine, local_vercel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = rig.rabbitmq.url.reveal()
    elsewhere = {**rig.environment, BROKER_URL: f"{url}nowhere"}
    worker = Process(
        "astray", [sys.executable, "-P", "-m", "worker", "worker", "--name", "astray"], elsewhere, rig.directory / "astray.log"
    )
    try:
        monkeypatch.setenv("ROLLOVER_VERCEL_API_URL", local_vercel)
        monkeypatch.setenv(BROKER_URL, url.replace("@", "wrong@"))
        (broker,) = [one for one in rollover("doctor", "--json").data["findings"] if one["what"] == "broker"]
        assert not broker["ok"]
        assert broker["found"].endswith("does not answer: AccessRefused")
        rig.wait("the worker tells it", lambda: "vhost /nowhere not found" in worker.log.read_text())
        assert "AttributeError" not in worker.log.read_text()
    finally:
        worker.kill()


def test_a_restart_of_the_broker_in_the_middle_loses_nothing_and_ends_no_process(rig: RigOnRabbitmq) -> None:
    *under_way, asked_for = rig.add(7, grace=GRACE)
    before = [one for one in rig.processes if one.runs]
    rig.vercel.script([delayed(1.0, times=len(under_way))])
    with rig.witness() as witness:
        begun = [rig.trigger(one) for one in under_way]
        rig.wait("all are being pushed", lambda: all(rig.attempts(one) for one in begun))
        rig.rabbitmq.stop()
        begun.append(rig.trigger(asked_for))
        rig.rabbitmq.start()
        for rotation_id in begun:
            rig.wait_for(rotation_id, RotationState.COMPLETED)
        rig.wait_until_settled()
    assert_kept(rig, witness)
    assert [one.name for one in before if not one.runs] == []


def test_after_all_this_every_process_ends_when_it_is_asked_to(running: RigOnRabbitmq) -> None:
    processes = [one for one in running.processes if one.runs]
    for one in processes:
        one.ask_to_end()
    assert {one.name: one.ended(ENDED_SECONDS) for one in processes} == {one.name: 0 for one in processes}


def test_no_log_holds_the_brokers_password(running: RigOnRabbitmq) -> None:
    logs = {log.name: log.read_text() for log in running.directory.glob("*.log")}
    told = [name for name, text in logs.items() if f"amqp://[hidden]@127.0.0.1:{running.rabbitmq.port}//" in text]
    assert len(told) >= 2
    assert [name for name, text in logs.items() if any(secret in text for secret in running.rabbitmq.secrets)] == []
