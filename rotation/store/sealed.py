"""Everything that is sealed in a store: how much each key still seals, wrapping it under the newest keys, and finding what is lost.

Rewrapping changes how a value is sealed and nothing else, so it takes no claim, no fence and no line of a resource's trail. A worker
that holds the bytes of before opens them as long as the older key is in its ring, and may write them back: then the row counts for the
older key again, and the next run takes it. Each batch is one short transaction that waits for no row, each value is compared with what
was read, and what is done is found in the rows themselves: killed at any time, the next run goes on from there.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import LargeBinary, bindparam, func, or_, select, text, update

from rotation.errors import KeyMissing, NotFound, Refused
from rotation.store.sealing import KEY_PLACE, key_name, named_key
from rotation.store.tables import ALIVE, credentials, installations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Column, ColumnElement, Select, Table

    from rotation.store.database import Database
    from rotation.store.sealing import KeyringSealer

BATCH = 200
PAGE = 500
DAMAGED = "unknown"
"""What is counted for a value that no key of ours can have sealed."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """One column that holds sealed values."""

    what: str
    table: Table
    column: Column[bytes]


COLUMNS = (
    Sealed("passwords", credentials, credentials.c.sealed_password),
    Sealed("verifiers", credentials, credentials.c.sealed_verifier),
    Sealed("tokens", installations, installations.c.sealed_token),
)


@dataclass(frozen=True, slots=True)
class Batch:
    """What came of some rows: wrapped anew, held because their key is not here, or not openable at all."""

    what: str
    rewrapped: int
    held: int
    damaged: tuple[str, ...]


class SealedRows:
    """The sealed values of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """How many values each key seals, by key and by what they are. It reads every sealed value's first bytes."""
        found: dict[str, Counter[str]] = {}
        with self._database.reading() as connection:
            for one in COLUMNS:
                name = _name(one.column)
                grouped = select(name, func.count()).where(one.column.is_not(None)).group_by(name)
                for key, count in connection.execute(grouped):
                    found.setdefault(named_key(key) or DAMAGED, Counter())[one.what] += count
        return found

    def rewrap(self, sealer: KeyringSealer) -> Iterator[Batch]:
        """Wrap everything under the newest keys, a batch at a time. Rows that somebody is just writing are left for the next run."""
        newest = [name for name in map(key_name, sealer.newest) if name is not None]
        for one in COLUMNS:
            after = ""
            while True:
                last, batch = self._rewrap_batch(one, sealer, newest, after)
                if last is None:
                    break
                yield batch
                after = last

    def _rewrap_batch(self, one: Sealed, sealer: KeyringSealer, newest: list[bytes], after: str) -> tuple[str | None, Batch]:
        key = one.table.c.id
        older = (
            select(key, one.column)
            .where(key > after, one.column.is_not(None), _name(one.column).not_in(newest))
            .order_by(key)
            .limit(BATCH)
            .with_for_update(skip_locked=True, key_share=True)
        )
        change = (
            update(one.table)
            .where(key == bindparam("row_id"), one.column == bindparam("before", type_=LargeBinary()))
            .values({one.column: bindparam("after", type_=LargeBinary())})
        )
        changes, held, damaged = [], 0, []
        with self._database.writing() as connection:
            rows = connection.execute(older).all()
            for row_id, before in rows:
                try:
                    wrapped = sealer.rewrap(before)
                except KeyMissing:
                    held += 1
                except Refused:
                    damaged.append(row_id)
                else:
                    changes.append({"row_id": row_id, "before": before, "after": wrapped or before})
            rewrapped = sum(connection.execute(change, parameters).rowcount for parameters in changes)
        return (rows[-1][0] if rows else None), Batch(one.what, rewrapped, held, tuple(damaged))

    def resources_of(self, key_id: str) -> Iterator[str]:
        """The resources of which the key seals the password or the verifier of a login, page by page. Raises `NotFound`."""
        place = or_(*(self._by(one, key_id) for one in COLUMNS if one.table is credentials))
        yield from self._pages(select(credentials.c.resource_id).distinct().where(text(ALIVE), place), credentials.c.resource_id)

    def installations_of(self, key_id: str) -> Iterator[str]:
        """The installations whose token the key seals, page by page."""
        place = or_(*(self._by(one, key_id) for one in COLUMNS if one.table is installations))
        yield from self._pages(select(installations.c.id).where(place), installations.c.id)

    @staticmethod
    def _by(one: Sealed, key_id: str) -> ColumnElement[bool]:
        name = key_name(key_id)
        if name is None:
            raise NotFound("sealing key", key_id)
        return _name(one.column) == name

    def _pages(self, found: Select[Any], key: Column[str]) -> Iterator[str]:
        after = ""
        while True:
            with self._database.reading() as connection:
                ids = connection.scalars(found.where(key > after).order_by(key).limit(PAGE)).all()
            if not ids:
                return
            yield from ids
            after = ids[-1]


def _name(column: Column[bytes]) -> ColumnElement[bytes]:
    return func.substr(column, *KEY_PLACE, type_=LargeBinary())
