"""Rows as one JSON document: everything about a case in one statement and one answer, on both databases; values as text.

A rotation reads its case after every step. As rows of five queries that was more than half of all that the store cost.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, LargeBinary

from rotation.store.tables import MICROSECOND, Duration, UtcTime, metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Table
    from sqlalchemy.types import TypeEngine

    Decode = Callable[[Any], Any]
    Document = dict[str, Any]

DIALECTS = ("postgresql", "sqlite")


def row(dialect: str, table: Table, alias: str) -> str:
    """A row of the statement itself."""
    if dialect == "postgresql":
        return f"row_to_json({alias})"
    parts = (
        f"'{column.name}', CASE WHEN {cell} IS NOT NULL THEN hex({cell}) END"
        if isinstance(column.type, LargeBinary)
        else f"'{column.name}', {cell}"
        for column in table.c
        for cell in [f'{alias}."{column.name}"']
    )
    return f"json_object({', '.join(parts)})"


def one(dialect: str, table: Table, alias: str, where: str) -> str:
    """A subquery for one row, or null."""
    found = f"(SELECT {row(dialect, table, alias)} FROM {table.name} AS {alias} WHERE {where})"  # noqa: S608 - all constants
    return found if dialect == "postgresql" else f"json({found})"


def many(dialect: str, table: Table, alias: str, where: str) -> str:
    """A subquery for a list of rows, in no order."""
    gather = "json_agg" if dialect == "postgresql" else "json_group_array"
    found = f"(SELECT {gather}({row(dialect, table, alias)}) FROM {table.name} AS {alias} WHERE {where})"  # noqa: S608 - all constants
    return found if dialect == "postgresql" else f"json({found})"


def document(dialect: str, **parts: str) -> str:
    """All parts as one JSON text."""
    build, as_text = ("json_build_object", "::text") if dialect == "postgresql" else ("json_object", "")
    named = ", ".join(f"'{name}', {part}" for name, part in parts.items())
    return f"{build}({named}){as_text}"


def time_of(stored: str) -> datetime:
    """PostgreSQL writes the zone, SQLite none."""
    at = datetime.fromisoformat(stored)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _bytes(stored: str) -> bytes:
    return bytes.fromhex(stored.removeprefix("\\x"))


def _duration(stored: int) -> timedelta:
    return stored * MICROSECOND


def _decoders(table: Table) -> tuple[tuple[str, Decode], ...]:
    kinds: tuple[tuple[type[TypeEngine[Any]], Decode], ...] = (
        (UtcTime, time_of),
        (LargeBinary, _bytes),
        (Duration, _duration),
        (Boolean, bool),
    )
    return tuple((column.name, decode) for column in table.c for kind, decode in kinds if isinstance(column.type, kind))


DECODERS: Mapping[str, tuple[tuple[str, Decode], ...]] = {table.name: _decoders(table) for table in metadata.sorted_tables}


def decoded(table: Table, stored: Document) -> Document:
    """The row with its times, durations, bytes and truths as the columns have them."""
    for name, decode in DECODERS[table.name]:
        value = stored[name]
        if value is not None:
            stored[name] = decode(value)
    return stored


def text_of(value: object) -> str | None:
    """A value as PostgreSQL reads it from text, for a parameter that says of which type it is."""
    match value:
        case None:
            return None
        case str() | bool() | int() | float():
            return str(value)
        case datetime():
            return value.isoformat()
        case timedelta():
            return str(value // MICROSECOND)
        case bytes():
            return f"\\x{value.hex()}"
    raise TypeError(f"no column holds a {type(value).__name__}")
