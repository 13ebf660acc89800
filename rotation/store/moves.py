"""Writing a decision: compare-and-set on what was read, all rows of a move together, inside the caller's transaction.

The order of locks is the same everywhere: the resource's chain, then its rotations, then its credentials, each by id. The order of
writes follows from the unique indexes: what gives up a place is written before what takes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, or_, select, update

from rotation.errors import IllegalMove, LostClaim
from rotation.model import Rotation
from rotation.states import ALIVE_STAGES, ResourceState, RotationState, Stage
from rotation.store.attempts import answer_attempt, insert_attempt, open_attempt
from rotation.store.rows import (
    alarm_name,
    credential_columns,
    credential_of,
    new_credential_row,
    new_rotation_row,
    request_row,
    rotation_columns,
    rotation_of,
    schedule_columns,
    state_columns,
)
from rotation.store.rules import ENDED_STATES, check_credential, check_rotation, check_rows
from rotation.store.tables import credentials, requests, resources, rotations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Table, Update

    from rotation.cases import AttemptTerms, Move, Wait
    from rotation.model import Attempt, Credential

    Claimable = Rotation | Credential

CLAIM = ("fence", "claimed_until", "hinted_until")
LOOKED_AT = ("last_seen_at", "astray_at", "mending_until", "tried_at")
"""What only looking at a login tells: no move writes it."""
ROTATION_WHOLE = ("revision", "state", "requested_at", "credential_id", "planned_at", "created_at", "verified_at", "offered_at", "ended_at")
ROTATION_WAIT = ("due_at", "tries", "problem", "advice", "alarm", "reserved_at", "missing_since")
CREDENTIAL_WAIT = ("due_at", "tries", "problem", "alarm")


def _compare_and_set(table: Table, state: str, columns: Sequence[str]) -> Update:
    """Write a row if it is as it was read: the fence grows with every change by somebody else."""
    unchanged = (table.c.fence == bindparam("read_fence"), table.c[state] == bindparam("read_state"))
    written = {name: bindparam(f"new_{name}", type_=table.c[name].type) for name in columns}
    return update(table).where(table.c.id == bindparam("row_id"), *unchanged).values(written)


CREDENTIAL_WHOLE = tuple(
    name
    for name in credentials.c.keys()  # noqa: SIM118 - a collection of columns iterates over columns
    if name not in {"id", "resource_id", "server", "generation", "username", *LOOKED_AT, *CLAIM}
)
_rises = or_(rotations.c.urgent, bindparam("new_urgent", type_=rotations.c.urgent.type))

WRITE_ROTATION = _compare_and_set(rotations, "state", (*ROTATION_WHOLE, *ROTATION_WAIT, *CLAIM)).values(urgent=_rises)
WRITE_CREDENTIAL = _compare_and_set(credentials, "stage", (*CREDENTIAL_WHOLE, *CLAIM))
WAIT_ROTATION = _compare_and_set(rotations, "state", (*ROTATION_WAIT, *CLAIM))
WAIT_CREDENTIAL = _compare_and_set(credentials, "stage", (*CREDENTIAL_WAIT, *CLAIM))
RENEW_ROTATION = _compare_and_set(rotations, "state", CLAIM)
RENEW_CREDENTIAL = _compare_and_set(credentials, "stage", CLAIM)
RENEW_FOR_ATTEMPT = _compare_and_set(rotations, "state", (*CLAIM, "reserved_at"))

READ_ROTATIONS = (
    select(rotations).where(rotations.c.id.in_(bindparam("ids", expanding=True))).order_by(rotations.c.id).with_for_update(key_share=True)
)
READ_CREDENTIALS = (
    select(credentials)
    .where(credentials.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(credentials.c.id)
    .with_for_update(key_share=True)
)
NEW_ROTATION = insert(rotations)
NEW_REQUEST = insert(requests)

_server = select(resources.c.server).where(resources.c.id == bindparam("new_resource_id")).scalar_subquery()
NEW_CREDENTIAL_WHOLE = ("id", "resource_id", "generation", "username", *CREDENTIAL_WHOLE, "fence")
NEW_CREDENTIAL = insert(credentials).values(
    {name: bindparam(f"new_{name}", type_=credentials.c[name].type) for name in NEW_CREDENTIAL_WHOLE} | {"server": _server}
)


def insert_credential(connection: Connection, value: Credential) -> None:
    """Insert a new credential, on the server of its resource."""
    connection.execute(NEW_CREDENTIAL, {f"new_{name}": column for name, column in new_credential_row(value).items()})


def rests(row: Claimable, now: datetime) -> bool:
    """Whether a row has nothing to do now: it has ended, or its time has not come."""
    ended = row.state in ENDED_STATES if isinstance(row, Rotation) else row.stage not in ALIVE_STAGES
    return ended or row.due_at is None or row.due_at > now


def place_of(row: Claimable) -> RotationState | Stage:
    """How far a row has come: the state of a rotation, the stage of a credential."""
    return row.state if isinstance(row, Rotation) else row.stage


@dataclass(slots=True)
class Writing:
    """One transaction that writes a resource whose chain is locked.

    `held` is the row that is worked on under a claim, which lasts until `claimed_until` if it goes on. `alone` says that nobody has moved
    the resource since the case was read, so that other rows can only have been claimed or put off. `revision` is the resource's newest
    as it was read: a date that was computed by an older one is not written. `places` says where other rows stood when the case was read, as
    who held one then may have moved it under the same fence. `known` are rows that were read under their lock in this
    transaction.
    """

    connection: Connection
    resource_id: str
    now: datetime
    held: Claimable | None = None
    claimed_until: datetime | None = None
    alone: bool = False
    revision: int | None = None
    places: Mapping[str, RotationState | Stage] = field(default_factory=dict)
    known: dict[str, Claimable] = field(default_factory=dict)
    opened: Attempt | None = None
    """The attempt that was inserted."""

    def move(self, move: Move) -> Claimable | None:
        """Write every row of the move but its event. Gives the held row as it is now. Raises `LostClaim`, `IllegalMove`, `Conflict`."""
        check_rows(move, self.resource_id)
        changed_rotations = [one for one in (move.superseded, move.rotation) if one is not None]
        # The current credential gives up its place before another takes it.
        changed_credentials = sorted(move.credentials, key=lambda one: one.stage is Stage.CURRENT)
        self._read_others(changed_rotations, changed_credentials)
        for rotation in changed_rotations:
            self._write_rotation(rotation, opens_attempt=move.opens_attempt is not None)
        for credential in changed_credentials:
            self._write_credential(credential)
        after = self._held_after(move)
        self._insert_others(move)
        if move.attempt is not None:
            answer_attempt(self.connection, self.resource_id, move.attempt)
        if move.opens_attempt is not None:
            self.opened = self._open(after, move.opens_attempt)
        self._write_resource(move)
        return after

    def wait(self, wait: Wait) -> Claimable:
        """Write when to come back, and what is known of the attempt. Gives the held row as it is now."""
        row = self._claimed_row()
        after: Claimable
        if isinstance(row, Rotation):
            after = replace(
                row,
                due_at=wait.until,
                tries=row.tries + wait.setback,
                problem=wait.problem,
                advice=wait.advice,
                alarm=alarm_name(wait.alarm),
                reserved_at=None if wait.returns_place else wait.reserved_at or row.reserved_at,
                missing_since=wait.missing_since or row.missing_since,
            )
            self._compare_and_set(WAIT_ROTATION, row, {name: getattr(after, name) for name in ROTATION_WAIT} | self._claim(after, row))
        else:
            after = replace(row, due_at=wait.until, tries=row.tries + wait.setback, problem=wait.problem, alarm=alarm_name(wait.alarm))
            self._compare_and_set(WAIT_CREDENTIAL, row, {name: getattr(after, name) for name in CREDENTIAL_WAIT} | self._claim(after, row))
        if wait.attempt is not None:
            answer_attempt(self.connection, self.resource_id, wait.attempt)
        return after

    def open_attempt(self, terms: AttemptTerms) -> Attempt:
        """Renew the claim and insert an attempt for the held rotation; it uses up the place that was kept for it."""
        row = self._claimed_row()
        self._compare_and_set(RENEW_FOR_ATTEMPT, row, {**self._renewed(row), "reserved_at": None})
        return self._open(row, terms)

    def _claimed_row(self) -> Claimable:
        if self.held is None:
            raise IllegalMove("only a held row can wait or open an attempt")
        return self.held

    def _read_others(self, changed: Sequence[Rotation], credentials_changed: Sequence[Credential]) -> None:
        """Lock the rows that are neither held nor read yet, in one order for everyone."""
        others = [one.id for one in changed if not self._is_known(one)]
        if others:
            found = self.connection.execute(READ_ROTATIONS, {"ids": others}).mappings()
            self.known |= {row["id"]: rotation_of(row) for row in found}
        if any(not self._is_known(one) for one in credentials_changed):
            ids = [one.id for one in credentials_changed]
            found = self.connection.execute(READ_CREDENTIALS, {"ids": ids}).mappings()
            self.known |= {row["id"]: credential_of(row) for row in found}

    def _is_known(self, row: Claimable) -> bool:
        return row.id in self.known or (self.held is not None and row.id == self.held.id)

    def _before(self, value: Claimable) -> Claimable:
        """The row as it was read: under the claim, or with the fence that the value still has."""
        if self.held is not None and value.id == self.held.id:
            return self.held
        before = self.known.get(value.id)
        if before is None or not (self.alone or self._is_as_seen(before, value)):
            raise LostClaim(f"{value.id} has changed since it was read")
        return before

    def _is_as_seen(self, before: Claimable, value: Claimable) -> bool:
        return before.fence == value.fence and self.places.get(before.id, place_of(before)) is place_of(before)

    def _write_rotation(self, value: Rotation, *, opens_attempt: bool) -> None:
        before = self._before(value)
        if not isinstance(before, Rotation):
            raise IllegalMove(f"{value.id} is no rotation")
        check_rotation(before, value)
        columns = rotation_columns(value)
        if opens_attempt:
            columns["reserved_at"] = None
        self._compare_and_set(WRITE_ROTATION, before, columns | self._claim(value, before))

    def _write_credential(self, value: Credential) -> None:
        before = self._before(value)
        if isinstance(before, Rotation):
            raise IllegalMove(f"{value.id} is no credential")
        check_credential(before, value)
        self._compare_and_set(WRITE_CREDENTIAL, before, credential_columns(value) | self._claim(value, before))

    def _claim(self, after: Claimable, before: Claimable) -> dict[str, Any]:
        """The held row keeps its fence, and its claim if it goes on; any other takes the next fence, so that its worker looks again."""
        if self.held is not None and after.id == self.held.id:
            if rests(after, self.now):
                return {"fence": self.held.fence, "claimed_until": None, "hinted_until": None}
            return self._renewed(self.held)
        return {"fence": before.fence + 1, "claimed_until": None, "hinted_until": None}

    def _renewed(self, held: Claimable) -> dict[str, Any]:
        return {"fence": held.fence, "claimed_until": self.claimed_until, "hinted_until": None}

    def _compare_and_set(self, statement: Update, before: Claimable, columns: Mapping[str, Any]) -> None:
        state = before.state if isinstance(before, Rotation) else before.stage
        place = {"row_id": before.id, "read_fence": before.fence, "read_state": state.value}
        written = {f"new_{name}": value for name, value in columns.items()}
        if self.connection.execute(statement, {**place, **written}).rowcount != 1:
            raise LostClaim(f"{before.id} is no longer {state}, or somebody else's by now")

    def _held_after(self, move: Move) -> Claimable | None:
        """The held row as the move leaves it. A move that does not write it still needs the claim, and renews or frees it."""
        if self.held is None:
            return None
        written = [one for one in (move.rotation, move.superseded, *move.credentials) if one is not None and one.id == self.held.id]
        if written:
            return written[0]
        statement = RENEW_ROTATION if isinstance(self.held, Rotation) else RENEW_CREDENTIAL
        self._compare_and_set(statement, self.held, self._claim(self.held, self.held))
        return self.held

    def _insert_others(self, move: Move) -> None:
        for credential in (*move.found, *((move.new_credential,) if move.new_credential else ())):
            insert_credential(self.connection, credential)
        if move.new_rotation is not None:
            self.connection.execute(NEW_ROTATION, new_rotation_row(move.new_rotation))
        if move.new_requests:
            self.connection.execute(NEW_REQUEST, [request_row(one) for one in move.new_requests])
        if move.presumed is not None:
            insert_attempt(self.connection, move.presumed)

    def _open(self, rotation: Claimable | None, terms: AttemptTerms) -> Attempt:
        if not isinstance(rotation, Rotation) or self.claimed_until is None:
            raise IllegalMove("an attempt is opened only for a rotation that is held")
        fence = self._claimed_row().fence
        return open_attempt(self.connection, rotation, terms, fence=fence, now=self.now, claimed_until=self.claimed_until)

    def _write_resource(self, move: Move) -> None:
        columns: dict[str, Any] = {} if move.schedule is None else schedule_columns(move.schedule)
        columns |= state_columns(move)
        if columns:
            place = [resources.c.id == self.resource_id, resources.c.state != ResourceState.GONE.value]
            if self.revision is not None:
                place.append(resources.c.revision == self.revision)
            if self.connection.execute(update(resources).where(*place).values(columns)).rowcount != 1:
                self._refuse_resource()

    def _refuse_resource(self) -> None:
        state = self.connection.scalar(select(resources.c.state).where(resources.c.id == self.resource_id))
        if state == ResourceState.GONE:
            raise IllegalMove(f"resource {self.resource_id} is gone")
        raise LostClaim(f"resource {self.resource_id} was revised since it was read")
