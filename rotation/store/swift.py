"""A move in one statement, on PostgreSQL: one message to the store and back, where `moves` needs six.

It is written only if the resource's chain of events is as long as it was when the case was read. Then nobody else has moved anything of
the resource, and only the fences are left to compare. Otherwise nothing is written here, and `moves` does it with care: it locks the
chain, reads, and tells what is in the way. So this is never the only way to write a move; what is special goes by `moves` at once.

The parts wait for each other, since PostgreSQL promises no order between the parts of one statement: the chain is locked first, as
everywhere, and what gives up a place in a unique index is written before what takes it. A part that did not write exactly the rows that
it is there for makes the last one divide by zero, and the whole is undone.
"""

# ruff: noqa: S608 - every text here is made of our own names; what is given goes into the document
from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
from sqlalchemy.dialects.postgresql import dialect

from rotation.errors import IllegalMove, LostClaim
from rotation.model import Rotation, new_id
from rotation.states import AttemptState, ResourceState, Stage
from rotation.store.attempts import ID_BYTES
from rotation.store.audit import ChainHead
from rotation.store.documents import decoded, encoded, time_of
from rotation.store.moves import NEW_CREDENTIAL_WHOLE, rests
from rotation.store.rows import attempt_of, credential_columns, new_credential_row, rotation_columns, schedule_columns
from rotation.store.rules import check_credential, check_offered, check_rotation, check_rows, subjects
from rotation.store.tables import ON_ITS_WAY, attempts, credentials, events, metadata, resources, rotations

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Table

    from rotation.cases import AttemptTerms, CredentialCase, Move, RotationCase
    from rotation.model import Attempt, Credential
    from rotation.ports import Terms
    from rotation.store.audit import AuditTrail
    from rotation.store.database import Database
    from rotation.store.documents import Document

DIALECT = dialect()  # type: ignore[no-untyped-call]  # not annotated there
ANSWERED = ("state", "answered_at", "status", "note")
PLACE = frozenset({"id", "fence", "was"})
"""What finds a row, and is not written."""
FIRST = "EXISTS (SELECT FROM grown)"
"""What every other part waits for."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a move came to: the held row as it is now, the store's clock, the attempt that was opened, the chain's new head."""

    row: Rotation | Credential
    now: datetime
    opened: Attempt | None
    head: bytes


@dataclass(frozen=True, slots=True)
class Shape:
    """Which parts a move has, and which columns each of them writes. About twenty happen; a statement is made and prepared for each.

    Only what a move changes is written: the rest is as it was read, or else somebody wrote it who moves nothing, as a rewrapping does.
    """

    table: str
    held: tuple[str, ...]
    yielding: tuple[str, ...] | None
    """None where there are no such rows. Rows of which no column changes are written all the same: they take the next fence."""
    taking: tuple[str, ...] | None
    resource: tuple[str, ...]
    adds: bool
    answers: bool
    opens: bool


class SwiftMoves:
    """Writes moves of rows that are held."""

    def __init__(self, database: Database, audit: AuditTrail, terms: Terms) -> None:
        self._database = database
        self._audit = audit
        self._terms = terms

    def write(self, case: RotationCase | CredentialCase, held: Rotation | Credential, move: Move, now: datetime) -> Written | None:
        """Write a move. None, and nothing is written, when it has to be done with care: somebody else has written since the case was read.

        `now` is the store's clock, a little ahead rather than behind. Raises `IllegalMove` for one that is never legal.
        """
        after = _after(held, move)
        if self._database.dialect != "postgresql" or after is None or move.superseded or move.new_rotation or move.new_requests:
            return None
        try:
            others = _checked(case, held, move)
        except LostClaim:
            return None
        end = ChainHead(held.resource_id, case.version, case.head, now)
        about = (held.id, None) if isinstance(held, Rotation) else (None, held.id)
        line = self._audit.line(end, move.event, *subjects(move, *about))
        changed = _changes(_columns(held), _columns(after))
        yielding = [pair for pair in others if pair[1].stage is not Stage.CURRENT]
        taking = [pair for pair in others if pair[1].stage is Stage.CURRENT]
        document: Document = {
            "line": line,
            "before": case.head,
            "held": {"id": held.id, "fence": held.fence, **changed},
            "was": held.state if isinstance(held, Rotation) else held.stage,
            "claim": None if rests(after, now) else self._terms.claim.total_seconds(),
            "yielding": _written_together(yielding),
            "taking": _written_together(taking),
            "resource": _resource_columns(move),
            "revision": case.resource.revision,
        }
        if move.new_credential is not None:
            document["added"] = new_credential_row(move.new_credential)
        if move.attempt is not None:
            document["answered"] = {name: getattr(move.attempt, name) for name in ("id", "resource_id", *ANSWERED)}
        if move.opens_attempt is not None:
            document["held"]["reserved_at"] = None
            document["opened"] = self._opening(after, move.opens_attempt, now)
        shape = Shape(
            table=rotations.name if isinstance(held, Rotation) else credentials.name,
            held=_names(document["held"]),
            yielding=_names(document["yielding"][0]) if yielding else None,
            taking=_names(document["taking"][0]) if taking else None,
            resource=tuple(document["resource"]),
            adds=move.new_credential is not None,
            answers=move.attempt is not None,
            opens=move.opens_attempt is not None,
        )
        answer = self._execute(_statement(shape), encoded(document))
        if answer is None:
            return None
        opened = attempt_of(decoded(attempts, answer["opened"])) if answer["opened"] else None
        return Written(replace(after, fence=held.fence), time_of(answer["now"]), opened, line["hash"])

    def _execute(self, statement: LiteralString, document: str) -> Document | None:
        with self._database.driver() as connection:
            try:
                row = connection.execute(statement, (document,)).fetchone()
            except psycopg.errors.DivisionByZero:
                return None
        return None if row is None else cast("Document", json.loads(row[0]))

    def _opening(self, rotation: Rotation | Credential, terms: AttemptTerms, now: datetime) -> Document:
        if not isinstance(rotation, Rotation):
            raise IllegalMove("only a rotation opens an attempt")
        check_offered(rotation)
        return {
            "id": new_id("att", now, secrets.token_bytes(ID_BYTES)),
            "credential_id": rotation.credential_id,
            "within": min(terms.send_within, self._terms.claim).total_seconds(),
            "travels": terms.travels_for.total_seconds(),
        }


def _after(held: Rotation | Credential, move: Move) -> Rotation | Credential | None:
    """The held row as the move leaves it; None for a move that does not write it."""
    if isinstance(held, Rotation):
        return move.rotation if move.rotation is not None and move.rotation.id == held.id else None
    return next((one for one in move.credentials if one.id == held.id), None) if move.rotation is None else None


def _checked(case: RotationCase | CredentialCase, held: Rotation | Credential, move: Move) -> list[tuple[Credential, Credential]]:
    """The other credentials that the move writes, as they were read and as they will be. Raises `IllegalMove`, and `LostClaim` for one
    that was not read.
    """
    check_rows(move, held.resource_id)
    if isinstance(held, Rotation) and move.rotation is not None:
        check_rotation(held, move.rotation)
    known = {one.id: one for one in case.credentials}
    others = []
    for one in move.credentials:
        before = held if one.id == held.id else known.get(one.id)
        if before is None or isinstance(before, Rotation):
            raise LostClaim(f"{one.id} was not read")
        check_credential(before, one)
        if one.id != held.id:
            others.append((before, one))
    return others


def _columns(row: Rotation | Credential) -> dict[str, Any]:
    return rotation_columns(row) if isinstance(row, Rotation) else credential_columns(row)


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in after.items() if value != before[name]}


def _written_together(pairs: Sequence[tuple[Credential, Credential]]) -> list[Document]:
    """Rows that one part writes: each with every column that changes in one of them."""
    columns = [(before, credential_columns(before), credential_columns(after)) for before, after in pairs]
    names = {name for _, before, after in columns for name in _changes(before, after)}
    return [{"id": row.id, "was": row.stage, **{name: after[name] for name in sorted(names)}} for row, _, after in columns]


def _names(row: Document) -> tuple[str, ...]:
    """The columns that are written of a row, and of those that are written with it."""
    return tuple(name for name in row if name not in PLACE)


def _resource_columns(move: Move) -> Document:
    columns: Document = {} if move.schedule is None else schedule_columns(move.schedule)
    return columns if move.resource_state is None else {**columns, "state": move.resource_state}


# -- the statement


@lru_cache
def _statement(shape: Shape) -> LiteralString:
    """The statement for moves of one shape: its only parameter is the document. All its text is constant, made of our own names."""
    parts = dict(_parts(shape))
    whole = " AND ".join(f"(SELECT count(*) FROM {name}) = {count}" for name, (_, count) in parts.items() if count)
    opened = "(SELECT row_to_json(opened) FROM opened)" if shape.opens else "NULL"
    named = ", ".join(f"{name} AS ({text})" for name, (text, _) in parts.items())
    answer = f"json_build_object('now', clock_timestamp(), 'opened', {opened}, 'whole', 1 / ({whole})::int)"
    return f"WITH {named} SELECT {answer}::text FROM grown, given"


def _parts(shape: Shape) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each part by name: its text, and how many rows it must have written."""
    yield "given", ("SELECT move, clock_timestamp() AS now FROM (SELECT %s::jsonb AS move) AS parameter", "")
    yield "grown", (_grown(), "1")
    yield "line", (_inserted(events, "line", events.c.keys()), "1")
    yield "held", (_held(shape.table, shape.held), "1")
    if shape.yielding is not None:
        yield "yielding", (_others("yielding", shape.yielding, FIRST), "jsonb_array_length(move->'yielding')")
    if shape.taking is not None:
        before = FIRST if shape.yielding is None else f"{FIRST} AND (SELECT count(*) FROM yielding) >= 0"
        yield "taking", (_others("taking", shape.taking, before), "jsonb_array_length(move->'taking')")
    if shape.adds:
        server = "(SELECT server FROM resources WHERE id = n.resource_id)"
        yield "added", (_inserted(credentials, "added", NEW_CREDENTIAL_WHOLE, server=server), "1")
    if shape.answers:
        yield "answered", (_answered(), "1")
    if shape.opens:
        yield "opened", (_opened(), "1")
    if shape.resource:
        yield "resource", (_resource(shape.resource), "1")


def _grown() -> str:
    line = _one(events, "line", ("chain", "number", "hash"))
    return (
        f"UPDATE chains AS t SET length = n.number, head = n.hash FROM given, {line}"
        " WHERE t.id = n.chain AND t.length = n.number - 1 AND t.head = (move->>'before')::bytea RETURNING t.id"
    )


def _held(table: str, columns: Sequence[str]) -> str:
    """The row that is held keeps its fence, and its claim if it goes on. Urgency only rises."""
    of = metadata.tables[table]
    state = "state" if of is rotations else "stage"
    rises = ["urgent = t.urgent OR n.urgent"] if "urgent" in columns else []
    written = [*_set([name for name in columns if name != "urgent"]), *rises]
    claim = ("claimed_until = given.now + make_interval(secs => (move->>'claim')::float)", "hinted_until = NULL")
    return (
        f"UPDATE {table} AS t SET {', '.join((*written, *claim))} FROM given, {_one(of, 'held', ('id', 'fence', *columns))}"
        f" WHERE t.id = n.id AND t.fence = n.fence AND t.{state} = move->>'was' AND {FIRST} RETURNING t.id"
    )


def _others(part: str, columns: Sequence[str], before: str) -> str:
    """Credentials that are not held take the next fence, so that whoever works on them looks again."""
    rows = f"jsonb_to_recordset(move->'{part}') AS n(was text, {_typed(credentials, ('id', *columns))})"
    written = ", ".join((*_set(columns), "fence = t.fence + 1", "claimed_until = NULL", "hinted_until = NULL"))
    return f"UPDATE credentials AS t SET {written} FROM given, {rows} WHERE t.id = n.id AND t.stage = n.was AND {before} RETURNING t.id"


def _answered() -> str:
    return (
        f"UPDATE attempts AS t SET {', '.join(_set(ANSWERED))} FROM given, {_one(attempts, 'answered', ('id', 'resource_id', *ANSWERED))}"
        f" WHERE t.id = n.id AND t.resource_id = n.resource_id AND t.state IN ('{AttemptState.OPEN}', n.state) AND {FIRST} RETURNING t.id"
    )


def _opened() -> str:
    other = (
        f"SELECT FROM attempts AS earlier WHERE earlier.resource_id = r.resource_id AND earlier.{ON_ITS_WAY}"
        " AND earlier.expires_at > given.now AND earlier.credential_id <> o.credential_id"
    )
    number = "SELECT coalesce(max(number), 0) + 1 FROM attempts AS earlier WHERE earlier.rotation_id = r.id"
    send_before = "given.now + make_interval(secs => o.within)"
    values = {
        "id": "o.id",
        "resource_id": "r.resource_id",
        "rotation_id": "r.id",
        "credential_id": "o.credential_id",
        "number": f"({number})",
        "state": f"'{AttemptState.OPEN}'",
        "opened_at": "given.now",
        "send_before": send_before,
        "expires_at": f"{send_before} + make_interval(secs => o.travels)",
        "clean": f"NOT EXISTS ({other})",
        "fence": "r.fence",
        "note": "''",
    }
    return (
        f"INSERT INTO attempts ({', '.join(values)}) SELECT {', '.join(values.values())} FROM given,"
        " jsonb_to_record(move->'opened') AS o(id text, credential_id text, within float, travels float),"
        f" rotations AS r WHERE r.id = move->'held'->>'id' AND {FIRST} RETURNING *"
    )


def _resource(columns: Sequence[str]) -> str:
    return (
        f"UPDATE resources AS t SET {', '.join(_set(columns))} FROM given, {_one(resources, 'resource', columns)}"
        f" WHERE t.id = move->'line'->>'chain' AND t.state <> '{ResourceState.GONE}' AND t.revision = (move->>'revision')::int"
        f" AND {FIRST} RETURNING t.id"
    )


def _inserted(table: Table, part: str, columns: Sequence[str], **others: str) -> str:
    values = {name: f"n.{name}" for name in columns} | others
    return (
        f"INSERT INTO {table.name} ({', '.join(values)}) SELECT {', '.join(values.values())} FROM given, {_one(table, part, columns)}"
        f" WHERE {FIRST} RETURNING 1"
    )


def _one(table: Table, part: str, columns: Sequence[str]) -> str:
    return f"jsonb_to_record(move->'{part}') AS n({_typed(table, columns)})"


def _typed(table: Table, columns: Sequence[str]) -> str:
    return ", ".join(f"{name} {table.c[name].type.compile(DIALECT)}" for name in columns)


def _set(columns: Sequence[str]) -> list[str]:
    return [f"{name} = n.{name}" for name in columns]
