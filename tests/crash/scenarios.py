"""What a run goes through: each a way from a trigger to rest, begun before the workers are there, so that they meet it from its first row.

Together they pass through a rotation from the schedule to completion, a retirement to its proved end, samples of use, a failure with a
discarded login, an emergency that goes past a push that does not end, and values that are pushed again.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from rotation import driver, lifecycle, requests
from rotation.states import AttemptState, Trigger
from rotation.store.tables import resources
from tests.crash.rig import GRACE
from worker.sandbox.vercel_faults import answered

if TYPE_CHECKING:
    from collections.abc import Callable

    from rotation.model import Resource
    from tests.crash.rig import CrashRig

NOTHING = timedelta(0)
ACTOR = "crash points"


@dataclass(frozen=True, slots=True)
class Scenario:
    """`begin` asks for something and gives the rotations that were accepted; `grace` is what the old login is promised at least.

    `fails`: its rotation may end as failed, whatever else happens.
    """

    name: str
    begin: Callable[[CrashRig, Resource], tuple[str, ...]]
    grace: timedelta = GRACE
    fails: bool = False


class Prompt:
    """Entropy that makes every back-off as short as can be; never used for a password."""

    def bytes(self, count: int) -> bytes:
        return bytes(count)


def schedule(rig: CrashRig, resource: Resource) -> tuple[str, ...]:
    """Its date has come: nobody has asked for anything yet, so no rotation is accepted either."""
    policy = replace(resource.spec.policy, every=timedelta(days=30))
    requests.revise(resource, replace(resource.spec, policy=policy), ACTOR, rig.ports)
    with rig.store.database.writing() as connection:
        connection.execute(resources.update().where(resources.c.id == resource.id).values(next_rotation_at=rig.store.now()))
    return ()


def failure(rig: CrashRig, resource: Resource) -> tuple[str, ...]:
    """Vercel does not take the values: the rotation fails, and its login goes."""
    rig.vercel.script([answered(400, applies=False)])
    return (rig.trigger(resource),)


def missing(rig: CrashRig, resource: Resource) -> tuple[str, ...]:
    """Vercel says once that it does not know the resource, and when asked about the resource itself, that it does."""
    rig.vercel.script([answered(404, applies=False)])
    return (rig.trigger(resource),)


def emergency(rig: CrashRig, resource: Resource) -> tuple[str, ...]:
    """A push got no answer, and the same values are refused since: an emergency goes past it, and settles before it completes."""
    rig.vercel.script([answered(500, applies=secrets.randbelow(2) == 0), answered(400, applies=False)])
    passed = rig.trigger(resource)
    prompt = replace(rig.ports, entropy=Prompt())

    def is_stuck() -> bool:
        driver.advance(lifecycle.STORY, passed, prompt)
        states = [one.state for one in rig.attempts(passed)]
        return states == [AttemptState.UNKNOWN, AttemptState.NOT_APPLIED]

    driver.advance(lifecycle.STORY, passed, rig.ports)
    rig.wait("its push was refused", is_stuck)
    return passed, rig.trigger(resource, Trigger.EMERGENCY)


def again(rig: CrashRig, resource: Resource) -> tuple[str, ...]:
    """The current values are pushed once more, as if Vercel had lost them."""
    received = requests.push_again(resource.id, ACTOR, "a test wants it", rig.ports)
    assert received.rotation_id is not None
    return (received.rotation_id,)


SCENARIOS = {
    one.name: one
    for one in (
        Scenario("schedule", schedule),
        Scenario("failure", failure, fails=True),
        Scenario("missing", missing),
        Scenario("emergency", emergency, NOTHING),
        Scenario("again", again),
    )
}
