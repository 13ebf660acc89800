"""What may move now, and who holds it: due queries that cost what is due, claims of one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, case, exists, or_, select, text, update

from rotation.store.database import per_dialect
from rotation.store.tables import ALIVE, OPEN, UNENDED, credentials, resources, rotations, servers

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from sqlalchemy import ColumnElement, Select, Table
    from sqlalchemy.sql.dml import ReturningUpdate

    from rotation.store.database import Database

    Moment = ColumnElement[datetime]
    Build = Callable[[Moment, Moment], ReturningUpdate[Any]]


def _free(table: Table, now: Moment) -> ColumnElement[bool]:
    return or_(table.c.claimed_until.is_(None), table.c.claimed_until <= now)


def unsent(table: Table, now: Moment) -> ColumnElement[bool]:
    """Nobody was told of the row lately."""
    return or_(table.c.hinted_until.is_(None), table.c.hinted_until <= now)


def _claim(table: Table, unended: str, now: Moment, until: Moment) -> ReturningUpdate[Any]:
    return (
        update(table)
        .where(table.c.id == bindparam("row_id"), text(unended), table.c.due_at <= now, _free(table, now))
        .values(fence=table.c.fence + 1, claimed_until=until)
        .returning(table)
    )


def _claim_rotation(now: Moment, until: Moment) -> ReturningUpdate[Any]:
    return _claim(rotations, UNENDED, now, until)


def _claim_credential(now: Moment, until: Moment) -> ReturningUpdate[Any]:
    # A healing that would outlast the claim was begun by a clock that was ahead. None is begun under the claim, so it is over by then.
    mending = credentials.c.mending_until
    return _claim(credentials, ALIVE, now, until).values(mending_until=case((mending > until, until), else_=mending))


CLAIM_ROTATION = per_dialect(_claim_rotation)
CLAIM_CREDENTIAL = per_dialect(_claim_credential)

_ahead = rotations.alias("ahead")
_waits_behind = and_(
    rotations.c.state == text("'requested'"),
    exists(select(_ahead.c.id).where(_ahead.c.resource_id == rotations.c.resource_id, text(f"ahead.{OPEN}"), _ahead.c.state != "offered")),
)
_not_paused = resources.c.state != "paused"


def _due(table: Table, unended: str, now: Moment, *conditions: ColumnElement[bool]) -> Select[Any]:
    """The rows to send, locked; another tick's are skipped, not waited for."""
    due = (table.c.due_at.is_not(None), text(f"{table.name}.{unended}"), table.c.due_at <= now, _free(table, now), unsent(table, now))
    return (
        select(table.c.id)
        .join(resources, resources.c.id == table.c.resource_id)
        .where(*due, *conditions)
        .order_by(table.c.due_at)
        .limit(bindparam("most"))
        .with_for_update(skip_locked=True, of=table, key_share=True)
    )


def _hint(table: Table, chosen: Select[Any], until: Moment) -> ReturningUpdate[Any]:
    # As a plain subquery PostgreSQL might run it more than once, each time with other rows; one that locks rows is never inlined.
    ids = chosen.cte("chosen")
    return update(table).where(table.c.id.in_(select(ids.c.id))).values(hinted_until=until).returning(table.c.due_at, table.c.id)


ROTATION_GOES_ON = or_(rotations.c.state == text("'offered'"), and_(_not_paused, ~_waits_behind))
CREDENTIAL_GOES_ON = or_(_not_paused, credentials.c.unblock_until.is_not(None))


def _due_rotations(now: Moment, until: Moment) -> ReturningUpdate[Any]:
    urgent = rotations.c.urgent == bindparam("wanted_urgent", type_=rotations.c.urgent.type)
    return _hint(rotations, _due(rotations, UNENDED, now, urgent, ROTATION_GOES_ON), until)


def _due_credentials(now: Moment, until: Moment) -> ReturningUpdate[Any]:
    return _hint(credentials, _due(credentials, ALIVE, now, CREDENTIAL_GOES_ON), until)


def _due_resources(now: Moment, _until: Moment) -> Select[Any]:
    return (
        select(resources.c.id)
        .where(text("state = 'active' AND next_rotation_at IS NOT NULL"), resources.c.next_rotation_at <= now)
        .order_by(resources.c.next_rotation_at)
        .limit(bindparam("most"))
    )


def _due_servers(now: Moment, until: Moment) -> ReturningUpdate[Any]:
    used = exists(select(resources.c.id).where(resources.c.server == servers.c.name, resources.c.state != text("'gone'")))
    chosen = select(servers.c.name).where(unsent(servers, now), used).order_by(servers.c.name).limit(bindparam("most"))
    names = chosen.with_for_update(skip_locked=True, key_share=True).cte("chosen")
    return update(servers).where(servers.c.name.in_(select(names.c.name))).values(hinted_until=until).returning(servers.c.name)


def _due_looks(now: Moment, until: Moment) -> ReturningUpdate[Any]:
    unlooked = or_(servers.c.looks_until.is_(None), servers.c.looks_until <= now)
    used = exists(select(resources.c.id).where(resources.c.server == servers.c.name))
    chosen = select(servers.c.name).where(unlooked, used).order_by(servers.c.name).limit(bindparam("most"))
    names = chosen.with_for_update(skip_locked=True, key_share=True).cte("chosen")
    return update(servers).where(servers.c.name.in_(select(names.c.name))).values(looks_until=until).returning(servers.c.name)


DUE_ROTATIONS = per_dialect(_due_rotations)
DUE_CREDENTIALS = per_dialect(_due_credentials)
DUE_RESOURCES = per_dialect(_due_resources)
DUE_SERVERS = per_dialect(_due_servers)
DUE_LOOKS = per_dialect(_due_looks)


def claim(database: Database, table: Table, row_id: str, lasting: timedelta) -> int | None:
    """Hold a row under its next fence, which is given back. None when it is not due, has ended, or is held."""
    statement = (CLAIM_ROTATION if table is rotations else CLAIM_CREDENTIAL)[database.dialect]
    with database.single_write() as connection:
        row = connection.execute(statement, {"row_id": row_id, **database.moment(lasting)}).one_or_none()
    return None if row is None else row.fence


def due_resources(database: Database, limit: int) -> tuple[str, ...]:
    """Active resources whose date has come, the longest overdue first."""
    with database.reading() as connection:
        return tuple(connection.scalars(DUE_RESOURCES[database.dialect], {"most": limit, **database.moment()}))


def due_rotations(database: Database, limit: int, lasting: timedelta, *, urgent: bool) -> tuple[str, ...]:
    """Rotations that may move now, the longest overdue first, each marked as sent."""
    return _send(database, DUE_ROTATIONS[database.dialect], {"most": limit, "wanted_urgent": urgent, **database.moment(lasting)})


def due_credentials(database: Database, limit: int, lasting: timedelta) -> tuple[str, ...]:
    """The same for credentials."""
    return _send(database, DUE_CREDENTIALS[database.dialect], {"most": limit, **database.moment(lasting)})


def due_servers(database: Database, limit: int, lasting: timedelta) -> tuple[str, ...]:
    """Servers that are in use and whose sessions are to be looked at again, by name, each marked as looked at now."""
    return _send_servers(database, DUE_SERVERS[database.dialect], {"most": limit, **database.moment(lasting)})


def due_looks(database: Database, limit: int, lasting: timedelta) -> tuple[str, ...]:
    """Servers that have been in use and whose logins are to be looked at again, by name, each marked as looked at now."""
    return _send_servers(database, DUE_LOOKS[database.dialect], {"most": limit, **database.moment(lasting)})


def _send_servers(database: Database, statement: ReturningUpdate[Any], parameters: dict[str, Any]) -> tuple[str, ...]:
    with database.single_write() as connection:
        return tuple(sorted(connection.scalars(statement, parameters)))


def _send(database: Database, statement: ReturningUpdate[Any], parameters: dict[str, Any]) -> tuple[str, ...]:
    with database.single_write() as connection:
        rows = connection.execute(statement, parameters).all()
    return tuple(row.id for row in sorted(rows, key=lambda row: (row.due_at, row.id)))
