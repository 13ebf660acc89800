"""What ends and comes back in the middle of a rotation: the broker, the store, a worker that is asked to end. And a prefork pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rotation.states import AttemptState, RotationState
from tests.acceptance.conftest import STORE, new_database
from tests.promises import assert_kept
from tests.rigs import Rig
from worker.sandbox.postgresql import PrivatePostgresql
from worker.sandbox.vercel_faults import delayed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rigs import CustomersServer


@pytest.fixture(scope="module")
def own_store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgresql]:
    """The store's server, to be restarted."""
    with PrivatePostgresql(tmp_path_factory.mktemp("store"), settings=STORE) as postgresql:
        yield postgresql


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, customers: CustomersServer, own_store_server: PrivatePostgresql) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("rig"), [customers], new_database(own_store_server)) as rig:
        rig.start(workers=2)
        yield rig


@pytest.fixture
def rig(running: Rig) -> Rig:
    running.resources.clear()
    running.vercel.script([])
    return running


def test_a_worker_that_is_asked_to_end_ends_its_push_and_records_it(rig: Rig) -> None:
    (resource,) = rig.add()
    rig.vercel.script([delayed(1.0)])
    with rig.witness() as witness:
        rotation_id = rig.trigger(resource)
        rig.wait_until_pushing(rotation_id)
        worker = rig.holder(rotation_id)
        worker.ask_to_end()
        assert worker.ended() == 0
        assert rig.rotation(rotation_id).state is RotationState.COMPLETED
        rig.wait_until_settled()
    rig.start_again(worker)
    assert_kept(rig, witness)
    assert [one.state for one in rig.attempts(rotation_id)] == [AttemptState.APPLIED]


def test_a_rotation_that_was_asked_for_without_a_broker_runs_when_it_is_back(rig: Rig) -> None:
    rig.add(2)
    under_way, asked_for = rig.resources
    before = [one for one in rig.processes if one.runs]
    rig.vercel.script([delayed(1.0)])
    with rig.witness() as witness:
        first = rig.trigger(under_way)
        rig.wait_until_pushing(first)
        rig.broker.kill()
        second = rig.trigger(asked_for)
        rig.wait_for(first, RotationState.COMPLETED)
        assert rig.rotation(second).state is RotationState.REQUESTED
        rig.broker.start()
        rig.wait_for(second, RotationState.COMPLETED)
        rig.wait_until_settled()
    assert_kept(rig, witness)
    assert [one.name for one in before if not one.runs] == []


def test_a_restart_of_the_stores_server_in_the_middle_loses_nothing(rig: Rig, own_store_server: PrivatePostgresql) -> None:
    (resource,) = rig.add()
    rig.vercel.script([delayed(1.0)])
    with rig.witness() as witness:
        rotation_id = rig.trigger(resource)
        rig.wait_until_pushing(rotation_id)
        own_store_server.restart()
        rig.wait_for(rotation_id, RotationState.COMPLETED)
        rig.wait_until_settled()
    assert_kept(rig, witness)


def test_a_crash_of_the_stores_server_in_the_middle_loses_nothing(rig: Rig, own_store_server: PrivatePostgresql) -> None:
    (resource,) = rig.add()
    rig.vercel.script([delayed(1.0)])
    with rig.witness() as witness:
        rotation_id = rig.trigger(resource)
        rig.wait_until_pushing(rotation_id)
        own_store_server.kill()
        own_store_server.start()
        rig.wait_for(rotation_id, RotationState.COMPLETED)
        rig.wait_until_settled()
    assert_kept(rig, witness)


def test_a_prefork_pool_rotates_as_threads_do(tmp_path: Path, customers: CustomersServer) -> None:
    with Rig(tmp_path, [customers]) as rig:
        (resource,) = rig.add()
        rig.start(1, 1, "--pool", "prefork", "--threads", "2")
        with rig.witness() as witness:
            rig.wait_for(rig.trigger(resource), RotationState.COMPLETED)
            rig.wait_until_settled()
        assert_kept(rig, witness)
