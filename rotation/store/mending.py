"""What the healer reads and writes: which logins must work, which are not as their rows say, and who is putting one right.

None of it touches a fence: a login that is made again is no move of its row, and must disturb no rotation. What keeps it apart from
a retirement is said in both directions: it is not begun while somebody holds the row, and `mending_until` stands on the row before it is
done, for whoever takes the login away to wait for.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy import and_, bindparam, exists, func, or_, select, text, update

from rotation.cases import CredentialCase
from rotation.generations import is_owed, may_be_mended
from rotation.model import Resource, Standing
from rotation.states import MADE_STATES, ResourceState
from rotation.store.cases import read_resource_case
from rotation.store.database import per_dialect
from rotation.store.due import unsent
from rotation.store.rows import credential_of, schedule_of, server_of
from rotation.store.specs import spec_from_json
from rotation.store.tables import ALIVE, OPEN, UtcTime, credentials, resource_revisions, resources, rotations, servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import ColumnElement, Connection, Select
    from sqlalchemy.sql.dml import ReturningUpdate, Update

    from rotation.cases import Claim
    from rotation.model import Credential, Event
    from rotation.store.audit import AuditTrail
    from rotation.store.database import Database

    Moment = ColumnElement[datetime]

AT_ONCE = 500
"""How many rows one statement names."""

_made = exists(
    select(rotations.c.id).where(
        rotations.c.resource_id == credentials.c.resource_id,
        text(f"rotations.{OPEN}"),
        rotations.c.state.in_(sorted(MADE_STATES)),
        rotations.c.credential_id == credentials.c.id,
    )
)
OWED = (
    select(credentials, _made.label("made"))
    .join(resources, resources.c.id == credentials.c.resource_id)
    .where(
        credentials.c.server == bindparam("on_server"),
        text(f"credentials.{ALIVE}"),
        credentials.c.stage.in_(("pending", "current", "previous")),
        resources.c.held_because.is_(None),
    )
    .order_by(credentials.c.id)
)
BY_ID = select(credentials).where(credentials.c.id.in_(bindparam("ids", expanding=True)))
BY_NAME = select(credentials).where(
    credentials.c.server == bindparam("on_server"), credentials.c.username.in_(bindparam("names", expanding=True)), text(ALIVE)
)
STANDINGS = (
    select(
        resources,
        resource_revisions.c.spec,
        func.coalesce(
            select(func.max(credentials.c.generation)).where(credentials.c.resource_id == resources.c.id).scalar_subquery(), 0
        ).label("generations"),
        exists(select(rotations.c.id).where(rotations.c.resource_id == resources.c.id, text(f"rotations.{OPEN}"))).label("under_way"),
    )
    .join(
        resource_revisions,
        and_(resource_revisions.c.resource_id == resources.c.id, resource_revisions.c.revision == resources.c.revision),
    )
    .where(resources.c.server == bindparam("on_server"), resources.c.state != text("'gone'"))
    .order_by(resources.c.id)
)
# The release before writes no prefix.
NAMED = or_(resources.c.login_prefix.in_(bindparam("prefixes", expanding=True)), resources.c.login_prefix.is_(None))
LOCKED = (
    select(credentials.c.id)
    .where(credentials.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(credentials.c.id)
    .with_for_update(key_share=True)
)
_noted = update(credentials).where(credentials.c.id.in_(bindparam("ids", expanding=True)))
NOTE_TRIED = _noted.values(tried_at=bindparam("noted_at", type_=UtcTime()))
NOTE_ASTRAY = _noted.where(credentials.c.astray_at.is_(None)).values(astray_at=bindparam("noted_at", type_=UtcTime()))


def _unsent(now: Moment, _until: Moment) -> Select[tuple[str]]:
    return select(credentials.c.id).where(credentials.c.id.in_(bindparam("ids", expanding=True)), unsent(credentials, now))


def _hint(now: Moment, until: Moment) -> ReturningUpdate[tuple[str]]:
    return _noted.where(unsent(credentials, now)).values(hinted_until=until).returning(credentials.c.id)


UNSENT = per_dialect(_unsent)
HINT = per_dialect(_hint)
LEAVE = (
    update(credentials)
    .where(credentials.c.id == bindparam("row_id"), credentials.c.mending_until == bindparam("begun_until", type_=UtcTime()))
    .values(mending_until=None)
)
END = (
    update(credentials)
    .where(credentials.c.id == bindparam("row_id"), credentials.c.astray_at.is_not(None))
    .values(astray_at=None)
    .returning(credentials.c.id)
)


def _begin(now: Moment, until: Moment) -> ReturningUpdate[tuple[object, ...]]:
    unclaimed = or_(credentials.c.claimed_until.is_(None), credentials.c.claimed_until <= now)
    mending = credentials.c.mending_until
    # One that would last longer than any does was begun by a clock that was ahead: it is over by the time that is written now.
    nobodys = or_(mending.is_(None), mending <= now, mending > until)
    return (
        update(credentials)
        .where(credentials.c.id == bindparam("row_id"), credentials.c.astray_at.is_not(None), unclaimed, nobodys)
        .values(mending_until=until, hinted_until=None)
        .returning(credentials)
    )


BEGIN = per_dialect(_begin)
LOOKED = update(servers).where(servers.c.name == bindparam("of_server")).values(orphans=bindparam("found"))


def owed_logins(database: Database, server: str) -> tuple[Credential, ...]:
    """As in the port: one statement a server, for all its logins."""
    with database.reading() as connection:
        now = database.now_in(connection)
        rows = connection.execute(OWED, {"on_server": server}).mappings()
        found = ((credential_of(row), bool(row["made"])) for row in rows)
        return tuple(one for one, made in found if is_owed(one, now, made=made))


def credentials_by_id(database: Database, ids: Sequence[str], server: str, usernames: Sequence[str]) -> tuple[Credential, ...]:
    """As in the port."""
    with database.reading() as connection:
        rows = [row for some in _batches(ids) for row in connection.execute(BY_ID, {"ids": some}).mappings()]
        for some in _batches(usernames):
            rows += connection.execute(BY_NAME, {"on_server": server, "names": some}).mappings()
    return tuple({row["id"]: credential_of(row) for row in rows}.values())


def standings(database: Database, server: str, prefixes: Sequence[str] | None) -> tuple[Standing, ...]:
    """As in the port."""
    with database.reading() as connection:
        place = connection.execute(select(servers).where(servers.c.name == server)).mappings().one_or_none()
        if place is None:
            return ()
        wanted = {"on_server": server}
        asked = STANDINGS if prefixes is None else STANDINGS.where(NAMED)
        rows = connection.execute(asked, wanted if prefixes is None else {**wanted, "prefixes": list(prefixes)}).mappings()
        return tuple(
            Standing(
                Resource(
                    id=row["id"],
                    state=ResourceState(row["state"]),
                    revision=row["revision"],
                    spec=spec_from_json(row["spec"]),
                    server=server_of(place),
                    schedule=schedule_of(row),
                    held_because=row["held_because"] or "",
                    held_over_pause=bool(row["held_over_pause"]),
                ),
                row["generations"],
                bool(row["under_way"]),
            )
            for row in rows
        )


def note_look(database: Database, server: str, orphans: int, again: timedelta | None) -> None:
    """As in the port."""
    with database.writing() as connection:
        now = database.now_in(connection)
        times = {"looked_at": now} if again is None else {"looked_at": now, "looks_until": now + again}
        connection.execute(LOOKED.values(times), {"of_server": server, "found": orphans})


def note(database: Database, statement: Update, ids: Iterable[str]) -> None:
    """Write a time on credentials, a batch a transaction. Their rows are locked in one order for everyone, as a move locks them."""
    for some in _batches(ids):
        with database.writing() as connection:
            connection.execute(LOCKED, {"ids": some})
            connection.execute(statement, {"ids": some, "noted_at": database.now_in(connection)})


def hint(database: Database, ids: Sequence[str], limit: int, lasting: timedelta) -> tuple[str, ...]:
    """As in the port. Rows are locked as for `note`."""
    with database.reading() as connection:
        statement, now = UNSENT[database.dialect], database.moment()
        free = {row.id for some in _batches(ids) for row in connection.execute(statement, {"ids": some, **now})}
    chosen = [one for one in ids if one in free][:limit]
    sent: set[str] = set()
    for some in _batches(chosen):
        with database.writing() as connection:
            connection.execute(LOCKED, {"ids": some})
            sent.update(connection.scalars(HINT[database.dialect], {"ids": some, **database.moment(lasting)}))
    return tuple(one for one in chosen if one in sent)


def begin_mending(
    database: Database, audit: AuditTrail, credential_id: str, lasting: timedelta, claim: Callable[[int], Claim]
) -> CredentialCase | None:
    """As in the port. The resource is locked as for a request, so that all of it is read as it is now."""
    with database.writing() as connection:
        resource_id = connection.scalar(select(credentials.c.resource_id).where(credentials.c.id == credential_id))
        if resource_id is None:
            return None
        end = audit.lock(database, connection, resource_id)
        case = read_resource_case(connection, resource_id, None, end.now)
        if not may_be_mended(_credential(connection, credential_id), case):
            return None
        row = connection.execute(BEGIN[database.dialect], {"row_id": credential_id, **database.moment(lasting)}).mappings().one_or_none()
        if row is None:
            return None
        credential = credential_of(row)
        others = tuple(credential if one.id == credential_id else one for one in case.credentials)
        return CredentialCase(claim(credential.fence), end.now, credential, case.resource, others, end.length, end.head)


def leave_mending(database: Database, credential: Credential) -> None:
    """As in the port."""
    with database.writing() as connection:
        connection.execute(LEAVE, {"row_id": credential.id, "begun_until": credential.mending_until})


def end_mending(database: Database, audit: AuditTrail, credential_id: str, event: Event | None) -> bool:
    """As in the port."""
    with database.writing() as connection:
        resource_id = connection.scalar(select(credentials.c.resource_id).where(credentials.c.id == credential_id))
        if resource_id is None:
            return False
        end = audit.lock(database, connection, resource_id)
        if connection.execute(END, {"row_id": credential_id}).one_or_none() is None:
            return False
        if event is not None:
            audit.append(connection, end, event, None, credential_id)
    return True


def _credential(connection: Connection, credential_id: str) -> Credential:
    return credential_of(connection.execute(BY_ID, {"ids": [credential_id]}).mappings().one())


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(sorted(ids))
    while batch := list(islice(remaining, AT_ONCE)):
        yield batch
