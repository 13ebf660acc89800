"""What a run goes through: each a way from a trigger to rest, begun before the workers are there, so that they meet it from its first row.

Together they pass through a rotation from the schedule to completion, a retirement to its proved end, samples of use, a failure with a
discarded login, an emergency that goes past a push that does not end, values that are pushed again, a login that somebody dropped and the
healer makes again, one that is given a new end, and a resource that leaves.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from rotation import driver, lifecycle, requests
from rotation.states import AttemptState, RotationState, Stage, Trigger
from rotation.store.tables import resources
from tests.crash.rig import GRACE
from tests.witnesses import LateWitness, LeavingWitness, Witness
from worker.sandbox.vercel_faults import answered

if TYPE_CHECKING:
    from collections.abc import Callable

    from rotation.model import Resource
    from tests.crash.rig import CrashRig

NOTHING = timedelta(0)
EXTENDED = GRACE + timedelta(seconds=1)
ACTOR = "crash points"


@dataclass(frozen=True, slots=True)
class Scenario:
    """`begin` asks for something and gives the rotations that were accepted; `grace` is what the old login is promised at least.

    `fails`: its rotation may end as failed, whatever else happens. `leaves`: no login is left at its end. `witness` are its customers.
    """

    name: str
    begin: Callable[[CrashRig, Resource], tuple[str, ...]]
    grace: timedelta = GRACE
    fails: bool = False
    leaves: bool = False
    witness: type[Witness] = Witness


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


def lost(rig: CrashRig, resource: Resource) -> tuple[str, ...]:
    """A superuser drops the login that Vercel holds: it is made again, as it was."""
    rotated = _rotated(rig, resource)
    (current,) = rig.staged(resource, Stage.CURRENT)
    login = sql.Identifier(current.username)
    with psycopg.connect(rig.server_of(resource).superuser_url(resource.spec.database.name), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP OWNED BY {}").format(login))
        connection.execute(sql.SQL("DROP ROLE {}").format(login))
    return (rotated,)


def extended(rig: CrashRig, resource: Resource) -> tuple[str, ...]:
    """A person gives the old login a new end: it is let in, and once more when nobody can still be blocking it."""
    rotated = _rotated(rig, resource)
    (previous,) = rig.staged(resource, Stage.PREVIOUS)
    requests.extend(resource.id, previous.id, EXTENDED, ACTOR, rig.ports)
    return (rotated,)


def leaving(rig: CrashRig, resource: Resource) -> tuple[str, ...]:
    """The customer has gone: nothing is rotated any more, and all logins go."""
    requests.leave(resource.id, ACTOR, "a test wants it", rig.ports, ends_in=GRACE)
    return ()


def _rotated(rig: CrashRig, resource: Resource) -> str:
    """A rotation that has completed by now. Gives its id."""
    rotation_id = rig.trigger(resource)
    driver.advance(lifecycle.STORY, rotation_id, rig.ports)
    assert rig.rotation(rotation_id).state is RotationState.COMPLETED
    return rotation_id


SCENARIOS = {
    one.name: one
    for one in (
        Scenario("schedule", schedule),
        Scenario("failure", failure, fails=True),
        Scenario("missing", missing),
        Scenario("emergency", emergency, NOTHING),
        Scenario("again", again),
        Scenario("lost", lost, witness=LateWitness),
        Scenario("extended", extended, EXTENDED),
        Scenario("leaving", leaving, leaves=True, witness=LeavingWitness),
    )
}
