"""Chaos, drawn by a seed: what is killed, frozen, wiped, restarted and answered wrongly, and when. All of it in one thread.

The seed makes the draws the same; what they meet with depends on how fast the machine is.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from rotation import requests
from rotation.errors import OutcomeUnknown, Unavailable
from rotation.states import Trigger
from rotation.store.rules import ENDED_STATES
from rotation.store.tables import rotations
from tests.rigs import CLAIM_SECONDS
from worker.sandbox.vercel_faults import FaultKind, ScriptedFault

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from rotation.model import Resource
    from tests.chaos.rig import ChaosRig
    from tests.chaos.supervisor import Supervisor
    from worker.sandbox.postgresql import PrivatePostgresql

LOOK_SECONDS = 0.05
SPOILT = 0.25
"""The share of the connections through a proxy that are spoilt."""
AWAY = (0.0, 2.5)
"""Seconds for which a server or the broker is away beyond what its start takes."""
FROZEN = (1.2 * CLAIM_SECONDS, 3 * CLAIM_SECONDS)
LATE = {FaultKind.HANG: 3.0, FaultKind.DELAY: 2.0}
"""Seconds at most. A delayed push is applied after them: together with the proxy's they stay below the server allowance."""
EMERGENCIES, BY_VERCEL = 0.15, 0.3
"""The shares of the triggers."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was killed, when (seconds since 1970), and the rotations that somebody had in hand then."""

    name: str
    at: float
    in_hand: tuple[str, ...] = ()


@dataclass(slots=True)
class Deeds:
    """What was done."""

    kills: list[Kill] = field(default_factory=list)
    freezes: int = 0
    flushes: int = 0
    restarts: Counter[str] = field(default_factory=Counter)
    """By what was restarted."""
    vercel: Counter[str] = field(default_factory=Counter)
    """Faults of Vercel that a push met with, by kind."""
    accepted: list[str] = field(default_factory=list)
    """The rotations that were promised to those who asked."""
    over: datetime | None = None
    """When the last of it was over, by the store's clock."""
    not_accepted: int = 0
    """Who asked was told that it does not work at the moment."""


@dataclass(slots=True)
class Recurring:
    """Something that happens again and again, so many seconds (from, to) after it happened last."""

    act: Callable[[], None]
    pause: tuple[float, float]
    at: float = 0.0


class Mayhem:
    """Everything that goes wrong, and everybody who asks for rotations meanwhile. Nobody asks for an emergency of the `calm` resources."""

    def __init__(
        self, rig: ChaosRig, supervisor: Supervisor, store: PrivatePostgresql, calm: Sequence[Resource], chance: random.Random
    ) -> None:
        self.deeds = Deeds()
        self._rig = rig
        self._supervisor = supervisor
        self._chance = chance
        self._calm = frozenset(one.id for one in calm)
        self._servers = {"store": store, **{one.name: one.postgresql for one in rig.customers}}
        self._away: dict[str, tuple[float, Callable[[], None]]] = {}
        """What was stopped: when it is to be started, and how."""
        self._recurring = [
            Recurring(self._kill, (1.0, 3.0)),
            Recurring(self._freeze, (8.0, 20.0)),
            Recurring(self._forget, (8.0, 20.0)),
            Recurring(self._stop_broker, (20.0, 40.0)),
            Recurring(self._stop_server, (5.0, 20.0)),
            Recurring(self._mislead_vercel, (1.0, 4.0)),
            Recurring(self._ask, (0.3, 1.5)),
        ]

    def run(self, seconds: float) -> None:
        """Let it happen for so long, then let all be well again."""
        self._rig.spoil(SPOILT)
        begins = time.monotonic()
        for one in self._recurring:
            one.at = begins + self._chance.uniform(0, one.pause[1])
        while time.monotonic() < begins + seconds:
            self._turn()
            time.sleep(LOOK_SECONDS)
        self._rig.spoil(0.0)
        self._script([])
        for name in list(self._away):
            self._bring_back(name)
        self._supervisor.thaw_all()

    def _turn(self) -> None:
        self._supervisor.look()
        for name, (at, _) in list(self._away.items()):
            if time.monotonic() >= at:
                self._bring_back(name)
        for one in self._recurring:
            if time.monotonic() >= one.at:
                one.act()
                one.at = time.monotonic() + self._chance.uniform(*one.pause)

    # What goes wrong

    def _kill(self) -> None:
        if up := self._supervisor.up:
            place = self._chance.choice(up)
            in_hand = self._in_hand()
            at = time.time()
            self._supervisor.kill(place)
            self.deeds.kills.append(Kill(place.process.name, at, in_hand))

    def _freeze(self) -> None:
        if len(up := self._supervisor.up) > 1:
            self._supervisor.freeze(self._chance.choice(up), self._chance.uniform(*FROZEN))
            self.deeds.freezes += 1

    def _forget(self) -> None:
        if "broker" not in self._away:
            self._rig.forget_hints()
            self.deeds.flushes += 1

    def _stop_broker(self) -> None:
        if "broker" not in self._away:
            self._chance.choice([self._rig.broker.kill, self._rig.broker.stop])()
            self._send_away("broker", self._rig.broker.start)

    def _stop_server(self) -> None:
        name = self._chance.choice([*self._servers, "store"])  # the store as often as all customers
        if name not in self._away:
            server = self._servers[name]
            self._chance.choice([server.kill, server.stop])()
            self._send_away(name, server.start)

    def _send_away(self, name: str, start: Callable[[], None]) -> None:
        self._away[name] = (time.monotonic() + self._chance.uniform(*AWAY), start)
        self.deeds.restarts[name] += 1

    def _bring_back(self, name: str) -> None:
        _, start = self._away.pop(name)
        start()

    def _mislead_vercel(self) -> None:
        self._script([self._fault() for _ in range(self._chance.randint(1, 3))])

    def _script(self, faults: Sequence[ScriptedFault]) -> None:
        """What is left of the script before is forgotten, and was not met with."""
        left = self._rig.vercel.script(faults)
        self.deeds.vercel.update(fault.kind.value for fault in faults)
        self.deeds.vercel.subtract(fault.kind.value for fault in left)

    def _fault(self) -> ScriptedFault:
        applies = self._chance.random() < 0.7
        match self._chance.choice([FaultKind.ANSWER, FaultKind.ANSWER, *FaultKind]):
            case FaultKind.ANSWER:
                return ScriptedFault(FaultKind.ANSWER, self._chance.choice([500, 502, 503]), applies)
            case FaultKind.HANG as kind:
                return ScriptedFault(kind, applies=applies, seconds=self._chance.uniform(0.3, LATE[kind]))
            case FaultKind.DELAY as kind:  # answered properly in the end: what was not applied would be a lie that nobody can see through
                return ScriptedFault(kind, seconds=self._chance.uniform(0.3, LATE[kind]))
            case FaultKind.DRIP:
                return ScriptedFault(FaultKind.DRIP, seconds=0.05)
            case kind:
                return ScriptedFault(kind, applies=applies)

    # Who asks

    def _ask(self) -> None:
        resource = self._chance.choice(self._rig.resources)
        drawn = self._chance.random()
        grace = resource.spec.policy.grace
        if drawn < EMERGENCIES and resource.id not in self._calm:
            asked = requests.Asked(Trigger.EMERGENCY, "chaos", "a password was seen in a log")
        elif drawn < EMERGENCIES + BY_VERCEL:
            asked = requests.Asked(Trigger.VERCEL, "chaos", "Vercel asks", grace=grace)
        else:
            asked = requests.Asked(Trigger.MANUAL, "chaos", "somebody wants it", grace=grace + timedelta(seconds=1))
        try:
            received = requests.trigger(resource.id, asked, self._rig.ports)
        except (Unavailable, OutcomeUnknown):
            self.deeds.not_accepted += 1
        else:
            assert received.rotation_id is not None
            self.deeds.accepted.append(received.rotation_id)

    def _in_hand(self) -> tuple[str, ...]:
        """The rotations that a worker holds at this moment; none are known while the store is away."""
        now = self._rig.ports.clock.now()
        held = select(rotations.c.id).where(rotations.c.state.not_in(ENDED_STATES), rotations.c.claimed_until > now)
        with contextlib.suppress(Unavailable), self._rig.store.database.reading() as connection:
            return tuple(connection.scalars(held))
        return ()
