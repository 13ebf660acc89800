"""What was promised, worked out beside the program from what happened, and whether it is kept.

The names of the invariants are told in `docs/proof.md`. Nothing here asks the program what it means to do: a promise follows from what
was requested, from the policy, and from the true time at which Vercel took a value.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from rotation.states import ResourceState, RotationState, Stage, Trigger
from tests.fakes.engine import fake_verifier
from tests.simulation.clocks import START
from tests.simulation.violations import Violation
from tests.world import login_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rotation.model import Credential, Policy, Request, Resource, Rotation
    from tests.simulation.world import World

FOR_EVER = float("inf")
ENDED_STAGES = frozenset({Stage.RETIRED, Stage.DISCARDED})
KEPT_STAGES = frozenset({Stage.CURRENT, Stage.PREVIOUS})
LEFT = frozenset({ResourceState.LEAVING, ResourceState.GONE})


class Oracle:
    """The promises of one world. `promised` is until when a login must work, in true seconds, for each that Vercel ever held."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.promised: dict[str, float] = {}
        self.verifiers: dict[str, str] = {}
        """What a database must hold of each login that Vercel ever held."""
        self.reopening: set[str] = set()
        """Logins that had ended, or were about to, when a person gave them a new end: they are let in again in a while."""
        self.departed: set[str] = set()
        self.logins: dict[str, tuple[str, str]] = {}
        """User name and verifier by URL, since parsing is slow and values are pushed many times."""

    # -- what happens

    def held(self, resource: Resource) -> None:
        """Vercel took something: what it holds now is promised to work until a successor is acknowledged."""
        values = self._world.sink.held.get((resource.spec.installation_id, resource.spec.external_id))
        if values is not None and not self._left(resource.id):
            username, self.verifiers[username] = self.login(values)
            self.promised.setdefault(username, FOR_EVER)

    def completed(self, rotation: Rotation, requests: Sequence[Request], policy: Policy, now: float) -> None:
        """A successor was acknowledged at that time: those before it are promised their grace from then on."""
        grace, explicit = owed(policy, requests)
        for one in self._world.rows.credentials.values():
            end = self.promised.get(one.username)
            if one.resource_id != rotation.resource_id or one.id == rotation.credential_id or end is None:
                continue
            if one.compromised and not self._in_an_emergency(rotation.resource_id):
                raise Violation("I2", f"{one.username} is called compromised, and nobody has said so")
            own_end = now if one.compromised else now + grace.total_seconds()
            if end == FOR_EVER or ((explicit or one.compromised) and own_end < end):
                self.promised[one.username] = own_end

    def amended(self, resource_id: str) -> None:
        """A person may have given an old one a new end, which is told to him as a date."""
        world = self._world
        for one in world.rows.credentials.values():
            if one.resource_id == resource_id and one.unblock_until is not None and one.grace_ends_at is not None:
                end = self.promised.get(one.username)
                if end is None:
                    continue
                if end - world.clock_slack <= world.time.seconds or not self._works(one.username, world.server_of[resource_id]):
                    self.reopening.add(one.username)
                self.promised[one.username] = max(end, (one.grace_ends_at - START).total_seconds())

    def left(self, resource_id: str, at: float, ends_in: Iterable[timedelta | None]) -> None:
        """The resource left then: Vercel is promised nothing any more, and its logins the shortest of these times; None: they stay.

        By a clock that is wrong the end is a date that nobody was promised.
        """
        if resource_id in self.departed:
            return
        self.departed.add(resource_id)
        world = self._world
        ends = [at + one.total_seconds() for one in ends_in if one is not None]
        end = 0.0 if world.store_clock.ahead else min(ends, default=FOR_EVER)
        for one in world.rows.credentials.values():
            if one.resource_id == resource_id and one.username in self.promised:
                self.promised[one.username] = min(self.promised[one.username], end)

    # -- whether it is kept

    def check(self) -> None:
        """The promises that must hold at any instant. Raises `Violation`."""
        self._note_what_is_right_again()
        self._check_held()
        self._check_rows()
        self._check_promised()

    def check_mended(self) -> None:
        """I3, some time after the last fault: what servers had lost and must work is there again, what they had brought back is gone."""
        world = self._world
        now = world.time.seconds
        kept = (one for one in world.rows.credentials.values() if one.stage in KEPT_STAGES and not self._left(one.resource_id))
        owed = {one.username for one in kept if self.promised.get(one.username, 0.0) > now}
        if lost := world.lost.keys() & owed:
            raise Violation("I3", f"lost and never made again: {sorted(lost)}")
        if world.returned:
            raise Violation("I3", f"brought back and never removed again: {sorted(world.returned)}")

    def _note_what_is_right_again(self) -> None:
        """What works again is lost no more, and what is gone again is brought back no more."""
        world = self._world
        for username, server in list(world.lost.items()):
            if self._works(username, server):
                del world.lost[username]
        for username, server in list(world.brought_back.items()):
            if username not in world.engine.servers[server].roles:
                del world.brought_back[username]

    def _works(self, username: str, server: str) -> bool:
        """Whether the database lets it in, with the password that Vercel had of it; of one that Vercel never had, by its mark."""
        role = self._world.engine.servers[server].roles.get(username)
        if role is None or not role.can_log_in or username in self._world.engine.shut_out:
            return False
        return role.verifier == self.verifiers[username] if username in self.verifiers else role.marker is not None

    def _in_an_emergency(self, resource_id: str) -> bool:
        """Whether somebody has asked for one."""
        return any(one.resource_id == resource_id and one.trigger is Trigger.EMERGENCY for one in self._world.rows.requests.values())

    def _check_held(self) -> None:
        sink = self._world.sink
        for key, values in sink.held.items():
            self._expect(values, key, "Vercel holds it")
        for push in sink.in_flight:
            self._expect(push.values, push.key, "it is on its way to Vercel")

    def _expect(self, values: Mapping[str, str], key: tuple[str, str], why: str) -> None:
        resource_id, server = self._world.place_of(key)
        if self._left(resource_id):
            return
        username, verifier = self.login(values)
        role = self._world.engine.servers[server].roles.get(username)
        works = role is not None and role.can_log_in and role.verifier == verifier and username not in self._world.engine.shut_out
        if not works and username not in self._world.lost:
            raise Violation("I1", f"{username} {'is gone' if role is None else 'does not log in'}, and {why}")

    def _check_rows(self) -> None:
        world = self._world
        pending: set[str] = set()
        known: dict[str, set[str]] = {name: set() for name in world.engine.servers}
        for one in world.rows.credentials.values():
            server = world.server_of[one.resource_id]
            known[server].add(one.username)
            if one.stage in ENDED_STAGES:
                self._check_ended(one, server)
            if one.stage is Stage.PENDING:
                if one.resource_id in pending:
                    raise Violation("I7", f"two logins of {one.resource_id} are pending")
                pending.add(one.resource_id)
        for server, names in known.items():
            for username in world.engine.servers[server].roles:
                if username not in names:
                    raise Violation("I3", f"no row knows the login {username} on {server}")
        for server, username in world.foreign:
            role = world.engine.servers[server].roles.get(username)
            if role is None or role.marker is not None or not role.can_log_in:
                raise Violation("I11", f"somebody else's login {username} was changed")

    def _check_ended(self, one: Credential, server: str) -> None:
        world = self._world
        if one.username not in world.engine.servers[server].roles:
            world.returned.discard(one.username)
        elif one.username in world.brought_back:  # between the proof of its end and the record of that
            del world.brought_back[one.username]
            world.returned.add(one.username)
        elif one.username not in world.returned and (server, one.username) not in world.foreign:
            raise Violation("I9", f"{one.username} is {one.stage} and exists")

    def _check_promised(self) -> None:
        world = self._world
        now, slack = world.time.seconds, world.clock_slack
        for one in world.rows.credentials.values():
            end = self.promised.get(one.username)
            if end is None or now >= end - slack:
                continue
            if self._works(one.username, world.server_of[one.resource_id]):
                self.reopening -= {one.username} if one.unblock_until is None else set()
            elif one.username not in world.lost and (one.unblock_until is None or one.username not in self.reopening):
                left = "for as long as Vercel may hold it" if end == FOR_EVER else f"for {end - now:g} s more"
                raise Violation("I2", f"{one.username}, which is {one.stage}, does not log in, but is promised {left}")

    def _left(self, resource_id: str) -> bool:
        return self._world.rows.resources[resource_id].state in LEFT

    def login(self, values: Mapping[str, str]) -> tuple[str, str]:
        url = values["DATABASE_URL"]
        known = self.logins.get(url)
        if known is None:
            login = login_of(url)
            known = self.logins[url] = (login.username, fake_verifier(login.password).reveal())
        return known


def owed(policy: Policy, requests: Sequence[Request]) -> tuple[timedelta, bool]:
    """The grace that a predecessor is owed by what was asked for, and whether somebody named it, so that it bounds older ones too."""
    if any(one.trigger is Trigger.EMERGENCY for one in requests):
        return timedelta(0), True
    named = [one.grace for one in requests if one.grace is not None and one.trigger in (Trigger.MANUAL, Trigger.VERCEL)]
    if named:
        return max(named), True
    usual = [policy.grace_vercel if one.trigger is Trigger.VERCEL else policy.grace for one in requests]
    return max(usual), False


RECORDED_PATHS = {
    RotationState.COMPLETED: (RotationState.PLANNED, RotationState.OFFERED, RotationState.COMPLETED),
    RotationState.FAILED: (RotationState.FAILED,),
}
"""The states that every rotation with this end has a line of; those on the way to the offer may be recorded together with it."""
RECORDED_ENDS = ("rotation_superseded", "credential_retired", "credential_discarded")
"""Moves that are told in a line of their own, of which there are as many as of what has come to that end."""


def check_trail(rotations: Iterable[Rotation], credentials: Iterable[Credential], lines: Counter[tuple[str | None, str]]) -> None:
    """I10: every move is one line of the trail. `lines` counts them by rotation and kind."""
    rotations = list(rotations)
    ended = Counter([f"rotation_{one.state}" for one in rotations] + [f"credential_{one.stage}" for one in credentials])
    for kind in RECORDED_ENDS:
        told = sum(count for (_, of), count in lines.items() if of == kind)
        if told != ended[kind]:
            raise Violation("I10", f"{told} lines say {kind}, and {ended[kind]} are")
    for one in rotations:
        for state in RECORDED_PATHS.get(one.state, ()):
            if lines[one.id, f"rotation_{state}"] != 1:
                raise Violation("I10", f"{one.id} has {lines[one.id, f'rotation_{state}']} lines that say {state}")
