"""A whole Rollover in real processes, for tests: workers and beats on a broker, a store, a local Vercel and customers' databases.

Everything is quick: claims, deadlines and graces of a few seconds. What a rig started ends with it, the last one first.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import sys
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx
import psycopg
import redis

from rotation import requests
from rotation.errors import Unavailable
from rotation.model import Event, Installation, SealContext
from rotation.sensitive import Sensitive
from rotation.states import AttemptState, PushBy, RotationState, Stage, Trigger
from rotation.store.keyring import create_key_file
from rotation.store.migration import migrate
from rotation.store.sql import SqlStore
from tests.processes import Process, eventually
from tests.witnesses import Witness
from worker.machine import MachineEntropy
from worker.sandbox import fleet
from worker.sandbox.broker import PrivateBroker
from worker.sandbox.vercel import SandboxVercel
from worker.sandbox.vercel_client import SandboxVercelClient
from worker.settings import load
from worker.variables import PREFIX
from worker.wiring import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from rotation.model import Attempt, Credential, Resource, Rotation, Server
    from rotation.ports import Entropy
    from worker.sandbox.postgresql import PrivatePostgresql
    from worker.sandbox.vercel_world import World
    from worker.settings import Settings

ROOT = Path(__file__).parents[1]
ACTOR = "acceptance"
TOKEN = Sensitive("tok_acceptance")
PATIENCE = 60.0
FREE_SECONDS = 0.3
"""Within this a store on SQLite is free for a moment, unless somebody stands still in the middle of a write."""
"""Seconds for what takes a few on a machine that has nothing else to do."""

QUICK = {
    "TICK_SECONDS": "0.5",
    "CLAIM_SECONDS": "3",
    "CALL_DEADLINE_SECONDS": "1.5",
    "SERVER_ALLOWANCE_SECONDS": "2",
    "HINT_SECONDS": "2",
    "LOOK_SECONDS": "1",
    "LOGIN_CHECK_SECONDS": "2",
    "VISIBILITY_TIMEOUT_SECONDS": "10",
    "USAGE_SAMPLE_SECONDS": "1",
    "VERCEL_RATE_PER_MINUTE": "100000",
    "WORKER_THREADS": "4",
    "ALLOW_PRIVATE_HOSTS": "true",
    "LOG_FORMAT": "json",
}
CLAIM_SECONDS = float(QUICK["CLAIM_SECONDS"])
GRACE = timedelta(seconds=3)
BLOCKED = timedelta(seconds=0.5)

VERCEL_PROGRAM = """
import sys
from worker.sandbox.vercel import serve
serve(lambda vercel: print(vercel.url, flush=True), admin_token=sys.argv[1], per_minute=None)
"""


@dataclass(frozen=True, slots=True)
class CustomersServer:
    """A database server with customers' databases, and the login that we manage it with."""

    name: str
    postgresql: PrivatePostgresql
    admin_url_file: Path


def prepared(name: str, postgresql: PrivatePostgresql, directory: Path, entropy: Entropy | None = None) -> CustomersServer:
    """A running server, made ready once."""
    admin_url_file = directory / f"{name}.url"
    fleet.make_admin(postgresql, entropy or MachineEntropy(), admin_url_file)
    return CustomersServer(name, postgresql, admin_url_file)


class Rig:
    """The parts, all running but for workers and beats. `store_url` None: SQLite. `apart`: the local Vercel is a process, to be frozen."""

    numbers = itertools.count(1)
    """For the names of tenants, which all rigs of a process have on the same servers."""
    look = 0.05
    """Seconds between two looks at what is waited for."""
    token = TOKEN
    entropy: Entropy = MachineEntropy()
    """Of the logins that customers had before."""
    program = "worker"
    """The module that workers and beats run."""

    def __init__(self, directory: Path, customers: Sequence[CustomersServer], store_url: str | None = None, *, apart: bool = False) -> None:
        self.directory = directory
        self.customers = customers
        self._running = ExitStack()
        self._store_url = store_url
        self._apart = apart
        self.processes: list[Process] = []
        self.resources: list[Resource] = []
        self.vercel: World | SandboxVercelClient
        self.vercel_process: Process | None = None

    def __enter__(self) -> Self:
        with self._running:
            self._start()
            self._running = self._running.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for process in reversed(self.processes):  # all at once, as each takes a while
            process.ask_to_end()
        self._running.close()

    def _start(self) -> None:
        data = self.directory / "data"
        data.mkdir(mode=0o700)
        self._make_keys(data / "rollover.keys")
        self.broker = self._running.enter_context(self._new_broker())
        self.vercel_url = self._start_vercel()
        self.environment = self._environment(data)
        settings = load(self.environment)
        self._make_tables(settings)
        self.ports = wire(settings)
        store = self.ports.store
        assert isinstance(store, SqlStore)
        self.store = store
        self._running.callback(store.dispose)
        self.vercel.add_installation(fleet.INSTALLATION, self.token.reveal())
        sealed = self.ports.sealer.seal(self.token, SealContext(fleet.INSTALLATION, "", "", "token"))
        store.add_installation(Installation(fleet.INSTALLATION, sealed), Event("installation_added", ACTOR))
        for one in self.customers:
            store.add_server(self._server(one), Event("server_added", ACTOR))

    def _server(self, one: CustomersServer) -> Server:
        return replace(fleet.server(one.postgresql, one.admin_url_file), name=one.name)

    def _make_tables(self, settings: Settings) -> None:
        migrate(settings.store)

    def _make_keys(self, path: Path) -> None:
        create_key_file(path)

    def _new_broker(self) -> PrivateBroker:
        return PrivateBroker(self.directory / "broker")

    def _start_vercel(self) -> str:
        if not self._apart:
            sandbox = self._running.enter_context(SandboxVercel(per_minute=None))
            self.vercel = sandbox.world
            return sandbox.url
        token = "admin of the local Vercel"
        command = [sys.executable, "-P", "-c", VERCEL_PROGRAM, token]
        process = Process("vercel", command, {**_foreign(), "PYTHONPATH": str(ROOT)}, self.directory / "vercel.log")
        self._running.callback(process.end)
        self.vercel_process = process
        assert eventually(lambda: process.log.read_text().endswith("\n"), PATIENCE), process.last_words()
        url = process.log.read_text().strip()
        self.vercel = self._running.enter_context(SandboxVercelClient(url, token))
        return url

    def _environment(self, data: Path) -> dict[str, str]:
        ours = {
            **QUICK,
            "DATA_DIR": str(data),
            "KEYS_FILE": str(data / "rollover.keys"),
            "BROKER_URL": self.broker.url.reveal(),
            "VERCEL_API_URL": self.vercel_url,
            **({} if self._store_url is None else {"STORE_URL": self._store_url}),
        }
        return {**_foreign(), **{PREFIX + name: value for name, value in ours.items()}, "PYTHONPATH": str(ROOT)}

    # Processes

    def start_worker(self, name: str, *options: str) -> Process:
        """A real worker, begun but perhaps not ready."""
        return self._start_process(name, ["worker", "--name", name, *options])

    def start_beat(self, name: str = "beat") -> Process:
        return self._start_process(name, ["beat"])

    def start_web(self) -> Process:
        """What answers Vercel's calls, begun but perhaps not ready."""
        return self._start_process("web", ["web"])

    def start_again(self, process: Process) -> Process:
        """Another one in its stead, as a supervisor does it; the old one's log is kept."""
        return self._start_process(process.name, process.command[4:])

    def _start_process(self, name: str, arguments: Sequence[str]) -> Process:
        command = [sys.executable, "-P", "-m", self.program, *arguments]
        process = Process(name, command, self.environment, self.directory / f"{name}-{len(self.processes)}.log")
        self._running.callback(process.end)
        self.processes.append(process)
        return process

    def start(self, workers: int = 2, beats: int = 1, *options: str) -> list[Process]:
        """Workers that are ready, and beats."""
        started = [self.start_worker(f"worker{number}", *options) for number in range(workers)]
        for number in range(beats):
            self.start_beat(f"beat{number}")
        for one in started:
            self.wait(f"{one.name} is ready", lambda one=one: is_ready(one))  # type: ignore[misc]  # mypy cannot type a default of a lambda
        return started

    def holder(self, rotation_id: str) -> Process:
        """The worker that recorded the latest step of a rotation. It tells of a step right after it is on record."""
        self.wait(f"a worker tells of {rotation_id}", lambda: self._steps_of(rotation_id))
        return self.processes[max(self._steps_of(rotation_id))[1]]

    def freeze(self, worker: Process) -> None:
        """Let it stand still, but not in the middle of a write: it would lock a store on SQLite for all others as long as that lasts."""

        def stands_still_outside_of_a_write() -> bool:
            worker.freeze()
            if eventually(self._may_write, FREE_SECONDS):
                return True
            worker.thaw()
            return False

        self.wait("a worker stands still outside of a write", stands_still_outside_of_a_write)

    def _may_write(self) -> bool:
        if self._store_url is not None:
            return True
        with closing(sqlite3.connect(Path(self.environment[f"{PREFIX}DATA_DIR"]) / "rollover.db", timeout=0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
        return True

    def _steps_of(self, rotation_id: str) -> list[tuple[object, int]]:
        return [
            (line["timestamp"], number)
            for number, process in enumerate(self.processes)
            for line in process.lines()
            if line.get("rotation") == rotation_id and str(line["event"]).startswith("rotation_")
        ]

    def forget_hints(self) -> None:
        """Wipe the broker."""
        with redis.Redis.from_url(self.broker.url.reveal(), socket_timeout=5) as client:
            client.flushall()

    # What an operator does

    def add(
        self,
        count: int = 1,
        *,
        every: timedelta | None = None,
        grace: timedelta = GRACE,
        push_by: PushBy = PushBy.RESOURCE,
        on: CustomersServer | None = None,
    ) -> list[Resource]:
        """Register so many new customers, whose databases are in use already."""
        server = on or self.customers[0]
        tenants = [replace(one, name=f"{one.name}{next(self.numbers)}", push_by=push_by) for one in fleet.tenants(count, self.entropy)]
        tenants = [replace(one, login=replace(one.login, username=f"{one.name}_app")) for one in tenants]
        fleet.add_tenants(server.postgresql, tenants)
        return self.register(tenants, server, every=every, grace=grace)

    def register(
        self, tenants: Sequence[fleet.Tenant], server: CustomersServer, *, every: timedelta | None = None, grace: timedelta = GRACE
    ) -> list[Resource]:
        """Register customers whose databases are there."""
        added = []
        for tenant in tenants:
            self._provision(tenant, server)
            spec = fleet.spec(tenant, every=every or timedelta(0), grace=grace)
            spec = replace(
                spec,
                database=replace(spec.database, server=server.name),
                policy=replace(spec.policy, every=every, blocked=BLOCKED),
            )
            added.append(requests.register(spec, tenant.login, ACTOR, self.ports))
        self.resources += added
        return added

    def _provision(self, tenant: fleet.Tenant, server: CustomersServer) -> None:
        """What the provider did when the customer came: Vercel holds the login."""
        self.vercel.add_resource(fleet.INSTALLATION, tenant.external_id, fleet.PRODUCT, tenant.name)
        postgresql = server.postgresql
        login = f"{tenant.login.username}:{tenant.login.password.reveal()}"
        values = {"DATABASE_URL": f"postgresql://{login}@{postgresql.host}:{postgresql.port}/{tenant.name}"}
        body = {"secrets": [{"name": name, "value": value} for name, value in values.items()]}
        url = f"{self.vercel_url}/v1/installations/{fleet.INSTALLATION}/resources/{tenant.external_id}/secrets"
        headers = {"Authorization": f"Bearer {self.token.reveal()}"}
        put = httpx.put(url, json=body, headers=headers, trust_env=False, verify=False)  # noqa: S501 - plain HTTP; to make a TLS context takes long
        assert put.status_code == httpx.codes.CREATED

    def trigger(self, resource: Resource, trigger: Trigger = Trigger.MANUAL, grace: timedelta | None = None) -> str:
        """Ask for a rotation, without telling any worker. Gives its id."""
        received = requests.trigger(resource.id, requests.Asked(trigger, ACTOR, "a test wants it", grace=grace), self.ports)
        assert received.rotation_id is not None
        return received.rotation_id

    def unschedule(self) -> None:
        """From now on there are rotations on demand only; what is under way goes on."""
        for resource in self.resources:
            policy = replace(resource.spec.policy, every=None)
            requests.revise(resource, replace(resource.spec, policy=policy), ACTOR, self.ports)

    # What is

    def rotation(self, rotation_id: str) -> Rotation:
        return self.store.views.rotation(rotation_id).rotation

    def rotations(self, resource: Resource) -> list[Rotation]:
        """All of a resource, the oldest first."""
        return [line.rotation for line in reversed(self.store.views.rotations(resource.id, limit=1_000))]

    def attempts(self, rotation_id: str) -> tuple[Attempt, ...]:
        return self.store.views.rotation(rotation_id).attempts

    def credentials(self, resource: Resource) -> list[Credential]:
        """All generations of a resource, the oldest first."""
        return [line.credential for line in reversed(self.store.views.credentials(resource.id))]

    def staged(self, resource: Resource, stage: Stage) -> list[Credential]:
        return [one for one in self.credentials(resource) if one.stage is stage]

    def server_of(self, resource: Resource) -> PrivatePostgresql:
        return next(one.postgresql for one in self.customers if one.name == resource.server.name)

    def held(self, resource: Resource) -> str:
        """What Vercel holds for it."""
        return self.vercel.held(fleet.INSTALLATION, resource.spec.external_id)["DATABASE_URL"]

    def snapshot(self, resource: Resource) -> tuple[object, ...]:
        """All that a worker could have changed: rows, events, logins."""
        rotations = self.rotations(resource)
        return (
            rotations,
            [self.attempts(one.id) for one in rotations],
            [replace(one, last_seen_at=None, tried_at=None) for one in self.credentials(resource)],
            self.store.views.events(resource.id, limit=10_000),
            roles(self.server_of(resource), resource),
            self.held(resource),
        )

    @contextmanager
    def witness(self, *, promised: timedelta | None = None) -> Iterator[Witness]:
        """Customers of every resource at work, who count on their grace period, or on what is promised instead."""
        promises = {one.spec.external_id: one.spec.policy.grace if promised is None else promised for one in self.resources}
        with Witness(self.vercel, promises) as witness:
            yield witness

    # Waiting

    def wait(self, what: str, holds: Callable[[], object], within: float = PATIENCE) -> None:
        """Look until it holds; an assertion that fails tells what the processes said last."""

        def holds_by_now() -> object:
            try:
                return holds()
            except Unavailable:  # the store's server was restarted under our connections
                return False

        assert eventually(holds_by_now, within, self.look), f"not within {within:g} s: {what}\n{self.story()}\n{self.last_words()}"

    def wait_for(self, rotation_id: str, *states: RotationState, within: float = PATIENCE) -> None:
        self.wait(f"{rotation_id} is {' or '.join(states)}", lambda: self.rotation(rotation_id).state in states, within)

    def wait_until_pushing(self, rotation_id: str) -> None:
        """Until the intent to push is on record, and no answer."""
        self.wait(f"{rotation_id} is pushed", lambda: any(one.state is AttemptState.OPEN for one in self.attempts(rotation_id)))

    def wait_until_settled(self, within: float = PATIENCE) -> None:
        """Until no rotation is under way, and the current login is the only one left of each resource."""
        self.wait("everything has settled", self._is_settled, within)

    def _is_settled(self) -> bool:
        if self.store.views.rotations(under_way=True):
            return False
        ended = (Stage.CURRENT, Stage.RETIRED, Stage.DISCARDED)
        return all(one.stage in ended for resource in self.resources for one in self.credentials(resource))

    def last_words(self) -> str:
        return "\n".join(process.last_words() for process in self.processes)

    def story(self) -> str:
        """Where every rotation and every credential stands, for a person who looks for a fault."""
        lines = []
        for resource in self.resources:
            lines += [f"{resource.name}: {one.id} {one.state} tries={one.tries} {one.problem}" for one in self.rotations(resource)]
            lines += [f"{resource.name}: {one.username} {one.stage} {one.problem}" for one in self.credentials(resource)]
        return "\n".join(lines)


@contextmanager
def logins_locked(server: PrivatePostgresql) -> Iterator[None]:
    """Nobody can make, change or remove a login meanwhile; logging in goes on."""
    with psycopg.connect(server.superuser_url()) as connection:
        connection.execute("LOCK TABLE pg_catalog.pg_authid IN SHARE MODE")
        try:
            yield
        finally:
            connection.rollback()


def waits_for_lock(server: PrivatePostgresql) -> bool:
    """Whether a login is about to be made, and cannot be."""
    with psycopg.connect(server.superuser_url()) as connection:
        waiting = connection.execute("SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchall()
    return any("CREATE ROLE" in query for (query,) in waiting)


def is_ready(worker: Process) -> bool:
    """Whether a worker takes tasks."""
    return any(str(line["event"]).endswith(" ready.") for line in worker.lines())


def roles(server: PrivatePostgresql, resource: Resource) -> dict[str, bool]:
    """Every login of a resource that its server knows, and whether it may log in."""
    database = resource.spec.database
    with psycopg.connect(server.superuser_url()) as connection:
        found = connection.execute(
            "SELECT rolname::text, rolcanlogin FROM pg_roles WHERE starts_with(rolname, %s) AND rolname <> %s",
            (f"{database.login_prefix}_", database.owner_role),
        )
        return dict(found.fetchall())


def _foreign() -> dict[str, str]:
    """The caller's environment without settings of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
