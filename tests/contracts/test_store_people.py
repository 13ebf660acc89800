"""What every store does when a person steps in while a worker holds a row, or while one waits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rotation.cases import Move, Wait
from rotation.errors import LostClaim
from rotation.model import Schedule
from rotation.states import ResourceState
from tests.store_benches import DAY, MINUTE, begin, complete
from tests.store_samples import INSTALLATION, blocked, completed, event, present, spec

if TYPE_CHECKING:
    from rotation.cases import ResourceCase
    from rotation.model import Resource
    from tests.store_benches import Bench


def test_a_date_that_was_computed_before_the_resource_was_revised_is_not_written(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    by_revision = Schedule(bench.store.now() + DAY, "every day")
    bench.store.revise(resource.id, spec(grace=MINUTE), by_revision, event("resource_revised"))
    with pytest.raises(LostClaim, match="revised"):
        bench.store.record_rotation(case, completed(case))
    assert bench.store.resource(resource.id).schedule == by_revision
    again = present(bench.store.record_rotation(case, Wait(case.now)))
    assert bench.store.record_rotation(again, completed(again)) is None


def test_a_revision_whose_date_follows_from_another_schedule_is_not_written(bench: Bench, resource: Resource) -> None:
    complete(bench, resource)
    with pytest.raises(LostClaim, match="schedule"):
        bench.store.revise(resource.id, spec(), Schedule(), event("resource_revised"), instead_of=resource.schedule)
    present_one = bench.store.resource(resource.id)
    assert (present_one.revision, present_one.schedule.completed_at is None) == (1, False)
    revised = bench.store.revise(resource.id, spec(), Schedule(), event("resource_revised"), instead_of=present_one.schedule)
    assert revised.revision == 2


@pytest.mark.parametrize("steps", [(), ("planned",), ("planned", "verified"), ("planned", "verified", "offered")])
def test_unparking_wakes_a_rotation_in_any_state(bench: Bench, resource: Resource, steps: tuple[str, ...]) -> None:
    bench.store.park(INSTALLATION.id, "401", event("installation_parked"))
    case = begin(bench, resource, *steps)
    bench.store.record_rotation(case, Wait(case.now + DAY))
    bench.store.unpark(INSTALLATION.id, event("installation_unparked"))
    assert bench.store.due_rotations(10, urgent=False) == (case.rotation.id,)


def test_a_pause_holds_no_login_back_that_is_to_be_let_in_again(bench: Bench, resource: Resource) -> None:
    complete(bench, resource)
    bench.advance(2 * DAY)
    (old,) = bench.store.due_credentials(10)
    case = present(bench.store.claim_credential(old))
    bench.store.record_credential(case, blocked(case))
    bench.advance(MINUTE)

    def pause(_: ResourceCase) -> tuple[Move, None]:
        return Move(event("resource_paused"), resource_state=ResourceState.PAUSED), None

    def undo(found: ResourceCase) -> tuple[Move, None]:
        credential = next(one for one in found.credentials if one.id == old)
        return Move(event("credential_extended"), credentials=(replace(credential, unblock_until=found.now, due_at=found.now),)), None

    bench.store.amend(resource.id, pause)
    assert bench.store.due_credentials(10) == ()
    bench.store.amend(resource.id, undo)
    assert bench.store.due_credentials(10) == (old,)
