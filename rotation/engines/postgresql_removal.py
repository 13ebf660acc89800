"""Removing a login: no new sessions, no open ones, nothing that depends on it, and then the role itself.

Open sessions survive NOLOGIN and even DROP ROLE; one whose role was dropped breaks, and shows no user name any more. Hence the order,
and looking for sessions by the role's number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from rotation.engines.postgresql_admin import PreparedQuery
from rotation.engines.postgresql_roles import read_roles, roles_of, roles_query
from rotation.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rotation.cases import Deadline
    from rotation.engines.postgresql_admin import AdminSession, AdminSessions
    from rotation.engines.postgresql_roles import Role
    from rotation.model import Resource

ONE_WAIT = 1.0
"""Seconds for which the server itself waits for the end of a session that it was told to end."""

LOCK_SECONDS = 2.0
"""How long a change of owners waits for a table: others queue up behind it."""

GRANTS_OPTIONS = 160000
"""WITH INHERIT and SET came with PostgreSQL 16."""

END = sql.SQL("SELECT pg_terminate_backend(pid, {wait}) FROM pg_stat_get_activity(NULL) WHERE {whose}")
"""The function behind pg_stat_activity: planning that view's joins takes three times as long as all else."""
OF_ROLE = sql.SQL("usesysid = {oid}")
OF_NOBODY = sql.SQL(
    "datid = (SELECT oid FROM pg_database WHERE datname = {database}) AND usesysid IS NOT NULL"
    " AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = usesysid)"
)
SESSIONS_OF = PreparedQuery(
    "rollover_sessions_of",
    1,
    "SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE usesysid = (SELECT oid FROM pg_roles WHERE rolname = $1)",
)
IS_STILL = sql.SQL("SELECT 1 / (oid = {oid})::int FROM pg_roles WHERE rolname = {role}")
"""Division by zero is what undoes an act."""
HOLDS = sql.SQL("SELECT pg_has_role({role}, 'USAGE')")


@dataclass(frozen=True, slots=True)
class Found:
    """A login as it is before its removal: its role, and how many sessions are open."""

    role: Role
    sessions: int

    @property
    def is_bare(self) -> bool:
        """Whether nothing is left but the role, as it mostly is: it has been blocked for a while, and the owner owns what it made."""
        return not (self.role.can_log_in or self.role.held or self.sessions)


def find_login(session: AdminSession, name: str) -> Found | None:
    """The login, read in one message; None when there is none."""
    queries = (roles_query(session, name), session.asking(SESSIONS_OF, name))
    roles, ((sessions,),) = session.rows_of("look at a login", *queries)
    role = roles_of(roles).get(name)
    return None if role is None else Found(role, sessions)


def remove_login(admin: AdminSessions, resource: Resource, found: Found, deadline: Deadline) -> None:
    """Afterwards the role is gone with its sessions, and what it owned is the owner's."""
    role = found.role
    whose = OF_ROLE.format(oid=sql.Literal(role.oid))
    if not found.is_bare:
        _strip(admin, resource, role, whose, deadline)
    with admin.session(resource.server, deadline) as session:
        session.act("remove a login", [is_still(role), drop(role.name)])
        # One that had passed the door before it was shut shows up only now.
        _end_sessions(session, whose)


def _strip(admin: AdminSessions, resource: Resource, role: Role, whose: sql.Composed, deadline: Deadline) -> None:
    """Afterwards the role has no session and nothing depends on it."""
    with admin.session(resource.server, deadline) as session:
        if role.can_log_in:
            session.act("block a login", [block(role.name), is_still(role)])
        _end_sessions(session, whose)
        # Looked at again: the sessions that have ended may have left something.
        held = [one for found in read_roles(session, role.name).values() for one in found.held]
        if held and not holds(session, role.name):
            session.act("hold a login's rights", [take_rights(session, role.name)])
    # A connection at a time: two held at once by every thread would wait for each other.
    for database in sorted({one.database or resource.spec.database.name for one in held}):
        with admin.session(resource.server, deadline, database) as session:
            statements = list(hand_over(role.name, resource.spec.database.owner_role))
            session.act("hand over what a login owns", statements, lock_seconds=LOCK_SECONDS)


def end_nameless_sessions(session: AdminSession, database: str) -> None:
    """End the sessions in this database whose role was dropped under them: an earlier removal stopped half-way."""
    _end_sessions(session, OF_NOBODY.format(database=sql.Literal(database)))


def holds(session: AdminSession, name: str) -> bool:
    """Whether the admin has the rights of the role, as REASSIGN and DROP OWNED want it."""
    held: bool = session.rows("look at the admin's rights", HOLDS.format(role=sql.Literal(name)))[0][0]
    return held


def take_rights(session: AdminSession, name: str) -> sql.Composed:
    """The statement by which the admin, who made the role, gets its rights."""
    options = " WITH INHERIT TRUE, SET TRUE" if session.version >= GRANTS_OPTIONS else ""
    return sql.SQL("GRANT {role} TO CURRENT_USER{options}").format(role=sql.Identifier(name), options=sql.SQL(options))


def reassign(name: str, owner: str) -> sql.Composed:
    """All that a role owns in one database, and databases and tablespaces, becomes the owner's."""
    return sql.SQL("REASSIGN OWNED BY {role} TO {owner}").format(role=sql.Identifier(name), owner=sql.Identifier(owner))


def block(name: str) -> sql.Composed:
    """No new session of the role; open ones go on."""
    return sql.SQL("ALTER ROLE {role} NOLOGIN").format(role=sql.Identifier(name))


def unblock(name: str) -> sql.Composed:
    """New sessions of the role are let in again."""
    return sql.SQL("ALTER ROLE {role} LOGIN").format(role=sql.Identifier(name))


def is_still(role: Role) -> sql.Composed:
    """In one transaction with a change of the role: undoes it where another has got the name since it was read."""
    return IS_STILL.format(oid=sql.Literal(role.oid), role=sql.Literal(role.name))


def drop(name: str) -> sql.Composed:
    """The role itself goes."""
    return sql.SQL("DROP ROLE {role}").format(role=sql.Identifier(name))


def hand_over(name: str, owner: str) -> Iterator[sql.Composed]:
    """In one database, all that depends on the role is the owner's, or gone."""
    yield reassign(name, owner)
    yield sql.SQL("DROP OWNED BY {role}").format(role=sql.Identifier(name))


def end_of_sessions(whose: sql.Composed, wait: float = ONE_WAIT) -> sql.Composed:
    """Tell the sessions to end; the server itself waits so many seconds for each."""
    return END.format(wait=sql.Literal(max(int(wait * 1000), 1)), whose=whose)


def _end_sessions(session: AdminSession, whose: sql.Composed) -> None:
    while True:
        if not session.act("end sessions", [end_of_sessions(whose, min(ONE_WAIT, session.left() / 2))]):
            return
        if session.left() <= 0:
            raise Unavailable("a login's sessions have not ended in time")
