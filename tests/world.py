"""One resource and everything around it on fakes, with a customer's eye on the promises.

`World` checks the invariants after every act that crosses a port, from outside: what Vercel holds must log in, and what was promised
must still work. `run` drives whatever is due, as the sweep would; a `Killed` worker loses everything but the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from rotation import driver, lifecycle, requests, retirement
from rotation.cases import Deadline
from rotation.model import Database, Event, Installation, Login, Policy, Resource, ResourceSpec, SecretTemplate, Server
from rotation.ports import Ports
from rotation.requests import Asked, Received
from rotation.sensitive import Sensitive
from rotation.states import ALIVE_STAGES, ResourceState, RotationState, Stage, Trigger
from rotation.store.rules import ENDED_STATES
from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine
from tests.fakes.entropy import FakeEntropy
from tests.fakes.limiter import FakeLimiter
from tests.fakes.sealer import FakeSealer
from tests.fakes.sink import FakeSink
from tests.fakes.store import FakeStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from rotation.model import Credential, Rotation

SERVER = Server(name="pg-1", engine="postgresql", host="db.example.com", port=5432)
POLICY = Policy(every=timedelta(days=30), grace=timedelta(hours=24), blocked=timedelta(minutes=10))
SPEC = ResourceSpec(
    installation_id="icfg_1",
    external_id="store_42",
    product="postgres",
    engine="postgresql",
    owns_all_secrets=True,
    database=Database(server="pg-1", name="orders", owner_role="orders_owner", login_prefix="orders"),
    secrets=(SecretTemplate("DATABASE_URL", "postgresql://{username}:{password}@{host}:{port}/{database}"),),
    policy=POLICY,
)
ADOPTED = Login("orders_app", Sensitive("the-first-password"))


class Killed(BaseException):
    """The process died here."""


class Watched:
    """A port whose every call is a boundary: `World.boundary` hears of it before and after, and may kill the worker there."""

    def __init__(self, name: str, real: object, boundary: Callable[[str], None]) -> None:
        self._name = name
        self._real = real
        self._boundary = boundary

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # it stands for every method of the port
        member = getattr(self._real, name)
        if not callable(member):
            return member

        def call(*args: object, **kwargs: object) -> object:
            self._boundary(f"before {self._name}.{name}")
            result = member(*args, **kwargs)
            self._boundary(f"after {self._name}.{name}")
            return result

        return call


@dataclass
class World:
    """A resource with a login that is in use, its database, its store and its Vercel."""

    spec: ResourceSpec = SPEC
    current: Login | None = ADOPTED
    kill_at: int | None = None
    boundaries: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.sealer = FakeSealer()
        self.store = FakeStore(self.clock)
        self.engine = FakeEngine(self.sealer, self.clock)
        self.sink = FakeSink()
        self.limiter = FakeLimiter(self.clock)
        self.ports = Ports(
            store=Watched("store", self.store, self._boundary),
            engines={"postgresql": Watched("engine", self.engine, self._boundary)},
            sink=Watched("sink", self.sink, self._boundary),
            sealer=self.sealer,
            limiter=self.limiter,
            clock=self.clock,
            entropy=FakeEntropy(),
            terms=self.store.terms,
        )
        self.store.add_server(SERVER, Event("server_added", "test"))
        self.store.add_installation(Installation("icfg_1"), Event("installation_added", "test"))
        kill_at, self.kill_at = self.kill_at, None
        if self.current is not None:
            self.engine.add_login("pg-1", self.current.username, self.current.password.reveal())
            adopted = Resource("res_0", ResourceState.ACTIVE, 1, self.spec, SERVER)
            deadline = Deadline(self.clock.monotonic() + 60)
            self.engine.adopt(adopted, self.current.username, deadline, dry_run=False)
            values = {one.name: one.value.reveal() for one in self.sink.render(adopted, self.current)}
            self.sink.held["icfg_1", self.spec.external_id] = values
        self.resource_id = requests.register(self.spec, self.current, "test", self.ports).id
        self.boundaries.clear()
        self.kill_at = kill_at

    # -- what a person does

    def rotate(self, trigger: Trigger = Trigger.MANUAL, *, grace: timedelta | None = None, key: str | None = None) -> Received:
        return requests.trigger(self.resource_id, Asked(trigger, "test", grace=grace, key=key), self.ports)

    # -- what the sweep does

    def run(self, *, for_: timedelta = timedelta(0)) -> None:
        """Everything that is due now and in the time to come, in order, as long as it takes, with the clock moved from date to date."""
        until = self.clock.now() + for_
        while True:
            self.sweep()
            next_at = self._next_due()
            if next_at is None or next_at > until:
                self.clock.advance_to(until)
                return
            self.clock.advance_to(max(next_at, self.clock.now() + timedelta(seconds=1)))

    def sweep(self) -> None:
        """One pass over what is due now. A worker that dies leaves its claim behind, which ends by itself."""
        self._alive(lambda: requests.request_due(self.ports, 100))
        for row in [one for one in self.store.rotations.values() if self._is_due(one, ended=one.state in ENDED_STATES)]:
            self._work(lifecycle.STORY, row.id)
        for credential in [one for one in self.store.credentials.values() if self._is_due(one, ended=one.stage not in ALIVE_STAGES)]:
            self._work(retirement.STORY, credential.id)
        self.check()

    def settle(self) -> None:
        """Run until nothing is under way: every rotation has ended, and no credential is left but the current one."""
        for _ in range(200):
            self.run(for_=timedelta(hours=1))
            if not self.under_way():
                return
        raise AssertionError(f"not settled: {self.under_way()}")

    def under_way(self) -> list[str]:
        rows = [one.id for one in self.store.rotations.values() if one.state not in ENDED_STATES]
        stages = ALIVE_STAGES - {Stage.CURRENT}
        return rows + [f"{one.id} {one.stage} {one.problem}" for one in self.store.credentials.values() if one.stage in stages]

    def _work(self, story: driver.Story[Any], row_id: str) -> None:
        self._alive(lambda: driver.advance(story, row_id, self.ports))

    def _alive(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Killed:
            self.clock.advance(self.store.terms.claim + timedelta(seconds=1))

    def _is_due(self, row: Rotation | Credential, *, ended: bool) -> bool:
        return not ended and row.due_at is not None and row.due_at <= self.store.now()

    def _next_due(self) -> datetime | None:
        rotations = (one for one in self.store.rotations.values() if one.state not in ENDED_STATES)
        credentials = (one for one in self.store.credentials.values() if one.stage in ALIVE_STAGES)
        dates = [at for at in (*(one.due_at for one in rotations), *(one.due_at for one in credentials)) if at is not None]
        active = (one for one in self.store.resources.values() if one.state is ResourceState.ACTIVE)
        dates += [at for one in active if (at := one.schedule.next_rotation_at) is not None]
        return min(dates, default=None)

    # -- what a customer sees

    def held_login(self) -> Login | None:
        """What Vercel holds now, as an application would read it."""
        url = self.sink.held.get(("icfg_1", self.spec.external_id), {}).get("DATABASE_URL")
        return None if url is None else login_of(url)

    def logs_in(self, login: Login) -> bool:
        return self.engine.logs_in(login.username, login.password.reveal())

    def check(self) -> None:
        """The promises, as they must hold at any instant."""
        held = self.held_login()
        assert held is None or self.logs_in(held), f"I1: Vercel holds {held}, which does not log in"
        for push in self.sink.in_flight:
            login = login_of(push.values["DATABASE_URL"])
            assert self.logs_in(login), f"I1: {login.username} is on its way to Vercel and does not log in"
        for credential in self.store.credentials.values():
            if credential.stage is Stage.PREVIOUS and (credential.grace_ends_at is None or credential.grace_ends_at > self.clock.now()):
                assert self.can_log_in(credential), f"I2: {credential.username} was promised to work until {credential.grace_ends_at}"
        known = {one.username: one for one in self.store.credentials.values()}
        for role in self.engine.server("pg-1").roles.values():
            assert role.marker is None or role.username in known, f"I3: {role.username} is unknown to the store"

    def can_log_in(self, credential: Credential) -> bool:
        role = self.engine.server("pg-1").roles.get(credential.username)
        return role is not None and role.can_log_in

    def check_at_rest(self) -> None:
        """What must be true once everything has settled: one login is left, it is the current one, and Vercel holds it."""
        self.check()
        current = [one for one in self.store.credentials.values() if one.stage is Stage.CURRENT]
        assert len(current) <= 1
        held = self.held_login()
        assert (held.username if held else None) == (current[0].username if current else None), "Vercel holds the current credential"
        assert set(self.engine.server("pg-1").roles) == {one.username for one in current}, "I3: no login but the current one is left"
        states = {one.state for one in self.store.rotations.values()}
        assert states <= ENDED_STATES
        for one in self.store.credentials.values():
            destroyed = one.sealed_password is None and one.sealed_verifier is None
            assert destroyed == (one.stage in (Stage.RETIRED, Stage.DISCARDED)), "what was sealed is destroyed with its login"

    def stages(self) -> list[Stage]:
        return [one.stage for one in sorted(self.store.credentials.values(), key=lambda one: one.generation)]

    def states(self) -> list[RotationState]:
        return [one.state for one in self.store.rotations.values()]

    def credential(self, generation: int) -> Credential:
        return next(one for one in self.store.credentials.values() if one.generation == generation)

    def _boundary(self, name: str) -> None:
        self.boundaries.append(name)
        self.check()
        if self.kill_at is not None and len(self.boundaries) > self.kill_at:
            self.kill_at = None
            raise Killed(name)


def login_of(url: str) -> Login:
    """The login in a URL, as an application's driver reads it."""
    parts = urlsplit(url)
    return Login(unquote(parts.username or ""), Sensitive(unquote(parts.password or "")))


def with_policy(**changes: Any) -> ResourceSpec:  # noqa: ANN401  # the fields of a policy
    return replace(SPEC, policy=replace(POLICY, **changes))
