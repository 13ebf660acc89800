"""One world: resources, their databases and Vercel, three workers, a beat and people, all drawn from one seed.

The code under test is the real one, on simulated ports. `live` is the part in which anything happens, `tests.simulation.rest` the one in
which nothing goes wrong any more and everything must come to an end.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit

from rotation import requests
from rotation.cases import Deadline
from rotation.endings import MISSING_CONFIRMED_AFTER
from rotation.errors import Conflict, LostClaim, NotFound, RolloverError
from rotation.model import Database, Event, Installation, Login, ResourceSpec, SecretTemplate, Server
from rotation.ports import Ports, Terms
from rotation.sensitive import Sensitive
from rotation.states import RotationState, Stage
from tests.fakes.engine import FakeEngine
from tests.fakes.entropy import FakeEntropy
from tests.fakes.limiter import FakeLimiter
from tests.fakes.sealer import FakeSealer
from tests.fakes.sink import Effect, FakeSink
from tests.simulation import conditions
from tests.simulation.acts import ACTS
from tests.simulation.boundaries import LAST_BOUNDARY, EnginePort, LimiterPort, SinkPort, StorePort
from tests.simulation.clocks import SimulatedClock, TrueTime
from tests.simulation.oracle import LEFT, Oracle
from tests.simulation.processes import Killed, Machine, Processes
from tests.simulation.stores import InMemory
from tests.simulation.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from rotation.model import Credential, PushOutcome, RenderedSecret, Resource
    from tests.fakes.engine import FakeRole
    from tests.fakes.sink import Answer, Push
    from tests.simulation.processes import Process
    from tests.simulation.stores import SimulatedStore

WORKERS = 3


@dataclass(frozen=True, slots=True)
class Owed:
    """A request that was answered: a push that comes after it is owed."""

    rotation_id: str
    at: datetime
    pushes_again: bool


@dataclass(frozen=True, slots=True)
class Travelling:
    """An act on a database that was sent, and for whose answer nobody waits any more."""

    what: str
    effect: Callable[[], object]


@dataclass(slots=True)
class Tally:
    """What a world has seen, so that nobody takes a quiet one for a proof."""

    rotations: int = 0
    completed: int = 0
    retired: int = 0
    boundaries: int = 0
    faults: int = 0
    kills: int = 0


class World:
    """Everything that there is. `story` collects what happens, when it is a list."""

    def __init__(
        self, seed: int, store: Callable[[SimulatedClock, Terms], SimulatedStore] = InMemory, story: list[str] | None = None
    ) -> None:
        self.seed = seed
        self.draw = random.Random(seed)  # noqa: S311  # a history to be played again, not a secret
        self.conditions = conditions.drawn(self.draw)
        self.story = story
        self.restless = False
        self.tally = Tally()
        self.time = TrueTime()
        self.clocks_were_wrong = False
        """Whether the store's clock or a worker's was ever set wrong: by such dates nobody can tell afterwards what came first."""
        self.store_clock = SimulatedClock(self.time)
        self.terms = terms = Terms(look=timedelta(seconds=self.conditions.look))
        self.backing = store(self.store_clock, terms)
        self.store: Any = self.backing.store
        self.rows = self.backing.rows
        self.sealer = FakeSealer()
        self.engine = FakeEngine(self.sealer, SimulatedClock(self.time))
        self.sink = FakeSink()
        self.limiter = FakeLimiter(SimulatedClock(self.time))
        self.entropy = FakeEntropy(seed)
        self.processes = Processes(self.time, self._ended)
        self.messages: deque[tuple[str, str]] = deque()
        self.late_acts: list[Travelling] = []
        self.sent_at: dict[int, float] = {}
        self.owed: list[Owed] = []
        self.unsure: list[Callable[[], None]] = []
        self.store_is_down = False
        self.foreign: set[tuple[str, str]] = set()
        self.lost: dict[str, str] = {}
        """Logins that their server, named here, has lost, until they work again: no promise is broken by that while nobody can know."""
        self.brought_back: dict[str, str] = {}
        """Those that it brought back while they were being removed, until they are gone again, or proved to be."""
        self.returned: set[str] = set()
        """Those that are there again after their end."""
        self.leaving_in: dict[str, list[timedelta | None]] = defaultdict(list)
        """When the logins of a resource were to go, by each person who said that it leaves; None: they stay."""
        self.said_gone: dict[str, list[float]] = defaultdict(list)
        self._earlier: dict[str, deque[dict[str, FakeRole]]] = defaultdict(lambda: deque(maxlen=4))
        self.places: dict[tuple[str, str], tuple[str, str]] = {}
        self.server_of: dict[str, str] = {}
        self.oracle = Oracle(self)
        self.dirty = True
        self.workers = [self._machine(f"worker{number}") for number in range(1, WORKERS + 1)]
        self.beat = self._machine("beat")
        self.desk = self._machine("desk")
        self.ports = {one.name: self._ports(one, terms) for one in (*self.workers, self.beat, self.desk)}
        self._settle_in()

    def _machine(self, name: str) -> Machine:
        return Machine(name, SimulatedClock(self.time))

    def _ports(self, machine: Machine, terms: Terms) -> Ports:
        return Ports(
            store=StorePort(self, machine),  # type: ignore[arg-type]  # its methods are made from a list of names
            engines={"postgresql": EnginePort(self, machine)},  # type: ignore[dict-item]  # the same
            sink=SinkPort(self, machine),
            sealer=self.sealer,
            limiter=LimiterPort(self, machine),  # type: ignore[arg-type]  # the same
            clock=machine.clock,
            entropy=self.entropy,
            terms=terms,
        )

    def _settle_in(self) -> None:
        """The customers as they were before the history begins: their logins are in use, Vercel holds them."""
        for number in range(1, self.conditions.servers + 1):
            self.store.add_server(Server(f"pg-{number}", "postgresql", f"db{number}.example.com", 5432), Event("server_added", "test"))
            self.engine.server(f"pg-{number}")
        for number in range(1, self.conditions.installations + 1):
            self.store.add_installation(Installation(f"icfg_{number}"), Event("installation_added", "test"))
        for number in range(1, self.conditions.resources + 1):
            self._add_customer(number)

    def _add_customer(self, number: int) -> None:
        name, server = f"tenant{number}", f"pg-{1 + number % self.conditions.servers}"
        spec = ResourceSpec(
            installation_id=f"icfg_{1 + number % self.conditions.installations}",
            external_id=f"store_{number}",
            product="postgres",
            engine="postgresql",
            owns_all_secrets=True,
            database=Database(server=server, name=name, owner_role=f"{name}_owner", login_prefix=name),
            secrets=(SecretTemplate("DATABASE_URL", "postgresql://{username}:{password}@{host}:{port}/{database}"),),
            policy=self.draw.choice(self.conditions.policies),
        )
        login = Login(f"{name}_app", Sensitive(f"the first password of {name}"))
        self.engine.add_login(server, login.username, login.password.reveal())
        resource = requests.register(spec, login, "test", replace(self.ports["desk"], store=self.store))
        self.engine.adopt(resource, login.username, Deadline(60.0), dry_run=False)
        self.sink.held[spec.installation_id, spec.external_id] = {one.name: one.value.reveal() for one in self.sink.render(resource, login)}
        self.places[spec.installation_id, spec.external_id] = (resource.id, server)
        self.server_of[resource.id] = server
        self.backing.refresh()
        self.oracle.held(resource)

    # -- the part in which anything happens

    def live(self) -> None:
        """Anything may happen. Raises `Violation` at the first promise that is broken."""
        acts = list(ACTS)
        weights = [weight * self.conditions.favoured.get(act.__name__, 1.0) for act, weight in ACTS.items()]
        self.restless = True
        for act in self.draw.choices(acts, weights, k=self.conditions.acts):
            act(self)
            self.check()
        self.restless = False

    @property
    def clock_slack(self) -> float:
        """How early a grace may end by clocks that differ by less than is noticed: once when it began, once when it ends."""
        return 60.0 if self.clocks_were_wrong or self.conditions.suspends else 0.01

    def check(self) -> None:
        """Whether every promise is kept now; at once when nothing has changed since that was last looked at."""
        if self.dirty:
            self.dirty = False
            self.oracle.check()

    def tell(self, what: str) -> None:
        if self.story is not None:
            self.story.append(f"{self.time.seconds:10.1f} {what}")

    # -- what processes do

    def start(self, machine: Machine, what: str, act: Callable[[Ports], object]) -> None:
        """Begin something on a machine. What a person at a desk would be told, an error that is no crash, is his own business."""
        self.tell(f"{machine.name} begins {what}")
        told = (Conflict, NotFound, LostClaim) if machine is self.desk else ()

        def run() -> None:
            with suppress(*told):
                act(self.ports[machine.name])

        self.processes.start(machine, what, run)

    def boundary(self, machine: Machine, name: str, more: float = 0.0) -> None:
        """A process crosses it: others may go on meanwhile, it may stand still, it may die, by so much more often than usual."""
        if not self.restless:
            return
        self.tally.boundaries += 1
        chance = self.draw.random()
        process = self.processes.turn
        if process is None:
            return
        process.at = name
        trouble = self.conditions.trouble + more
        if chance < trouble:
            self._disturb(machine, process, name)
        elif chance < trouble + self.conditions.switching:
            self.processes.give_way(process)

    def _disturb(self, machine: Machine, process: Process, name: str) -> None:
        self.tally.faults += 1
        if self.draw.random() < 0.3:
            self.tell(f"{machine.name} dies {name}")
            self.tally.kills += 1
            raise Killed(name)
        seconds = self.draw.choice(self.conditions.pauses)
        if self.conditions.suspends:
            if name == LAST_BOUNDARY:  # what is sent later than that could arrive after its attempt has expired
                seconds = min(seconds, self.terms.server_allowance.total_seconds() - self.conditions.flight)
            self.tell(f"{machine.name} is suspended for {seconds:g} s {name}")
            machine.stop(self.time.seconds + seconds, suspends=True)
            self.processes.give_way(process)
        else:
            self.tell(f"{machine.name} stands still for {seconds:g} s {name}")
            self.processes.give_way(process, seconds=seconds)

    def goes_wrong(self, name: str, more: float = 0.0) -> bool:
        """Whether a call fails here, by so much more often than usual; drawn anew each time."""
        if not self.restless or self.draw.random() >= self.conditions.trouble + more:
            return False
        self.tally.faults += 1
        self.tell(f"fault: {name}")
        return True

    def _ended(self, process: Process, error: BaseException) -> None:
        if isinstance(error, RolloverError):
            self.tell(f"{process.machine.name} ends {process.what}: {error!r}")

    # -- what the ports tell

    def written(self, name: str, arguments: Sequence[Any], result: object) -> None:
        """The store has written something."""
        self.dirty = True
        self.backing.refresh()
        if name == "amend":
            self._note_departure(arguments[0], self.time.seconds, self.leaving_in[arguments[0]])
            self.oracle.amended(arguments[0])
            return
        if not name.startswith("record_") and name != "open_attempt":
            self.tell(f"  {name} {short(str(arguments[0]))}")
            return
        if name == "open_attempt":
            self.tell(f"  attempt of {short(arguments[0].rotation.id)}")
            return
        case, decision = arguments
        self._tell_decision(name, case, decision)
        move = hasattr(decision, "event")
        if not move:
            return
        rotation = decision.rotation
        if rotation is not None and rotation.state is RotationState.ABANDONED:
            self._expect_gone(case.resource.id)
            self._note_departure(case.resource.id, self._answered_at(), [case.present_policy.grace])
        if rotation is not None and rotation.state is RotationState.COMPLETED:
            self.tally.completed += 1
            if not case.pushes_again:
                self.oracle.completed(rotation, self.backing.requests_of(rotation.id), case.resource.spec.policy, self._answered_at())
        for one in decision.credentials:
            if one.stage is Stage.RETIRED and self.rows.credentials[one.id].stage is Stage.RETIRED:
                self._note_retired(case.resource, one.username)

    def _expect_gone(self, resource_id: str) -> None:
        """A resource is given up only when Vercel has said twice, with a pause, that it is gone, or when a person said so."""
        said = self.said_gone[resource_id]
        twice = bool(said) and said[-1] - said[0] >= MISSING_CONFIRMED_AFTER.total_seconds() - self.clock_slack
        if resource_id not in self.oracle.departed and not twice and not self.clocks_were_wrong:
            raise Violation("I7", f"{resource_id} was given up, and Vercel said at {said} that it is gone")

    def _answered_at(self) -> float:
        """When the process that has the turn was answered last: it may have stood still since."""
        return self.time.seconds if self.processes.turn is None else self.processes.turn.answered_at

    def _tell_decision(self, name: str, case: Any, decision: Any) -> None:  # noqa: ANN401  # either story's
        if self.story is None:
            return
        row = case.rotation.id if name == "record_rotation" else case.credential.username
        kind = decision.event.kind if hasattr(decision, "event") else f"waits: {decision.problem or decision.until}"
        self.tell(f"  {short(row)} {kind}")

    def _note_departure(self, resource_id: str, at: float, ends_in: Sequence[timedelta | None]) -> None:
        if self.rows.resources[resource_id].state in LEFT:
            self.oracle.left(resource_id, at, ends_in)

    def _note_retired(self, resource: Resource, username: str) -> None:
        self.tally.retired += 1
        if any(one.username == username for one in self.engine.server(resource.server.name).sessions):
            raise Violation("I9", f"{username} is called retired and has a session")

    def acted(self, name: str, resource: Resource, inputs: Sequence[Any]) -> None:
        """A database has changed."""
        self.dirty = True
        self._earlier[resource.server.name].append(dict(self.engine.servers[resource.server.name].roles))
        username = inputs[0] if isinstance(inputs[0], str) else inputs[0].username
        self.tell(f"  {name} {username}")
        if not username.startswith(f"{resource.spec.database.login_prefix}_"):
            raise Violation("I11", f"{name} of {username} for {resource.name}")

    def made(self, usernames: Iterable[str]) -> None:
        """Logins were made; a pooler may learn of them later."""
        for username in usernames:
            if self.restless and self.draw.random() < self.conditions.shut_out:
                self.tell(f"  the pooler does not know {username}")
                self.engine.shut_out.add(username)

    def earlier_roles(self, server: str) -> Mapping[str, FakeRole]:
        """The logins of a server as they were a few commits ago."""
        earlier = self._earlier[server]
        return self.draw.choice(earlier) if earlier else self.engine.servers[server].roles

    def is_planned(self, one: Credential) -> bool:
        """Whether it is on record, and nobody has made its login yet."""
        return one.stage is Stage.PENDING and any(
            row.credential_id == one.id and row.state is RotationState.PLANNED for row in self.rows.rotations.values()
        )

    def add_foreign(self, server: str, username: str) -> None:
        """A login that is none of ours."""
        self.engine.add_login(server, username, "a stranger's")
        self.foreign.add((server, username))
        self.dirty = True

    def on_its_way(self, what: str, effect: Callable[[], object]) -> None:
        """An act on a database was sent, and its sender is told nothing."""
        self.late_acts.append(Travelling(what, effect))

    def answer(self) -> Answer:
        """What the next push is answered."""
        if not self.restless:
            return conditions.TAKEN[0]
        return self.draw.choice(self.conditions.answers)

    def exists(self, resource: Resource) -> bool | None:
        """What Vercel says about the resource itself, which may be wrong once."""
        if not self.restless:
            return True
        chance = self.draw.random()
        exists = False if chance < self.conditions.gone else None if chance > 0.9 else True
        if exists is False:
            self.said_gone[resource.id].append(self.time.seconds)
        return exists

    def pushed(self, resource: Resource, secrets: Sequence[RenderedSecret], outcome: PushOutcome) -> None:
        """A push was answered; what it did may have been done already, or comes later, or twice."""
        self.dirty = True
        self.tell(f"  push {outcome.verdict} {outcome.status or ''} for {resource.name}")
        if self.processes.turn is not None:
            self.processes.turn.answered_at = self.time.seconds
        username = self.oracle.login({"DATABASE_URL": secrets[0].value.reveal()})[0]
        if not username.startswith(f"{resource.spec.database.login_prefix}_"):
            raise Violation("I11", f"{username} was pushed for {resource.name}")
        last = self.sink.pushes[-1] if self.sink.pushes else None
        if last is not None and id(last) not in self.sent_at:
            self.sent_at[id(last)] = self.time.seconds
            if last.answer.effect is Effect.NOW and outcome.status == 504 and self.draw.random() < 0.5:
                self.sink.in_flight.append(last)  # somebody on the way sends it once more
        self.oracle.held(resource)

    def forget_lost(self) -> None:
        """What has been on its way for too long arrives no more."""
        since = self.time.seconds - self.conditions.flight
        kept = [one for one in self.sink.in_flight if self.sent_at[id(one)] >= since]
        if len(kept) < len(self.sink.in_flight):
            self.sink.in_flight[:] = kept

    def deliver(self, push: Push) -> None:
        """A push arrives after all."""
        self.dirty = True
        self.tell(f"a late push arrives: {self.oracle.login(push.values)[0]}")
        self.sink.deliver([push])
        self.oracle.held(self.rows.resources[self.places[push.key][0]])

    def owe(self, rotation_id: str, at: datetime, *, pushes_again: bool) -> None:
        """Somebody was told that this rotation answers what he asked for."""
        self.owed.append(Owed(rotation_id, at, pushes_again))

    def name_of(self, clock: SimulatedClock) -> str:
        """Whose clock it is."""
        return next((one.name for one in (*self.workers, self.beat, self.desk) if one.clock is clock), "the store")

    def place_of(self, key: tuple[str, str]) -> tuple[str, str]:
        """Which resource, on which server, Vercel knows by this."""
        return self.places[key]

    def close(self) -> None:
        """Let go of what still runs, and of the store."""
        self.restless = False
        for process in list(self.processes.running):
            with suppress(GreenletExit):
                process.turn.throw(GreenletExit)
        self.backing.close()


def short(row_id: str) -> str:
    """An id as a story tells it."""
    return row_id[:4] + row_id[-5:] if row_id.startswith(("rot_", "cred_", "req_")) else row_id
