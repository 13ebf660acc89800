"""The worlds in which the contract of engines is held: one in memory, and a real PostgreSQL of each version at hand."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from rotation.cases import Deadline
from rotation.model import Database, Resource, ResourceSpec, Server
from rotation.states import ResourceState
from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine
from tests.fakes.entropy import FakeEntropy
from tests.fakes.sealer import FakeSealer
from tests.postgresql_tenants import TEMPLATE, SystemEntropy, as_login, as_superuser, engine_for, logs_in, new_tenant, within

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from rotation.model import Login
    from rotation.ports import Engine, Entropy
    from worker.sandbox.postgresql import PrivatePostgresql

TENANTS: WeakKeyDictionary[PrivatePostgresql, Resource] = WeakKeyDictionary()


class World(Protocol):
    """An engine with a database behind it that a test may look at and touch by itself."""

    @property
    def engine(self) -> Engine: ...
    @property
    def entropy(self) -> Entropy: ...
    def new_resource(self) -> Resource: ...
    def add_login(self, resource: Resource, login: Login) -> None: ...
    def logs_in(self, resource: Resource, login: Login) -> bool: ...
    def session(self, resource: Resource, login: Login) -> AbstractContextManager[None]: ...
    def deadline(self) -> Deadline: ...
    def late(self) -> Deadline: ...


class FakeWorld:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.entropy = FakeEntropy()
        self.engine = FakeEngine(FakeSealer(), self.clock)
        self._count = 0

    def new_resource(self) -> Resource:
        self._count += 1
        name = f"tenant{self._count}"
        database = Database("pg", name, f"{name}_owner", name)
        spec = ResourceSpec("icfg_1", name, "postgres", "postgresql", owns_all_secrets=True, database=database, secrets=(TEMPLATE,))
        return Resource(name, ResourceState.ACTIVE, 1, spec, Server("pg", "postgresql", "db.example.com", 5432))

    def add_login(self, resource: Resource, login: Login) -> None:
        self.engine.add_login("pg", login.username, login.password.reveal())

    def logs_in(self, resource: Resource, login: Login) -> bool:
        return self.engine.logs_in(login.username, login.password.reveal())

    @contextmanager
    def session(self, resource: Resource, login: Login) -> Iterator[None]:
        self.engine.open_session("pg", login.username, client="127.0.0.1")
        yield
        self.engine.close_sessions("pg", login.username)

    def deadline(self) -> Deadline:
        return Deadline(self.clock.monotonic() + 20)

    def late(self) -> Deadline:
        deadline = self.deadline()
        self.clock.advance(timedelta(seconds=21))
        return deadline


class RealWorld:
    def __init__(self, server: PrivatePostgresql) -> None:
        self.server = server
        self.entropy = SystemEntropy()
        self.engine = engine_for(server)

    def new_resource(self) -> Resource:
        """One database for all tests of a server: each makes logins of its own in it."""
        return TENANTS.get(self.server) or TENANTS.setdefault(self.server, new_tenant(self.server))

    def add_login(self, resource: Resource, login: Login) -> None:
        as_superuser(
            self.server,
            f'DROP ROLE IF EXISTS "{login.username}"',
            f"CREATE ROLE \"{login.username}\" LOGIN PASSWORD '{login.password.reveal()}'",
            f'GRANT "{login.username}" TO rollover_admin WITH ADMIN OPTION',
        )

    def logs_in(self, resource: Resource, login: Login) -> bool:
        return logs_in(self.server, resource.spec.database.name, login.username, login.password.reveal())

    @contextmanager
    def session(self, resource: Resource, login: Login) -> Iterator[None]:
        with as_login(self.server, resource.spec.database.name, login):
            yield

    def deadline(self) -> Deadline:
        return within()

    def late(self) -> Deadline:
        return Deadline(time.monotonic() - 0.001)
