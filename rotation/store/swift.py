"""A move in one statement, on PostgreSQL: one message to the store and back, where `moves` needs six.

It is written only if the resource's chain of events is as long as it was when the case was read. Then nobody else has moved anything of
the resource, and only the fences are left to compare. Otherwise nothing is written here, and `moves` does it with care: it locks the
chain, reads, and tells what is in the way. So this is never the only way to write a move; what is special goes by `moves` at once.

The parts wait for each other, since PostgreSQL promises no order between the parts of one statement: the chain is locked first, as
everywhere, and what gives up a place in a unique index is written before what takes it. A part that did not write exactly the rows that
it is there for makes the last one divide by zero, and the whole is undone.
"""

# ruff: noqa: S608 - every text here is made of our own names; what is given is a parameter
from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import psycopg
from sqlalchemy.dialects.postgresql import dialect

from rotation.errors import IllegalMove, LostClaim
from rotation.model import Rotation, new_id
from rotation.states import AttemptState, ResourceState, Stage
from rotation.store.attempts import ID_BYTES
from rotation.store.audit import ChainHead
from rotation.store.documents import decoded, text_of, time_of
from rotation.store.evolving import fenced
from rotation.store.moves import NEW_CREDENTIAL_WHOLE, rests
from rotation.store.rows import attempt_of, credential_columns, new_credential_row, rotation_columns, schedule_columns, state_columns
from rotation.store.rules import check_credential, check_offered, check_rotation, check_rows, subjects
from rotation.store.tables import ON_ITS_WAY, attempts, chains, credentials, events, metadata, resources, rotations

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

    Values = dict[str, Document]
    """What a move writes, by part and column."""

DIALECT = dialect()  # type: ignore[no-untyped-call]  # not annotated there
ANSWERED = ("state", "answered_at", "status", "note")
NOW = "given AS (SELECT clock_timestamp() AS now)"
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
    yielding: tuple[tuple[str, ...], ...]
    """Of each such row. One of which no column changes is written all the same: it takes the next fence."""
    taking: tuple[tuple[str, ...], ...]
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
        special = move.superseded or move.new_rotation or move.new_requests or move.found or move.presumed
        if self._database.dialect != "postgresql" or after is None or special:
            return None
        try:
            others = _checked(case, held, move)
        except LostClaim:
            return None
        end = ChainHead(held.resource_id, case.version, case.head, now)
        about = (held.id, None) if isinstance(held, Rotation) else (None, held.id)
        line = self._audit.line(end, move.event, *subjects(move, *about))
        yielding = [_changed(*pair) for pair in others if pair[1].stage is not Stage.CURRENT]
        taking = [_changed(*pair) for pair in others if pair[1].stage is Stage.CURRENT]
        changes = _changes(_columns(held), _columns(after))
        resource = _resource_columns(move)
        values: Values = {
            "line": line,
            "before": {"length": end.length, "head": end.head},
            "held": {"id": held.id, "fence": held.fence, **changes},
            "claim": {
                "was": held.state if isinstance(held, Rotation) else held.stage,
                "seconds": None if rests(after, now) else self._terms.claim.total_seconds(),
                "revision": case.resource.revision,
            },
            "resource": resource,
            **{f"yielding{number}": row for number, row in enumerate(yielding)},
            **{f"taking{number}": row for number, row in enumerate(taking)},
        }
        if move.new_credential is not None:
            values["added"] = new_credential_row(move.new_credential)
        if move.attempt is not None:
            values["answered"] = {name: getattr(move.attempt, name) for name in ("id", "resource_id", *ANSWERED)}
        if move.opens_attempt is not None:
            changes["reserved_at"] = values["held"]["reserved_at"] = None
            values["opened"] = self._opening(after, move.opens_attempt, now)
        shape = Shape(
            table=rotations.name if isinstance(held, Rotation) else credentials.name,
            held=tuple(changes),
            yielding=tuple(_names(row) for row in yielding),
            taking=tuple(_names(row) for row in taking),
            resource=tuple(resource),
            adds=move.new_credential is not None,
            answers=move.attempt is not None,
            opens=move.opens_attempt is not None,
        )
        answer = self._execute(_statement(shape), values)
        if answer is None:
            return None
        opened = attempt_of(decoded(attempts, answer["opened"])) if answer["opened"] else None
        return Written(fenced(after, held.fence), time_of(answer["now"]), opened, line["hash"])

    def _execute(self, statement: Statement, values: Values) -> Document | None:
        parameters = [text_of(values[part][name]) for part, name in statement.parameters]
        with self._database.direct() as direct:
            try:
                answer = direct.answer(statement.text, parameters)
            except psycopg.errors.DivisionByZero:
                return None
        return None if answer is None else cast("Document", json.loads(answer))

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


def _changed(before: Credential, after: Credential) -> Document:
    """What a part writes of a row that is not held, and by what it finds it."""
    return {"id": before.id, "was": before.stage, **_changes(credential_columns(before), credential_columns(after))}


def _names(row: Document) -> tuple[str, ...]:
    """The columns that are written of such a row."""
    return tuple(name for name in row if name not in {"id", "was"})


def _resource_columns(move: Move) -> Document:
    columns: Document = {} if move.schedule is None else schedule_columns(move.schedule)
    return {**columns, **state_columns(move)}


# -- the statement


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement in the server's own form, and which values it takes, in the order of their numbers."""

    text: str
    parameters: tuple[tuple[str, str], ...]


class Places:
    """Numbers the parameters of a statement. Each is given as text, and says of which type it is: so a statement is prepared once."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], str] = {}

    def of(self, part: str, name: str, kind: str) -> str:
        """The place of one value."""
        return self.known.setdefault((part, name), f"${len(self.known) + 1}::{kind}")

    def column(self, table: Table, part: str, name: str) -> str:
        """The place of a value of a column."""
        return self.of(part, name, table.c[name].type.compile(DIALECT))


@lru_cache
def _statement(shape: Shape) -> Statement:
    """The statement for moves of one shape. All its text is constant, made of our own names."""
    places = Places()
    parts = dict(_parts(shape, places))
    whole = " AND ".join(f"(SELECT count(*) FROM {name}) = 1" for name in parts)
    opened = "(SELECT row_to_json(opened) FROM opened)" if shape.opens else "NULL"
    named = ", ".join(f"{name} AS ({text})" for name, text in parts.items())
    answer = f"json_build_object('now', clock_timestamp(), 'opened', {opened}, 'whole', 1 / ({whole})::int)"
    text = f"WITH {NOW}, {named} SELECT {answer}::text FROM grown"
    return Statement(text, tuple(places.known))


def _parts(shape: Shape, places: Places) -> Iterator[tuple[str, str]]:
    """Each part that writes one row, by name."""
    yield "grown", _grown(places)
    yield "line", _inserted(events, "line", events.c.keys(), places)
    yield "held", _held(shape.table, shape.held, places)
    after = FIRST
    for number, columns in enumerate(shape.yielding):
        yield f"yielding{number}", _other(f"yielding{number}", columns, FIRST, places)
        after += f" AND (SELECT count(*) FROM yielding{number}) >= 0"
    for number, columns in enumerate(shape.taking):
        yield f"taking{number}", _other(f"taking{number}", columns, after, places)
    if shape.adds:
        server = f"(SELECT server FROM resources WHERE id = {places.column(credentials, 'added', 'resource_id')})"
        yield "added", _inserted(credentials, "added", NEW_CREDENTIAL_WHOLE, places, server=server)
    if shape.answers:
        yield "answered", _answered(places)
    if shape.opens:
        yield "opened", _opened(places)
    if shape.resource:
        yield "resource", _resource(shape.resource, places)


def _grown(places: Places) -> str:
    """The chain is as it was when the case was read, and grows by one."""
    length, head = places.column(chains, "before", "length"), places.column(chains, "before", "head")
    line = (places.column(events, "line", name) for name in ("chain", "number", "hash"))
    chain, number, after = line
    return f"UPDATE chains SET length = {number}, head = {after} WHERE id = {chain} AND length = {length} AND head = {head} RETURNING id"


def _held(table: str, columns: Sequence[str], places: Places) -> str:
    """The row that is held keeps its fence, and its claim if it goes on. Urgency only rises."""
    of = metadata.tables[table]
    state = "state" if of is rotations else "stage"
    written = _set(of, "held", [name for name in columns if name != "urgent"], places)
    if "urgent" in columns:
        written.append(f"urgent = t.urgent OR {places.column(of, 'held', 'urgent')}")
    seconds, was = places.of("claim", "seconds", "float"), places.of("claim", "was", "text")
    written += [f"claimed_until = given.now + make_interval(secs => {seconds})", "hinted_until = NULL"]
    found = f"t.id = {places.column(of, 'held', 'id')} AND t.fence = {places.column(of, 'held', 'fence')} AND t.{state} = {was}"
    return f"UPDATE {table} AS t SET {', '.join(written)} FROM given WHERE {found} AND {FIRST} RETURNING t.id"


def _other(part: str, columns: Sequence[str], before: str, places: Places) -> str:
    """A credential that is not held takes the next fence, so that whoever works on it looks again."""
    written = [*_set(credentials, part, columns, places), "fence = t.fence + 1", "claimed_until = NULL", "hinted_until = NULL"]
    found = f"t.id = {places.column(credentials, part, 'id')} AND t.stage = {places.of(part, 'was', 'text')}"
    return f"UPDATE credentials AS t SET {', '.join(written)} WHERE {found} AND {before} RETURNING t.id"


def _answered(places: Places) -> str:
    written = ", ".join(_set(attempts, "answered", ANSWERED, places))
    place, resource, state = (places.column(attempts, "answered", name) for name in ("id", "resource_id", "state"))
    found = f"id = {place} AND resource_id = {resource} AND state IN ('{AttemptState.OPEN}', {state})"
    return f"UPDATE attempts SET {written} WHERE {found} AND {FIRST} RETURNING id"


def _opened(places: Places) -> str:
    credential = places.column(attempts, "opened", "credential_id")
    other = (
        f"SELECT FROM attempts AS earlier WHERE earlier.resource_id = r.resource_id AND earlier.{ON_ITS_WAY}"
        f" AND earlier.expires_at > given.now AND earlier.credential_id <> {credential}"
    )
    number = "SELECT coalesce(max(number), 0) + 1 FROM attempts AS earlier WHERE earlier.rotation_id = r.id"
    send_before = f"given.now + make_interval(secs => {places.of('opened', 'within', 'float')})"
    values = {
        "id": places.column(attempts, "opened", "id"),
        "resource_id": "r.resource_id",
        "rotation_id": "r.id",
        "credential_id": credential,
        "number": f"({number})",
        "state": f"'{AttemptState.OPEN}'",
        "opened_at": "given.now",
        "send_before": send_before,
        "expires_at": f"{send_before} + make_interval(secs => {places.of('opened', 'travels', 'float')})",
        "clean": f"NOT EXISTS ({other})",
        "fence": "r.fence",
        "note": "''",
    }
    return (
        f"INSERT INTO attempts ({', '.join(values)}) SELECT {', '.join(values.values())} FROM given, rotations AS r"
        f" WHERE r.id = {places.column(rotations, 'held', 'id')} AND {FIRST} RETURNING *"
    )


def _resource(columns: Sequence[str], places: Places) -> str:
    found = f"id = {places.column(events, 'line', 'chain')} AND revision = {places.of('claim', 'revision', 'int')}"
    return (
        f"UPDATE resources SET {', '.join(_set(resources, 'resource', columns, places))}"
        f" WHERE {found} AND state <> '{ResourceState.GONE}' AND {FIRST} RETURNING id"
    )


def _inserted(table: Table, part: str, columns: Sequence[str], places: Places, **others: str) -> str:
    values = {name: places.column(table, part, name) for name in columns} | others
    return f"INSERT INTO {table.name} ({', '.join(values)}) SELECT {', '.join(values.values())} WHERE {FIRST} RETURNING 1"


def _set(table: Table, part: str, columns: Sequence[str], places: Places) -> list[str]:
    return [f"{name} = {places.column(table, part, name)}" for name in columns]
