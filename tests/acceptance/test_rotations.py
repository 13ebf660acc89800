"""Rotations with three real workers and two beats, from the trigger to the proved end of the old login, while customers log in."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import psycopg
import pytest

from rotation.sensitive import Sensitive
from rotation.states import AttemptState, PushBy, RotationState, Stage, Trigger
from tests.acceptance.conftest import STORES
from tests.promises import assert_kept
from tests.rigs import GRACE, Rig
from worker.sandbox.customers import address, connect
from worker.sandbox.vercel_faults import answered, delayed, dripped, hung, reset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rotation.model import Resource
    from tests.rigs import CustomersServer

EVERY = timedelta(seconds=3)
LATE = timedelta(seconds=60)
"""How late a retirement may be."""


@pytest.fixture(scope="module", params=STORES)
def running(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    customers: CustomersServer,
    new_store: Callable[[str], str | None],
) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("rig"), [customers], new_store(request.param)) as rig:
        rig.start(workers=3, beats=2)
        yield rig


@pytest.fixture
def rig(running: Rig) -> Rig:
    running.resources.clear()
    running.vercel.script([])
    return running


def completed(rig: Rig, resource: Resource) -> int:
    return sum(one.state is RotationState.COMPLETED for one in rig.rotations(resource))


def test_scheduled_rotations_run_from_their_date_to_the_proved_end_of_the_old_login(rig: Rig) -> None:
    rig.add(every=EVERY)
    rig.add(every=EVERY, push_by=PushBy.PRODUCT)
    with rig.witness() as witness:
        rig.wait("both have retired a login", lambda: all(rig.staged(one, Stage.RETIRED) for one in rig.resources))
        rig.unschedule()
        rig.wait_until_settled()
    assert_kept(rig, witness)
    for resource in rig.resources:
        for one in rig.staged(resource, Stage.RETIRED):
            assert one.previous_at is not None
            assert one.ended_at is not None
            assert GRACE <= one.ended_at - one.previous_at < GRACE + LATE


def test_several_beats_and_workers_rotate_once_a_date(rig: Rig) -> None:
    rig.add(3, every=EVERY)
    with rig.witness() as witness:
        rig.wait("each was rotated three times", lambda: all(completed(rig, one) >= 3 for one in rig.resources))
        rig.unschedule()
        rig.wait_until_settled()
    assert_kept(rig, witness)
    for resource in rig.resources:
        rotations = rig.rotations(resource)
        assert {one.state for one in rotations} == {RotationState.COMPLETED}
        for one in rotations:
            (asked,) = rig.store.views.rotation(one.id).requests
            assert asked.trigger is Trigger.SCHEDULE
            assert len(rig.attempts(one.id)) == 1
        for earlier, later in pairwise(rotations):
            assert earlier.ended_at is not None
            assert later.requested_at - earlier.ended_at >= EVERY


def test_a_rotation_on_demand_is_found_although_nobody_was_told(rig: Rig) -> None:
    (resource,) = rig.add()
    with rig.witness() as witness:
        rotation_id = rig.trigger(resource)
        rig.wait_for(rotation_id, RotationState.COMPLETED)
        rig.wait_until_settled()
    assert_kept(rig, witness)
    assert resource.schedule.next_rotation_at is None


def test_an_emergency_ends_the_old_login_and_the_session_that_holds_it(rig: Rig) -> None:
    (resource,) = rig.add(grace=timedelta(hours=1))
    with connect(address(Sensitive(rig.held(resource))), "intruder") as session, rig.witness(promised=timedelta(0)) as witness:
        rotation_id = rig.trigger(resource, Trigger.EMERGENCY)
        rig.wait_for(rotation_id, RotationState.COMPLETED, within=30)
        rig.wait("the old login is dead", lambda: rig.staged(resource, Stage.RETIRED), within=30)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    assert_kept(rig, witness)


UNCLEAR = (
    answered(503, applies=True),
    answered(502, applies=False),
    reset(applies=True),
    reset(applies=False),
    dripped(0.2),
    hung(10.0, applies=True),
)


def test_an_unclear_answer_is_followed_by_the_same_values_until_a_clear_one(rig: Rig) -> None:
    rig.add(len(UNCLEAR))
    rig.vercel.script([replace(fault, resource=one.spec.external_id) for fault, one in zip(UNCLEAR, rig.resources, strict=True)])
    with rig.witness() as witness:
        ids = [rig.trigger(resource) for resource in rig.resources]
        for rotation_id in ids:
            rig.wait_for(rotation_id, RotationState.COMPLETED)
        rig.wait_until_settled()
    assert_kept(rig, witness)
    for rotation_id in ids:
        unclear, *others = rig.attempts(rotation_id)
        assert unclear.state is AttemptState.UNKNOWN
        assert [one.state for one in others][-1:] == [AttemptState.APPLIED]
        assert {one.credential_id for one in others} == {unclear.credential_id}


def test_an_emergency_goes_past_a_push_that_hangs_and_the_late_old_value_does_not_stay(rig: Rig) -> None:
    (resource,) = rig.add()
    rig.vercel.script([delayed(4.0, times=None)])
    with rig.witness(promised=timedelta(0)) as witness:
        passed = rig.trigger(resource)
        rig.wait_until_pushing(passed)
        urgent = rig.trigger(resource, Trigger.EMERGENCY)
        rig.wait_for(passed, RotationState.SUPERSEDED)
        rig.vercel.script([])
        rig.wait_for(urgent, RotationState.COMPLETED)
        rig.wait_until_settled()
    assert_kept(rig, witness)
    last = rig.attempts(urgent)[-1]
    assert (last.state, last.clean) == (AttemptState.APPLIED, True)
