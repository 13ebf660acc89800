"""A world in which anything may happen at any boundary: workers die, stand still while others go on, people change their minds.

Everything is drawn from one seed, so that a history that breaks a promise can be played again. What is assumed: a push that was let
go arrives within the server's allowance or never, and a worker's clock and the store's agree.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from rotation import requests
from rotation.errors import Conflict, OutcomeUnknown, Refused, Unavailable
from rotation.model import Event, Policy
from rotation.requests import Reception
from rotation.states import AttemptState, ResourceState, RotationState, Stage, Trigger
from rotation.store.rules import ENDED_STATES
from tests.fakes import sink as answers
from tests.world import SPEC, Killed, World, login_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rotation.model import Credential, Rotation
    from rotation.requests import Received
    from tests.fakes.sink import Push

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
POLICIES = (
    Policy(every=timedelta(days=3), grace=2 * HOUR, grace_vercel=HOUR, blocked=10 * MINUTE, quiet=10 * MINUTE),
    Policy(every=timedelta(days=2), grace=HOUR, blocked=timedelta(0), quiet=MINUTE),
    Policy(grace=2 * HOUR, blocked=MINUTE, quiet=10 * MINUTE),
)
LONGEST_FLIGHT = timedelta(seconds=200)
"""How long after it was let go a push may arrive; with `LONGEST_STOP` less than the server's allowance."""
LONGEST_STOP = timedelta(seconds=100)
"""How long a worker may stand still between its last check and the first byte."""

STOPS = (timedelta(0), SECOND, 11 * SECOND, 46 * SECOND, 100 * SECOND, 7 * MINUTE, 3 * HOUR)
STEPS = (SECOND, 2 * SECOND, 11 * SECOND, 46 * SECOND, 6 * MINUTE, 16 * MINUTE, HOUR, 3 * HOUR)
GRACES = (None, None, timedelta(0), 30 * MINUTE, 3 * HOUR)
ANSWERS = (
    *[answers.APPLIED] * 3,
    *[answers.APPLIED_BUT_UNKNOWN, answers.LOST_AND_UNKNOWN, answers.ON_ITS_WAY, answers.ON_ITS_WAY, answers.REFUSED] * 2,
    answers.UNAUTHORIZED,
    answers.MISSING,
    answers.CONFLICT,
    answers.UNREACHABLE,
)
ACT_ERRORS = (Refused("no"), Unavailable("not now"))


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that was answered, so that it is owed a push that comes after it."""

    received: Received
    at: datetime
    pushes_again: bool = False


class Restless(World):
    """One history. `live` is the part in which anything happens, `rest` the one in which everything must come to an end."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)  # noqa: S311 - a history to be played again, not a secret
        self.restless = False
        self.depth = 0
        self.trouble = self.draw.choice((0.0, 0.01, 0.03, 0.06))
        """How often a boundary is where something goes wrong."""
        self.accepted: list[Accepted] = []
        self.sent_at: dict[int, datetime] = {}
        self.told: list[str] = []
        super().__init__(spec=replace(SPEC, policy=self.draw.choice(POLICIES)))

    @property
    def state(self) -> ResourceState:
        return self.store.resources[self.resource_id].state

    @property
    def left(self) -> bool:
        return self.state in (ResourceState.LEAVING, ResourceState.GONE)

    # -- the part in which anything happens

    def live(self, acts: int) -> None:
        self.restless = True
        self.engine.on_act = self._act_fault
        for _ in range(acts):
            self._something()
            self.check()
        self.restless = False
        self.engine.on_act = lambda _name, _phase: None

    def _something(self) -> None:
        act = self.draw.choices(list(ACTS), list(ACTS.values()))[0]
        self.tell(act.__name__)
        try:
            act(self)
        except (Killed, Conflict, Unavailable, OutcomeUnknown) as error:
            self.tell(f"  {act.__name__} ended by {error!r}")

    def tell(self, what: str) -> None:
        self.told.append(f"{self.clock.now():%d %H:%M:%S} {'  ' * self.depth}{what}")

    def _boundary(self, name: str) -> None:
        if not self.restless:
            return
        if name == "after sink.push":
            for push in self.sink.in_flight:
                self.sent_at.setdefault(id(push), self.clock.now())
        self.check()
        if self.draw.random() >= self.trouble:
            return
        if name == "after store.may_send":
            self._stand_still(LONGEST_STOP, depth=2)
        else:
            self._go_wrong(name)

    def _go_wrong(self, name: str) -> None:
        fault = self.draw.choice(("killed", "stopped", "stopped", "store"))
        if fault == "killed":
            self.tell(f"killed {name}")
            raise Killed(name)
        if fault == "stopped" and self.depth < 2:
            self._stand_still(max(STOPS), depth=self.depth + 1)
        elif fault == "store" and name.startswith("before store.") and "may_send" not in name:
            self.tell(f"store unavailable {name}")
            raise Unavailable(name)
        elif fault == "store" and name.startswith(("after store.record", "after store.amend", "after store.open")):
            self.tell(f"answer lost {name}")
            raise OutcomeUnknown(name)

    def _stand_still(self, longest: timedelta, *, depth: int) -> None:
        """The worker does nothing for a while, and others go on, before and after. At depth 2 no time passes but this."""
        before, self.depth = self.depth, depth
        stop = self.draw.choice([one for one in STOPS if one <= longest])
        others = self.draw.randint(0, 3), self.draw.randint(1, 4)
        for _ in range(others[0]):
            self._something()
        self.tell(f"stands still for {stop}")
        self.clock.advance(stop)
        for _ in range(others[1]):
            self._something()
        self.depth = before

    def _act_fault(self, name: str, phase: str) -> None:
        if self.draw.random() < self.trouble:
            error = self.draw.choice(ACT_ERRORS) if phase == "before" else OutcomeUnknown("connection lost")
            self.tell(f"{name} {phase}: {error!r}")
            raise error

    def _alive(self, act: Callable[[], object]) -> None:
        """As a task does it. The clock stands: a dead worker's claim is in the way of the others until it ends."""
        try:
            act()
        except (Killed, Unavailable, OutcomeUnknown) as error:
            self.tell(f"  worker ended by {error!r}")

    # -- the part in which everything must come to an end

    def rest(self) -> None:
        """No more faults, nobody asks for anything, and the world settles by itself."""
        self.tell("at rest")
        self.sink.script.clear()
        self.sink.otherwise, self.sink.exists = answers.APPLIED, True
        self.sink.in_flight.clear()
        self.limiter.answers.clear()
        self.limiter.blocked_until.clear()
        for key in ("key-1", "verifier-key-1"):
            self.sealer.bring_key_back(key)
        self.engine.server("pg-1").sessions.clear()
        if self.state is ResourceState.PAUSED:
            requests.resume(self.resource_id, "test", "", self.ports)
        under_way = [one.id for one in self.store.rotations.values() if one.state not in ENDED_STATES]
        began_at = self.clock.now()
        self.run(for_=5 * HOUR)
        late = [one for one in under_way if self.store.rotations[one].state not in ENDED_STATES]
        assert not late, f"I4: {[self.store.rotations[one] for one in late]}"
        for _ in range(20):
            if not self.under_way():
                break
            self.run(for_=2 * HOUR)
        assert not self.under_way(), f"not settled: {self.under_way()}"
        self.check()
        self._check_punctual(began_at)
        self.check_ends()

    def _check_punctual(self, began_at: datetime) -> None:
        """I2: no old credential ends late, where nothing holds it up any more but a back-off, its use before, and the time to undo."""
        for one in self.store.credentials.values():
            if one.stage is Stage.RETIRED and one.ended_at is not None and one.grace_ends_at is not None:
                quiet_at = began_at + one.quiet + 6 * MINUTE
                longest = max(policy.blocked for policy in POLICIES)  # an emergency may have cut short what was begun
                assert one.ended_at <= max(one.grace_ends_at, quiet_at) + longest + MINUTE, f"I2: {one.username} ended late"

    def check_ends(self) -> None:
        if self.left:
            assert self.state is ResourceState.GONE, "a resource without logins is gone"
            return
        self.check_at_rest()
        if self.store.installations["icfg_1"].parked:
            self.rotate()
            self.settle()
            assert not self.store.installations["icfg_1"].parked, "parked, and nobody looks whether the token is taken again"
        resource = self.store.resources[self.resource_id]
        owed = resource.spec.policy.every is not None or resource.schedule.failures
        assert resource.schedule.next_rotation_at is not None or not owed, f"no next date: {resource.schedule}"
        for one in self.accepted:
            self._check_answered(one)

    def _check_answered(self, asked: Accepted) -> None:
        """I4 and I8: what was accepted was followed by a push that it could wait for, or has failed on record."""
        rotation = self.store.rotations[asked.received.rotation_id or ""]
        later = [one for one in self.store.rotations.values() if self._pushed_after(one, asked.at)]
        match rotation.state:
            case RotationState.COMPLETED:
                assert rotation in later, f"completed by a push that was sent before the request: {asked}"
            case RotationState.SUPERSEDED:
                assert later, f"nothing answers {asked}"
            case RotationState.ABANDONED:
                assert asked.pushes_again, f"abandoned: {asked} {rotation}"
                assert later, f"nothing answers {asked}"

    def _pushed_after(self, rotation: Rotation, at: datetime) -> bool:
        attempts = (one for one in self.store.attempts.values() if one.rotation_id == rotation.id)
        return rotation.state is RotationState.COMPLETED and any(
            one.state is AttemptState.APPLIED and one.clean and one.opened_at >= at for one in attempts
        )

    # -- what a customer sees

    def check(self) -> None:
        """The promises, as they must hold at any instant."""
        roles = self.engine.server("pg-1").roles
        if not self.left:
            self._forget_lost_pushes()
            for push in (*([self.sink.held.get(("icfg_1", SPEC.external_id))]), *(one.values for one in self.sink.in_flight)):
                login = login_of((push or {})["DATABASE_URL"])
                role = roles.get(login.username)
                assert role is not None, f"I1: {login.username} is gone"
                assert role.can_log_in, f"I1: {login.username} does not log in"
        for one in self.store.credentials.values():
            self._check_kept(one)
            role = roles.get(one.username)
            promised = one.grace_ends_at is None or one.grace_ends_at > self.clock.now()
            if one.stage is Stage.CURRENT or (one.stage is Stage.PREVIOUS and promised and one.unblock_until is None):
                assert role is not None, f"I2: {one.username} is gone"
                assert role.can_log_in, f"I2: {one.username} does not log in until {one.grace_ends_at}"
            if one.stage in (Stage.RETIRED, Stage.DISCARDED):
                assert role is None, f"I9: {one.username} is {one.stage} and exists"
        known = {one.username for one in self.store.credentials.values()}
        assert set(roles) <= known, f"I3: unknown {set(roles) - known}"

    def _forget_lost_pushes(self) -> None:
        now = self.clock.now()
        self.sink.in_flight[:] = [one for one in self.sink.in_flight if self._arrives(one, now)]

    def _arrives(self, push: Push, now: datetime) -> bool:
        return now - self.sent_at.setdefault(id(push), now) <= LONGEST_FLIGHT

    def _check_kept(self, one: Credential) -> None:
        """I7: an end that was promised comes sooner only when somebody has said so."""
        promised = self.promised.get(one.id)
        if one.grace_ends_at is None:
            return
        if promised is not None and one.grace_ends_at < promised and not self.left:
            completed = [row for row in self.store.rotations.values() if row.state is RotationState.COMPLETED]
            newest = {row.id for row in completed if row.ended_at == max(map(_ended_at, completed))}
            asked = [row for row in self.store.requests.values() if row.rotation_id in newest]
            said = any(row.grace is not None or row.trigger is Trigger.EMERGENCY for row in asked)
            assert said, f"I7: {one.username} was promised {promised}, and now {one.grace_ends_at}"
        self.promised[one.id] = one.grace_ends_at


def _ended_at(rotation: Rotation) -> datetime:
    assert rotation.ended_at is not None
    return rotation.ended_at


# -- what happens


def work(world: Restless) -> None:
    world.sweep()


def time_passes(world: Restless) -> None:
    if world.depth < 2:
        world.clock.advance(world.draw.choice(STEPS if world.depth == 0 else STEPS[:4]))


def ask(world: Restless) -> None:
    trigger = world.draw.choice((Trigger.MANUAL, Trigger.VERCEL, Trigger.EMERGENCY))
    at = world.clock.now()
    received = world.rotate(trigger, grace=world.draw.choice(GRACES))
    world.tell(f"  {trigger} {received.reception} {(received.rotation_id or '')[-6:]}")
    if received.reception is not Reception.NOTHING:
        world.accepted.append(Accepted(received, at))


def push_again(world: Restless) -> None:
    at = world.clock.now()
    received = requests.push_again(world.resource_id, "test", "", world.ports)
    world.accepted.append(Accepted(received, at, pushes_again=True))


def pause(world: Restless) -> None:
    requests.pause(world.resource_id, "test", "", world.ports)


def resume(world: Restless) -> None:
    requests.resume(world.resource_id, "test", "", world.ports)


def leave(world: Restless) -> None:
    if world.draw.random() < 0.2:
        requests.leave(world.resource_id, "test", "", world.ports, ends_in=world.draw.choice((timedelta(0), HOUR)))


def extend(world: Restless) -> None:
    old = [one for one in world.store.credentials.values() if one.stage in (Stage.PREVIOUS, Stage.BLOCKED)]
    if old:
        credential = world.draw.choice(old)
        requests.extend(world.resource_id, credential.id, world.draw.choice((MINUTE, HOUR, 3 * HOUR)), "test", world.ports)


def revise(world: Restless) -> None:
    spec = replace(world.spec, policy=world.draw.choice(POLICIES), notify=world.draw.random() < 0.5)
    requests.revise(world.store.resources[world.resource_id], spec, "test", world.ports)


def unpark(world: Restless) -> None:
    world.store.unpark("icfg_1", Event("installation_unparked", "test"))


def answer(world: Restless) -> None:
    world.sink.answers(*world.draw.choices(ANSWERS, k=world.draw.randint(1, 3)))
    world.sink.exists = world.draw.choice((True, True, None, False))
    if world.draw.random() < 0.2:
        world.sink.answers(answers.limited(world.clock.now() + world.draw.choice(STEPS)))


def limit(world: Restless) -> None:
    world.limiter.answers.append(world.clock.now() + world.draw.choice(STEPS[:5]))


def deliver(world: Restless) -> None:
    world._forget_lost_pushes()
    if world.sink.in_flight and not world.left:
        world.sink.deliver([world.draw.choice(world.sink.in_flight)])


def log_in(world: Restless) -> None:
    held = world.held_login()
    if held is not None and not world.left:
        world.engine.open_session("pg-1", held.username)


def log_out(world: Restless) -> None:
    world.engine.server("pg-1").sessions.clear()


def lose_key(world: Restless) -> None:
    world.sealer.lose_key(world.draw.choice(("key-1", "verifier-key-1")))


def find_keys(world: Restless) -> None:
    for key in ("key-1", "verifier-key-1"):
        world.sealer.bring_key_back(key)


ACTS: dict[Callable[[Restless], None], int] = {
    work: 40,
    time_passes: 25,
    ask: 12,
    push_again: 4,
    pause: 2,
    resume: 4,
    leave: 2,
    extend: 5,
    revise: 5,
    unpark: 2,
    answer: 14,
    limit: 3,
    deliver: 8,
    log_in: 2,
    log_out: 3,
    lose_key: 1,
    find_keys: 3,
}
