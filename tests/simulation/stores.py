"""The stores on which a world can live: in memory, which is quick, and on SQLite, which is real."""

from __future__ import annotations

import atexit
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import select

from rotation.store import rows, tables
from rotation.store.migration import migrate
from rotation.store.sql import SqlStore
from tests.fakes.store import FakeStore
from tests.simulation.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import RowMapping, Table

    from rotation.model import Attempt, Credential, Request, Resource, Rotation
    from rotation.ports import Terms
    from tests.simulation.clocks import SimulatedClock


class Rows(Protocol):
    """What is on record, by id."""

    @property
    def resources(self) -> Mapping[str, Resource]: ...
    @property
    def rotations(self) -> Mapping[str, Rotation]: ...
    @property
    def credentials(self) -> Mapping[str, Credential]: ...
    @property
    def requests(self) -> Mapping[str, Request]: ...
    @property
    def attempts(self) -> Mapping[str, Attempt]: ...


class SimulatedStore(Protocol):
    """A store, and a look at its rows. `refresh` is called when something was written."""

    store: Any
    rows: Rows

    def refresh(self) -> None: ...
    def requests_of(self, rotation_id: str) -> Sequence[Request]: ...
    def lines(self) -> Counter[tuple[str | None, str]]: ...
    def close(self) -> None: ...


class InMemory:
    """The fake, held by the store's contract. Its rows are looked at as they are."""

    def __init__(self, clock: SimulatedClock, terms: Terms) -> None:
        self.store = FakeStore(clock, terms)  # type: ignore[arg-type]  # the store only reads it
        self.rows: Rows = self.store

    def refresh(self) -> None:
        """There is nothing to read."""

    def requests_of(self, rotation_id: str) -> Sequence[Request]:
        return [one for one in self.store.requests.values() if one.rotation_id == rotation_id]

    def lines(self) -> Counter[tuple[str | None, str]]:
        return Counter((one.rotation_id, one.event.kind) for one in self.store.events)

    def close(self) -> None:
        """It is gone with the world."""


class SqlRows:
    """The rows of a real store, read again when something was written and somebody looks."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._read: dict[str, dict[str, Any]] = {}

    def forget(self) -> None:
        self._read.clear()

    @property
    def resources(self) -> Mapping[str, Resource]:
        return self._table("resources", tables.resources, lambda row: self._store.resource(row["id"]))

    @property
    def rotations(self) -> Mapping[str, Rotation]:
        return self._table("rotations", tables.rotations, rows.rotation_of)

    @property
    def credentials(self) -> Mapping[str, Credential]:
        return self._table("credentials", tables.credentials, rows.credential_of)

    @property
    def requests(self) -> Mapping[str, Request]:
        return self._table("requests", tables.requests, rows.request_of)

    @property
    def attempts(self) -> Mapping[str, Attempt]:
        return self._table("attempts", tables.attempts, rows.attempt_of)

    def _table(self, name: str, table: Table, value_of: Callable[[RowMapping], Any]) -> dict[str, Any]:
        if name not in self._read:
            with self._store.database.reading() as connection:
                found = connection.execute(select(table)).mappings().all()
            self._read[name] = {row["id"]: value_of(row) for row in found}
        return self._read[name]


class OnSqlite:
    """The real store on SQLite, in a file of its own: a copy of one that was migrated once a process."""

    def __init__(self, clock: SimulatedClock, terms: Terms) -> None:
        self._directory = TemporaryDirectory(prefix="simulated-store-")
        path = Path(self._directory.name) / "store.db"
        shutil.copy(_migrated(), path)
        self.store: Any = SqlStore(f"sqlite:///{path}", clock=clock, terms=terms, audit_key=b"of a simulated store")
        self._rows = SqlRows(self.store)
        self.rows: Rows = self._rows

    def refresh(self) -> None:
        """What was read before counts no more."""
        self._rows.forget()

    def requests_of(self, rotation_id: str) -> Sequence[Request]:
        return [one for one in self.rows.requests.values() if one.rotation_id == rotation_id]

    def lines(self) -> Counter[tuple[str | None, str]]:
        with self.store.database.reading() as connection:
            found = connection.execute(select(tables.events.c.rotation_id, tables.events.c.kind)).all()
        broken = list(self.store.verify_audit())
        if broken:
            raise Violation("I10", f"the trail does not hold: {broken}")
        return Counter((one.rotation_id, one.kind) for one in found)

    def close(self) -> None:
        """The file goes with the world."""
        self.store.dispose()
        self._directory.cleanup()


@cache
def _migrated() -> Path:
    """A migrated, empty store, made once and copied."""
    directory = TemporaryDirectory(prefix="simulated-template-")
    atexit.register(directory.cleanup)
    path = Path(directory.name) / "store.db"
    migrate(f"sqlite:///{path}")
    return path
