"""One run: a world, a scenario, a worker that meets with a fault, another one in its stead, rest, and the verdict."""

from __future__ import annotations

import random
import tempfile
import time
import traceback
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg
from psycopg import sql
from sqlalchemy import exists, func, make_url, or_, select

from rotation.states import ALIVE_STAGES, ResourceState, Stage
from rotation.store.migration import migrate
from rotation.store.rules import ENDED_STATES
from rotation.store.tables import credentials, resources, rotations
from tests.acceptance.conftest import CUSTOMERS
from tests.crash import journal
from tests.crash.boundaries import Fault, Kind
from tests.crash.rig import GRACE, CrashRig
from tests.crash.scenarios import SCENARIOS
from tests.crash.verdicts import assert_gone, assert_kept, assert_not_lost
from tests.rigs import prepared
from worker.machine import MachineEntropy
from worker.sandbox import fleet
from worker.sandbox.postgresql import PrivatePostgresql

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rotation.model import Resource
    from tests.crash.journal import Told
    from tests.crash.nursery import Nursery
    from tests.crash.scenarios import Scenario
    from tests.processes import Process
    from tests.rigs import CustomersServer
    from worker.sandbox.fleet import Tenant

CRASHING = "tests.crash.application"
"""The module that is the crashing worker."""
QUICK = {**CUSTOMERS, "autovacuum": "off"}
"""It is workers that die here, never a server: what these write need not be on the disk."""
TABLES = "tables"
"""The store that all stores on PostgreSQL are copies of."""
ENDS = (Stage.CURRENT, Stage.RETIRED, Stage.DISCARDED)
MOST_ALIVE = 3
"""I7: so many logins of a resource are alive at a time, where nothing older was promised a grace."""
RESUMED_SECONDS = 60.0
"""I4: everything has come to rest so long after the last fault."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a run is to be: its number, for its names and its draws; the scenario; the fault, or none to find out the boundaries."""

    number: int
    scenario: str
    fault: Fault | None = None
    sqlite: bool = False
    worker: str = CRASHING

    def __str__(self) -> str:
        return f"{self.scenario}: {self.fault or 'no fault'}" + (" (SQLite)" if self.sqlite else "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it. `story` is empty when every promise was kept."""

    order: Order
    told: Told
    seconds: float
    resumed: float = 0.0
    logins: int = 0
    story: str = ""


@dataclass(frozen=True, slots=True)
class Servers:
    """What all runs share."""

    customers: CustomersServer
    store: PrivatePostgresql
    bystanders: tuple[Tenant, ...]
    """Customers on the same server whose databases are there already; each run at a time has one of its own."""

    @classmethod
    @contextmanager
    def started(cls, lanes: int) -> Iterator[Self]:
        """Servers of our own, with all that can be made ready once."""
        with (
            tempfile.TemporaryDirectory(prefix="crash") as place,
            PrivatePostgresql(Path(place) / "customers", settings=QUICK) as customers,
            PrivatePostgresql(Path(place) / "store", settings=QUICK) as store,
        ):
            server = prepared("customers", customers, Path(place))
            (tenant,) = fleet.tenants(1, MachineEntropy())
            names = [f"bystander{number}" for number in range(lanes)]
            bystanders = tuple(replace(tenant, name=name, login=replace(tenant.login, username=f"{name}_app")) for name in names)
            fleet.add_tenants(customers, bystanders)
            with psycopg.connect(store.superuser_url(), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {TABLES}")
            migrate(make_url(store.superuser_url(TABLES)))
            yield cls(server, store, bystanders)

    @contextmanager
    def new_store(self, number: int) -> Iterator[str]:
        """The URL of a store on PostgreSQL, empty but for its tables."""
        name = f"store{number}"
        with psycopg.connect(self.store.superuser_url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {TABLES}")
            yield self.store.superuser_url(name)
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def forget(self, databases: Sequence[str]) -> None:
        """Customers' databases go: there will be hundreds."""
        with psycopg.connect(self.customers.postgresql.superuser_url(), autocommit=True) as connection:
            for database in databases:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))


def run(order: Order, servers: Servers, lane: int, nursery: Nursery) -> Verdict:
    """Let it happen. Everything but the servers is the run's own, and gone when it ends."""
    began = time.monotonic()
    with ExitStack() as world:
        directory = Path(world.enter_context(tempfile.TemporaryDirectory(prefix="crash")))
        store_url = None if order.sqlite else world.enter_context(servers.new_store(order.number))
        databases: list[str] = []
        world.callback(servers.forget, databases)
        rig = world.enter_context(CrashRig(directory, [servers.customers], store_url, nursery, order.number))
        try:
            (subject,) = rig.add(grace=GRACE)
            databases.append(subject.spec.database.name)
            (bystander,) = rig.register([servers.bystanders[lane]], servers.customers)
            told, resumed, logins = _watched(order, rig, subject, bystander)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's verdict
            story = "".join(traceback.format_exception(error)[-3:]) + rig.story() + "\n" + rig.last_words()
            return Verdict(order, journal.told(rig.journal), time.monotonic() - began, story=story)
        return Verdict(order, told, time.monotonic() - began, resumed, logins)


def _watched(order: Order, rig: CrashRig, subject: Resource, bystander: Resource) -> tuple[Told, float, int]:
    """The run itself. Gives what the worker told until the world had come to rest, how long that took after the fault, and how often the
    customer logged in. A fault that an idle worker met with when all was over has not happened.
    """
    scenario = SCENARIOS[order.scenario]
    before = rig.snapshot(bystander)
    accepted = scenario.begin(rig, subject)
    chance = random.Random(str(order)).random()  # noqa: S311 - the same each time
    alive = [0]

    def is_at_rest() -> bool:
        alive.append(_alive(rig, subject.id))
        return _is_at_rest(rig, subject.id, scenario)

    with scenario.witness(rig.vercel, {subject.spec.external_id: scenario.grace}) as witness:
        worker = rig.start_crashing_worker(order.worker, order.fault, chance)
        rig.start_beat()
        if order.fault is not None:
            rig.wait("the fault happens, or all is over", lambda: journal.told(rig.journal).fired or is_at_rest())
        happened = time.monotonic()
        if order.fault is not None and order.fault.kind is Kind.KILL and journal.told(rig.journal).fired:
            _replace(worker, rig)
        rig.wait("everything has come to rest", is_at_rest, RESUMED_SECONDS)
        rested, told = time.monotonic(), journal.told(rig.journal)
        rig.wait("the customer has logged in", lambda: witness.accepted)
    if scenario.leaves:
        rig.resources.remove(subject)
        assert_gone(rig, subject)
    elif (order.fault is None or order.fault.kind is Kind.KILL) and not scenario.fails:
        assert_not_lost(rig, subject)
    assert_kept(rig, witness, subject, accepted)
    assert max(alive) <= MOST_ALIVE, f"I7: {max(alive)} logins were alive at a time"
    assert rig.snapshot(bystander) == before, "I11: something of another resource was touched"
    return told, rested - happened, witness.accepted


def _replace(worker: Process, rig: CrashRig) -> None:
    """The worker is dead, and a supervisor starts another one, which meets with nothing."""
    worker.ended(within=10)
    rig.start_worker("real")


def _alive(rig: CrashRig, resource_id: str) -> int:
    """How many logins of the resource may be there now."""
    mine = (credentials.c.resource_id == resource_id) & credentials.c.stage.in_(ALIVE_STAGES)
    with rig.store.database.reading() as connection:
        return connection.scalar(select(func.count()).select_from(credentials).where(mine)) or 0


def _is_at_rest(rig: CrashRig, resource_id: str, scenario: Scenario) -> bool:
    """Whether something was rotated or given up by now, or all is gone, and nothing is under way. A cheap question: it is asked often."""
    mine = rotations.c.resource_id == resource_id
    its = credentials.c.resource_id == resource_id
    gone = exists().where(resources.c.id == resource_id, resources.c.state == ResourceState.GONE)
    moving = or_(
        exists().where(mine, rotations.c.state.not_in(ENDED_STATES)),
        exists().where(its, or_(credentials.c.stage.not_in(ENDS), credentials.c.astray_at.is_not(None))),
    )
    with rig.store.database.reading() as connection:
        return bool(connection.scalar(select((gone if scenario.leaves else exists().where(mine)) & ~moving)))
