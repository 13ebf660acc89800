"""The store on real databases, for tests: a clean one each, and a way to let time pass on a server whose clock nobody can set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Interval, create_engine, insert, literal, text, update
from sqlalchemy.engine import make_url

from rotation.ports import Terms
from rotation.store.audit import NOTHING
from rotation.store.migration import migrate
from rotation.store.rules import INSTALLATIONS
from rotation.store.sql import SqlStore
from rotation.store.tables import UtcTime, chains, metadata
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta
    from pathlib import Path

    from sqlalchemy import URL

    from rotation.model import Attempt, Credential, Rotation
    from worker.sandbox.postgresql import PrivatePostgresql

AUDIT_KEY = b"audit key of the tests"
TRAIL = {"events", "checkpoints"}


def sqlite_url(directory: Path) -> str:
    return f"sqlite:///{directory / 'store.db'}"


def new_database(server: PrivatePostgresql, name: str) -> URL:
    """An empty database on the test server."""
    url = make_url(server.superuser_url()).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url.set(database=name)


@pytest.fixture(scope="session")
def postgresql_store_url(postgresql: PrivatePostgresql) -> URL:
    """A migrated database of our own on the test server."""
    url = new_database(postgresql, "rollover_store")
    migrate(url)
    return url


@dataclass(frozen=True, slots=True)
class SqlBench:
    """A store on a real database with the means to let time pass."""

    store: SqlStore
    clock: FakeClock

    def advance(self, by: timedelta) -> None:
        self.clock.advance(by)
        if self.store.database.dialect != "sqlite":
            self._age(by)

    def jump(self, by: timedelta) -> None:
        """Somebody sets the clock."""
        self.clock.jump(by)
        if self.store.database.dialect != "sqlite":
            self._age(by)

    def rotation(self, rotation_id: str) -> Rotation:
        return self.store.views.rotation(rotation_id).rotation

    def credential(self, credential_id: str) -> Credential:
        return self.store.views.credential(credential_id)

    def kinds(self, chain: str) -> list[str]:
        return [one.event.kind for one in reversed(self.store.views.events(chain))]

    def about(self, chain: str) -> list[tuple[str | None, str | None]]:
        return [(one.rotation_id, one.credential_id) for one in reversed(self.store.views.events(chain))]

    def attempts(self, rotation_id: str) -> tuple[Attempt, ...]:
        return self.store.views.rotation(rotation_id).attempts

    def alarms(self) -> Mapping[str, int]:
        return self.store.views.status().alarms

    def sightings(self, resource_id: str) -> dict[tuple[str, str, str], int]:
        lines = self.store.views.credentials(resource_id)
        return {(line.credential.id, one.client, one.application): one.sessions for line in lines for one in line.sightings}

    def _age(self, by: timedelta) -> None:
        """Nobody can set the server's clock: make every time in the store older instead."""
        with self.store.database.writing() as connection:
            for table in metadata.sorted_tables:
                times = [column for column in table.c if isinstance(column.type, UtcTime)]
                if times and table.name not in TRAIL:
                    connection.execute(update(table).values({column: column - literal(by, Interval()) for column in times}))


@pytest.fixture
def sqlite_bench(tmp_path: Path) -> Iterator[SqlBench]:
    url = sqlite_url(tmp_path)
    migrate(url)
    clock = FakeClock()
    store = SqlStore(url, clock=clock, terms=Terms(), audit_key=AUDIT_KEY)
    yield SqlBench(store, clock)
    store.dispose()


@pytest.fixture
def postgresql_bench(postgresql_store_url: URL) -> Iterator[SqlBench]:
    clock = FakeClock()
    store = SqlStore(postgresql_store_url, clock=clock, terms=Terms(), audit_key=AUDIT_KEY)
    empty(store)
    yield SqlBench(store, clock)
    store.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def sql_bench(request: pytest.FixtureRequest) -> SqlBench:
    """One test on both databases."""
    bench: SqlBench = request.getfixturevalue(f"{request.param}_bench")
    return bench


def empty(store: SqlStore) -> None:
    """As freshly migrated."""
    with store.database.writing() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)}"))
        row = {"id": INSTALLATIONS, "length": 0, "head": NOTHING, "sealed_length": 0, "sealed_head": NOTHING}
        connection.execute(insert(chains), row)
