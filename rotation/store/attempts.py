"""Rows of attempts: opened with every time by the store's clock, answered once, never deleted."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, exists, func, insert, or_, select, text, update

from rotation.errors import IllegalMove
from rotation.model import Attempt, new_id
from rotation.states import AttemptState
from rotation.store.database import per_dialect
from rotation.store.direct import CompiledStatement
from rotation.store.rows import attempt_of
from rotation.store.rules import attempt_times, check_offered
from rotation.store.tables import ON_ITS_WAY, attempts, rotations

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Select

    from rotation.cases import AttemptTerms, Claim
    from rotation.model import Rotation
    from rotation.store.database import Database

ID_BYTES = 8

_answered = ("state", "answered_at", "status", "note")
ANSWER = (
    update(attempts)
    .where(
        attempts.c.id == bindparam("attempt_id"),
        attempts.c.resource_id == bindparam("of_resource"),
        or_(attempts.c.state == text("'open'"), attempts.c.state == bindparam("new_state", type_=attempts.c.state.type)),
    )
    .values({name: bindparam(f"new_{name}", type_=attempts.c[name].type) for name in _answered})
)

_earlier = attempts.alias("earlier")
_number = select(func.coalesce(func.max(_earlier.c.number), 0) + 1).where(_earlier.c.rotation_id == bindparam("new_rotation_id"))
_other_on_its_way = exists(
    select(_earlier.c.id).where(
        _earlier.c.resource_id == bindparam("new_resource_id"),
        text(f"earlier.{ON_ITS_WAY}"),
        _earlier.c.expires_at > bindparam("new_opened_at", type_=attempts.c.opened_at.type),
        _earlier.c.credential_id != bindparam("new_credential_id"),
    )
)
_given = ("id", "resource_id", "rotation_id", "credential_id", "state", "opened_at", "send_before", "expires_at", "fence", "note")
OPEN = (
    insert(attempts)
    .values(
        {name: bindparam(f"new_{name}", type_=attempts.c[name].type) for name in _given}
        | {"number": _number.scalar_subquery(), "clean": ~_other_on_its_way}
    )
    .returning(attempts)
)


def _may_send(now: ColumnElement[datetime], _until: ColumnElement[datetime]) -> Select[tuple[int]]:
    return (
        select(attempts.c.number)
        .join(rotations, rotations.c.id == attempts.c.rotation_id)
        .where(
            attempts.c.id == bindparam("attempt_id"),
            attempts.c.state == text("'open'"),
            attempts.c.send_before > now,
            rotations.c.id == bindparam("rotation_id"),
            rotations.c.state == text("'offered'"),
            rotations.c.fence == bindparam("claimed_fence"),
        )
    )


MAY_SEND = per_dialect(_may_send)
MAY_SEND_DIRECT = CompiledStatement(MAY_SEND["postgresql"])


def open_attempt(
    connection: Connection, rotation: Rotation, terms: AttemptTerms, *, fence: int, now: datetime, claimed_until: datetime
) -> Attempt:
    """Insert an attempt for the rotation's credential, and give it back. Raises `IllegalMove` unless the rotation is offered."""
    credential_id = check_offered(rotation)
    send_before, expires_at = attempt_times(now, claimed_until, terms)
    attempt = Attempt(
        id=new_id("att", now, secrets.token_bytes(ID_BYTES)),
        resource_id=rotation.resource_id,
        rotation_id=rotation.id,
        credential_id=credential_id,
        number=0,
        state=AttemptState.OPEN,
        opened_at=now,
        send_before=send_before,
        expires_at=expires_at,
        clean=False,
        fence=fence,
    )
    return insert_attempt(connection, attempt)


def insert_attempt(connection: Connection, attempt: Attempt) -> Attempt:
    """Insert an attempt, and give it back with its number, and whether it is clean: both follow from those before."""
    row = {f"new_{name}": getattr(attempt, name) for name in _given} | {"new_state": attempt.state.value}
    return attempt_of(connection.execute(OPEN, row).mappings().one())


def answer_attempt(connection: Connection, resource_id: str, outcome: Attempt) -> None:
    """Write what came of an attempt. Raises `IllegalMove` when it has another outcome, or is not one of the resource."""
    written = {
        "new_state": outcome.state.value,
        "new_answered_at": outcome.answered_at,
        "new_status": outcome.status,
        "new_note": outcome.note,
    }
    if connection.execute(ANSWER, {"attempt_id": outcome.id, "of_resource": resource_id, **written}).rowcount != 1:
        raise IllegalMove(f"attempt {outcome.id} is not one of this resource, or has another outcome already")


def may_send(database: Database, claim: Claim, attempt: Attempt) -> bool:
    """One query: does the claim still hold, and is there time left. Errors are the caller's."""
    place = {"attempt_id": attempt.id, "rotation_id": claim.row_id, "claimed_fence": str(claim.fence)}
    if database.dialect == "postgresql":
        with database.direct() as direct:
            return direct.answer(MAY_SEND_DIRECT.text, MAY_SEND_DIRECT.values(place)) is not None
    with database.reading() as connection:
        return connection.execute(MAY_SEND[database.dialect], {**place, **database.moment()}).first() is not None
