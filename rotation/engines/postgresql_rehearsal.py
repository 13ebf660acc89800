"""What a rotation would send to a server, as text: the same statements, made by the same functions, and none of them sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from rotation.engines.postgresql_removal import OF_ROLE, block, drop, end_of_sessions, hand_over, holds, take_rights
from rotation.engines.postgresql_roles import make_role, read_roles
from rotation.errors import Refused, Unavailable
from rotation.sensitive import Sensitive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rotation.cases import Deadline
    from rotation.engines.postgresql_admin import AdminSession, AdminSessions
    from rotation.engines.postgresql_roles import Role
    from rotation.model import Resource

NO_VERIFIER = Sensitive("SCRAM-SHA-256$…")
NO_MARKER = "rollover:…"


def rehearse(admin: AdminSessions, resource: Resource, username: str, like: str | None, deadline: Deadline) -> Iterator[str]:
    """As the port says. What `like` owns decides in which databases it is handed over."""
    owner = resource.spec.database.owner_role
    if admin.left(deadline) <= 0:  # a first login asks the server nothing, so nothing else would find out
        raise Unavailable(f"{resource.server.name}: no time is left for a rehearsal")
    with admin.session(resource.server, deadline) as session:
        model = read_roles(session, like).get(like) if like else None
        if like and model is None:
            raise Refused(f"{resource.server.name}: the login {like}, which the new one is to be like, does not exist")
        for statement in make_role(username, owner, NO_VERIFIER, NO_MARKER, model):
            yield statement.as_string()
        if model is not None:
            yield from _removal(session, model, owner, resource.spec.database.name)


def _removal(session: AdminSession, role: Role, owner: str, database: str) -> Iterator[str]:
    if role.can_log_in:
        yield block(role.name).as_string()
    yield end_of_sessions(OF_ROLE.format(oid=sql.Literal(role.oid))).as_string()
    if role.held and not holds(session, role.name):
        yield take_rights(session, role.name).as_string()
    for place in sorted({one.database or database for one in role.held}):
        for statement in hand_over(role.name, owner):
            yield f"/* in {place} */ {statement.as_string()}"
    yield drop(role.name).as_string()
