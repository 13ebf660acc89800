"""Everything that would stop a rotation on a server, found before it begins, each with the SQL that mends it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from psycopg import sql

from rotation.engines.postgresql_grants import direct_rights, unsettable
from rotation.engines.postgresql_logins import BAD_PASSWORD, Door
from rotation.engines.postgresql_removal import GRANTS_OPTIONS
from rotation.engines.urls import endpoints
from rotation.errors import Fault
from rotation.model import Login
from rotation.sensitive import Sensitive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rotation.cases import Deadline
    from rotation.engines.postgresql_admin import AdminSession, AdminSessions
    from rotation.engines.postgresql_logins import Logins
    from rotation.model import Resource

OLDEST = 150000
SCRAM = "scram-sha-256"

ADMIN = sql.SQL("""
SELECT current_user::text, rolsuper, rolsuper OR rolcreaterole, pg_has_role('pg_read_all_stats', 'USAGE'),
       rolsuper OR pg_has_role('pg_signal_backend', 'USAGE'), current_setting('password_encryption')
  FROM pg_roles WHERE rolname = current_user""")

OWNER = sql.SQL("""
SELECT rolcanlogin, pg_has_role(oid, 'USAGE'), pg_has_role(oid, 'MEMBER WITH ADMIN OPTION'),
       has_database_privilege(oid, current_database(), 'CONNECT')
  FROM pg_roles WHERE rolname = {owner}""")

ACTING = sql.SQL("""
SELECT DISTINCT r.rolname::text FROM pg_roles r JOIN pg_db_role_setting s ON s.setrole = r.oid
 WHERE s.setdatabase = 0 AND {role} = ANY (s.setconfig) AND r.rolcanlogin ORDER BY 1""")
"""The logins that act as the owner: ours, and the adopted one."""


def preflight(admin: AdminSessions, doors: Logins, resource: Resource, deadline: Deadline) -> Iterator[Fault]:
    """The faults, the most basic first. Raises as any act does when the server cannot be asked at all."""
    database = resource.spec.database
    with admin.session(resource.server, deadline, database.name) as session:
        yield from _server_faults(session)
        yield from _owner_faults(session, database.owner_role, database.name)
        for (username,) in session.rows("read logins", ACTING.format(role=sql.Literal(f"role={database.owner_role}"))):
            yield from direct_rights(session, username, database.owner_role)
            yield from unsettable(session, username)
    yield from _trusting(admin, doors, resource, deadline)


def _server_faults(session: AdminSession) -> Iterator[Fault]:
    name, superuser, makes_roles, sees_sessions, ends_sessions, encryption = session.rows("look at the admin's rights", ADMIN)[0]
    admin = sql.Identifier(name).as_string()
    if session.version < OLDEST:
        yield Fault("server", f"is PostgreSQL {session.version // 10000}, older than 15", "upgrade the server")
    if encryption != SCRAM:
        # Poolers in front of such a server take their verifiers from it, and may not know SCRAM.
        yield Fault(
            "server", f"keeps passwords as {encryption}", f"ALTER SYSTEM SET password_encryption = '{SCRAM}'; SELECT pg_reload_conf();"
        )
    if superuser:
        return
    if not makes_roles:
        yield Fault("admin", f"{name} may not make logins", f"ALTER ROLE {admin} CREATEROLE;")
    if not sees_sessions:
        yield Fault("admin", f"{name} cannot see the sessions of others", f"GRANT pg_monitor TO {admin};")
    if not ends_sessions:
        yield Fault("admin", f"{name} cannot end the sessions of others", f"GRANT pg_signal_backend TO {admin};")


def _owner_faults(session: AdminSession, owner: str, database: str) -> Iterator[Fault]:
    rows = session.rows("look at the owner group", OWNER.format(owner=sql.Literal(owner)))
    name = sql.Identifier(owner).as_string()
    (admin,) = session.rows("look at the admin's rights", sql.SQL("SELECT quote_ident(current_user)"))[0]
    options = "WITH ADMIN TRUE, INHERIT TRUE, SET TRUE" if session.version >= GRANTS_OPTIONS else "WITH ADMIN OPTION"
    grant = f"GRANT {name} TO {admin} {options};"
    if not rows:
        yield Fault("owner_role", f"{owner} does not exist", f"CREATE ROLE {name} NOLOGIN; {grant}")
        return
    can_log_in, used, granted, connects = rows[0]
    if can_log_in:
        yield Fault("owner_role", f"{owner} may log in", f"ALTER ROLE {name} NOLOGIN;")
    if not (used and granted):
        yield Fault("admin", f"{admin} does not hold {owner}", grant)
    if not connects:
        yield Fault(
            "owner_role",
            f"{owner} may not connect to {database}",
            f"GRANT CONNECT ON DATABASE {sql.Identifier(database).as_string()} TO {name};",
        )


def _trusting(admin: AdminSessions, doors: Logins, resource: Resource, deadline: Deadline) -> Iterator[Fault]:
    """Where nobody is asked for a password, no login can ever be proved dead: a name that nobody has is tried at the server's own door."""
    nobody = Login(f"rollover_nobody_{secrets.token_hex(8)}", Sensitive(secrets.token_hex(16)))
    place = endpoints(resource)[0]
    code = doors.refusal(Door(resource.server, place, resource.spec.database.name), nobody, admin.time_left(deadline))
    if code != BAD_PASSWORD:
        yield Fault("server", "does not ask these logins for a password", f"pg_hba.conf: a line for them that ends in {SCRAM}")
