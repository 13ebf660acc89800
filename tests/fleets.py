"""Many resources and several worker processes on fakes: each process has guards of its own around the same databases and the same Vercel.

Time moves from tick to tick, as beat's does; what a tick finds due is dealt out to the processes in turn.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import cycle
from typing import TYPE_CHECKING

from rotation import driver, lifecycle, requests, retirement
from rotation.cases import Deadline
from rotation.model import Database, Event, Installation, Login, Resource
from rotation.ports import Ports
from rotation.sensitive import Sensitive
from rotation.states import ResourceState, RotationState, Trigger
from rotation.store.rules import ENDED_STATES
from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine
from tests.fakes.entropy import FakeEntropy
from tests.fakes.sealer import FakeSealer
from tests.fakes.sink import FakeSink
from tests.fakes.store import FakeStore
from tests.world import SERVER, SPEC
from worker.alarms import StandingAlarms
from worker.guarded_engine import GuardedEngine
from worker.guarded_sink import GuardedSink
from worker.limits import LocalLimiter, RateLimit

if TYPE_CHECKING:
    from collections.abc import Iterator

TICK = timedelta(seconds=5)
ROOM = 1_000
THREADS = 8


class FleetWorld:
    """`resources` resources, spread over so many installations and servers, each with a login in use."""

    def __init__(
        self, *, resources: int, installations: int = 10, servers: int = 1, processes: int = 3, limit: RateLimit | None = None
    ) -> None:
        self.clock = FakeClock()
        self.store = FakeStore(self.clock)
        self.engine = FakeEngine(FakeSealer(), self.clock)
        self.sink = FakeSink()
        limiter = LocalLimiter(self.clock, limit or RateLimit(100_000))
        self.processes = [self._process(number, limiter) for number in range(processes)]
        self._turn: Iterator[Ports] = cycle(self.processes)
        self.steps = 0
        """How often a row was claimed and something was recorded of it."""
        self.servers = [replace(SERVER, name=f"pg-{number}") for number in range(servers)]
        for server in self.servers:
            self.store.add_server(server, Event("server_added", "test"))
        for number in range(installations):
            self.store.add_installation(Installation(f"icfg_{number}"), Event("installation_added", "test"))
        self.resource_ids = [self._add(number, f"icfg_{number % installations}") for number in range(resources)]

    def _process(self, number: int, limiter: LocalLimiter) -> Ports:
        entropy = FakeEntropy(number)
        alarms = StandingAlarms(self.store, self.clock)
        return Ports(
            store=self.store,
            engines={"postgresql": GuardedEngine(self.engine, self.clock, entropy, alarms, threads=THREADS)},
            sink=GuardedSink(self.sink, self.clock, entropy, alarms, threads=THREADS),
            sealer=FakeSealer(),
            limiter=limiter,
            clock=self.clock,
            entropy=entropy,
            terms=self.store.terms,
        )

    def _add(self, number: int, installation: str) -> str:
        server = self.servers[number % len(self.servers)]
        database = Database(server.name, f"db{number}", f"db{number}_owner", f"db{number}")
        spec = replace(SPEC, installation_id=installation, external_id=f"store_{number}", database=database)
        login = Login(f"db{number}_app", Sensitive(f"password-{number}"))
        self.engine.add_login(server.name, login.username, login.password.reveal())
        adopted = Resource(f"res_{number}", ResourceState.ACTIVE, 1, spec, server)
        self.engine.adopt(adopted, login.username, Deadline(self.clock.monotonic() + 60), dry_run=False)
        return requests.register(spec, login, "test", self.processes[0]).id

    def rotate_all(self, trigger: Trigger = Trigger.SCHEDULE) -> None:
        for resource_id in self.resource_ids:
            self.rotate(resource_id, trigger)

    def rotate(self, resource_id: str, trigger: Trigger) -> None:
        requests.trigger(resource_id, requests.Asked(trigger, "test"), self.processes[0])

    def run(self, for_: timedelta) -> None:
        """Tick after tick."""
        until = self.clock.now() + for_
        while self.clock.now() < until:
            self.tick()
            self.clock.advance(TICK)

    def tick(self) -> None:
        for urgent in (True, False):
            for rotation_id in self.store.due_rotations(ROOM, urgent=urgent):
                self.steps += driver.advance(lifecycle.STORY, rotation_id, next(self._turn))
        for credential_id in self.store.due_credentials(ROOM):
            self.steps += driver.advance(retirement.STORY, credential_id, next(self._turn))

    def run_until_ended(self, at_most: timedelta) -> timedelta:
        """Until no rotation is under way; how long that took."""
        began, until = self.clock.now(), self.clock.now() + at_most
        while self.under_way():
            assert self.clock.now() < until, f"{len(self.under_way())} are still under way"
            self.tick()
            self.clock.advance(TICK)
        return self.clock.now() - began

    def under_way(self) -> list[str]:
        return [one.id for one in self.store.rotations.values() if one.state not in ENDED_STATES]

    def states(self) -> dict[RotationState, int]:
        found = [one.state for one in self.store.rotations.values()]
        return {state: found.count(state) for state in set(found)}

    def now(self) -> datetime:
        return self.clock.now()
