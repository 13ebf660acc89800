"""What must be true of a run that has come to rest: I1 to I11 of the invariants, looked at from outside.

Most of them are `tests.promises`; these are what a run can tell beside those.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from rotation.sensitive import Sensitive
from rotation.states import ResourceState, RotationState, Stage
from rotation.store.rules import ENDED_STATES
from tests import promises
from tests.rigs import roles
from worker.sandbox.customers import Answer, address, knock

if TYPE_CHECKING:
    from rotation.model import Resource
    from tests.crash.rig import CrashRig
    from tests.witnesses import Witness

LATEST = timedelta(seconds=60)
"""I2: a promise is over at most so late."""


def assert_kept(rig: CrashRig, witness: Witness, subject: Resource, accepted: tuple[str, ...]) -> None:
    """All of them. `accepted` are the rotations that somebody was promised."""
    promises.assert_kept(rig, witness)
    rows = {one.id: one for one in rig.rotations(subject)}
    assert set(accepted) <= set(rows), "I8: a request that was accepted is not on record"
    assert {one.state for one in rows.values()} <= ENDED_STATES, "I4: a rotation has not ended"
    for one in rig.staged(subject, Stage.RETIRED):
        assert one.grace_ends_at is not None
        assert one.blocked_at is not None
        assert one.ended_at is not None
        # It stops to work when it is blocked; it is gone when it has ended.
        assert one.grace_ends_at <= one.blocked_at, f"I2: {one.username} ended early"
        assert one.ended_at <= one.grace_ends_at + LATEST, f"I2: {one.username} ended late"
    assert len(rows) <= len(accepted) + 1, "I7: repeated triggers piled up"


def assert_gone(rig: CrashRig, subject: Resource) -> None:
    """I3 and I9: of a resource that left nothing is left, and what Vercel held of it is refused."""
    assert rig.store.resource(subject.id).state is ResourceState.GONE
    assert {one.stage for one in rig.credentials(subject)} == {Stage.RETIRED}
    assert roles(rig.server_of(subject), subject) == {}, "I3: a login of a resource that left is still there"
    assert knock(address(Sensitive(rig.held(subject)))) is Answer.REFUSED
    promises.assert_every_move_was_recorded_once(rig, subject)


def assert_not_lost(rig: CrashRig, subject: Resource) -> None:
    """I4: what was asked for was done. That a process died is never a reason for a rotation to fail."""
    states = {one.state for one in rig.rotations(subject)}
    assert RotationState.COMPLETED in states, f"I4: no rotation has completed: {states}"
    assert RotationState.FAILED not in states, "I4: a rotation failed because its worker died"
