"""What stops in its tracks (SIGSTOP): a customers' server, Vercel, a worker. Nothing answers, and nothing hangs for it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from rotation.states import AttemptState, RotationState
from tests.acceptance.conftest import CUSTOMERS
from tests.promises import assert_kept
from tests.rigs import CustomersServer, Rig, logins_locked, prepared, waits_for_lock
from worker.sandbox.postgresql import PrivatePostgresql
from worker.sandbox.vercel_faults import delayed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.processes import Process


@pytest.fixture(scope="module")
def freezing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CustomersServer]:
    """A second customers' server, to be frozen."""
    directory = tmp_path_factory.mktemp("freezing")
    with PrivatePostgresql(directory / "postgresql", settings=CUSTOMERS) as postgresql:
        yield prepared("freezing", postgresql, directory)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, customers: CustomersServer, freezing: CustomersServer) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("rig"), [customers, freezing], apart=True) as rig:
        rig.start(workers=2)
        yield rig


@pytest.fixture
def rig(running: Rig) -> Rig:
    running.resources.clear()
    running.vercel.script([])
    return running


@contextmanager
def frozen(what: PrivatePostgresql | Process) -> Iterator[None]:
    what.freeze()
    try:
        yield
    finally:
        what.thaw()


def test_a_frozen_database_server_holds_up_nobody_else_and_its_rotation_goes_on_after(rig: Rig, freezing: CustomersServer) -> None:
    rig.add(on=freezing)
    rig.add()
    stuck, other = rig.resources
    with rig.witness() as witness:
        with logins_locked(freezing.postgresql):
            rotation_id = rig.trigger(stuck)
            rig.wait("its login is being made", lambda: waits_for_lock(freezing.postgresql))
            with frozen(freezing.postgresql):
                rig.wait_for(rig.trigger(other), RotationState.COMPLETED)
                rig.wait("the call has ended by its deadline", lambda: rig.rotation(rotation_id).tries > 0)
                assert rig.rotation(rotation_id).state is RotationState.PLANNED
        rig.wait_for(rotation_id, RotationState.COMPLETED)
        rig.wait_until_settled()
    assert_kept(rig, witness, unreachable=True)


def test_a_frozen_vercel_makes_the_outcome_unknown_and_the_same_values_are_pushed_again(rig: Rig) -> None:
    (resource,) = rig.add()
    assert rig.vercel_process is not None
    rig.vercel.script([delayed(1.0)])
    with rig.witness() as witness:
        rotation_id = rig.trigger(resource)
        rig.wait_until_pushing(rotation_id)
        with frozen(rig.vercel_process):
            rig.wait("the call has ended by its deadline", lambda: rig.attempts(rotation_id)[0].state is AttemptState.UNKNOWN)
            assert rig.rotation(rotation_id).state is RotationState.OFFERED
        rig.wait_for(rotation_id, RotationState.COMPLETED)
        rig.wait_until_settled()
    assert_kept(rig, witness)
    first, *_, last = rig.attempts(rotation_id)
    assert last.credential_id == first.credential_id
    assert (last.state, last.clean) == (AttemptState.APPLIED, True)


def test_a_worker_that_wakes_up_when_another_has_pushed_changes_nothing(rig: Rig) -> None:
    (resource,) = rig.add()
    rig.vercel.script([delayed(1.0)])
    with rig.witness() as witness:
        rotation_id = rig.trigger(resource)
        rig.wait_until_pushing(rotation_id)
        assert_wakes_up_without_effect(rig, rotation_id)
    assert_kept(rig, witness)
    assert len(rig.attempts(rotation_id)) == 2


def test_a_worker_that_wakes_up_when_another_has_made_the_login_changes_nothing(rig: Rig) -> None:
    (resource,) = rig.add()
    server = rig.server_of(resource)
    with rig.witness() as witness:
        with logins_locked(server):
            rotation_id = rig.trigger(resource)
            rig.wait("its login is being made", lambda: waits_for_lock(server))
            sleeper = rig.holder(rotation_id)
            rig.freeze(sleeper)
            rig.wait("another has taken it over", lambda: rig.rotation(rotation_id).tries > 0)
        assert_wakes_up_without_effect(rig, rotation_id, sleeper)
    assert_kept(rig, witness)


def assert_wakes_up_without_effect(rig: Rig, rotation_id: str, sleeper: Process | None = None) -> None:
    """The worker in the middle of the rotation is frozen until everything has settled without it."""
    (resource,) = rig.resources
    sleeper = sleeper or rig.holder(rotation_id)
    rig.freeze(sleeper)
    try:
        rig.wait_for(rotation_id, RotationState.COMPLETED)
        rig.wait_until_settled()
        assert rig.holder(rotation_id) is not sleeper
        before = rig.snapshot(resource)
    finally:
        sleeper.thaw()
    rig.wait("it has noticed", lambda: any(lost(line, rotation_id) for line in sleeper.lines()))
    assert rig.snapshot(resource) == before


def lost(line: dict[str, object], rotation_id: str) -> bool:
    return line["event"] == "claim_lost" and line.get("rotation") == rotation_id
