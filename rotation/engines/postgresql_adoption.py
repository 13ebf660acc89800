"""Adopting the login that is in use now: what it owns becomes the owner group's, while its applications go on working.

The order is what keeps them working, ALTER TABLE included. First the login becomes a member of the owner, committed: from then on it may
work with what the owner owns. Then its objects change hands, database by database, the resource's own last; and in that last transaction
the login begins to act as the owner, since a session that did so earlier would not be let at its own tables. REASSIGN OWNED alone would
make the application fail at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from rotation.engines.postgresql_grants import direct_rights, move_defaults, unsettable
from rotation.engines.postgresql_removal import GRANTS_OPTIONS, LOCK_SECONDS, holds, reassign, take_rights
from rotation.engines.postgresql_roles import Setting, list_elements, read_roles, set_for_role
from rotation.errors import Fault, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rotation.cases import Deadline
    from rotation.engines.postgresql_admin import AdminSession, AdminSessions
    from rotation.engines.postgresql_roles import Role
    from rotation.model import Resource

ATTRIBUTES = sql.SQL("""
SELECT rolname::text, ARRAY[rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls] FROM pg_roles WHERE rolname IN ({names})""")
ATTRIBUTE_NAMES = ("SUPERUSER", "CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS")

BELONGS = sql.SQL("SELECT pg_has_role({role}, {owner}, {kind})")

MAY_GRANT = sql.SQL("SELECT pg_has_role({role}, 'USAGE WITH ADMIN OPTION')")

SEARCH_PATH = sql.SQL("""
SELECT coalesce(
    (SELECT substr(one, strpos(one, '=') + 1)
       FROM pg_db_role_setting s, unnest(s.setconfig) AS one
      WHERE s.setrole IN (0, {oid}) AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        AND one LIKE 'search\\_path=%'
      ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1),
    (SELECT reset_val FROM pg_settings WHERE name = 'search_path'))
 WHERE EXISTS (SELECT FROM pg_namespace WHERE nspname = {role})""")
"""The search path with which the role begins in this database, where a schema has its name: the role's own setting, else that of all."""

USER_SCHEMA = "$user"


@dataclass(frozen=True, slots=True)
class Part:
    """Statements that are run in one transaction in one database; None is the admin's usual one."""

    database: str | None
    statements: tuple[sql.Composed, ...]


def adopt(admin: AdminSessions, resource: Resource, username: str, deadline: Deadline, *, dry_run: bool) -> tuple[str, ...]:
    """The statements, in order; with `dry_run` none of them is run. Nothing is left to do: none.

    Raises `Refused` with all that stands in the way, each with its SQL; `Unavailable` when a table is locked: it may be called again.
    """
    admin.clocks.expect_time(resource.server, deadline, "adopt a login")
    parts = _plan(admin, resource, username, deadline)
    if not dry_run:
        for part in parts:
            with admin.session(resource.server, deadline, part.database) as session:
                session.act("adopt a login", part.statements, lock_seconds=LOCK_SECONDS)
    return tuple(_shown(part.database, statement) for part in parts for statement in part.statements)


def _shown(database: str | None, statement: sql.Composed) -> str:
    return statement.as_string() if database is None else f"/* in {database} */ {statement.as_string()}"


def _plan(admin: AdminSessions, resource: Resource, username: str, deadline: Deadline) -> list[Part]:
    own, owner_name = resource.spec.database.name, resource.spec.database.owner_role
    with admin.session(resource.server, deadline) as session:
        role, owner = _both(session, resource, username)
        faults = [*_standing_in_the_way(session, admin.username(resource.server), role, owner), *unsettable(session, username)]
        joining = tuple(_joining(session, role, owner_name))
    parts = [Part(None, joining)]
    for database in sorted({own, *(one.database or own for one in role.held)}, key=lambda name: (name == own, name)):
        owns = any(one.kind == "o" and (one.database or own) == database for one in role.held)
        with admin.session(resource.server, deadline, database) as session:
            faults += direct_rights(session, username, owner_name)
            statements = [*move_defaults(session, username, owner_name), *([reassign(username, owner_name)] if owns else [])]
            statements += _search_path(session, role, database)
        if database == own and role.acts_as != owner_name:
            statements.append(set_for_role(username, Setting("", "role", owner_name)))
        parts.append(Part(database, tuple(statements)))
    if faults:
        raise Refused(
            f"{resource.server.name}: the login {username} cannot be adopted yet: " + "; ".join(fault.problem for fault in faults),
            advice="\n".join(dict.fromkeys(fault.advice for fault in faults)),
        )
    return [part for part in parts if part.statements]


def _both(session: AdminSession, resource: Resource, username: str) -> tuple[Role, Role]:
    owner_name = resource.spec.database.owner_role
    known = read_roles(session, username, owner_name)
    if username not in known:
        raise Refused(f"{resource.server.name}: there is no login {username}", advice="name the login that the application uses now")
    if owner_name not in known:
        raise Refused(
            f"{resource.server.name}: the owner group {owner_name} does not exist",
            advice=sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(owner_name)).as_string(),
        )
    return known[username], known[owner_name]


def _joining(session: AdminSession, role: Role, owner: str) -> Iterator[sql.Composed]:
    """Committed before anything changes hands: from then on every session may work with what the owner owns."""
    name = sql.Identifier(role.name)
    if not holds(session, role.name):
        yield take_rights(session, role.name)
    if not role.inherits:
        yield sql.SQL("ALTER ROLE {role} INHERIT").format(role=name)
    options, kinds = "", ["USAGE"]
    if session.version >= GRANTS_OPTIONS:
        options, kinds = " WITH INHERIT TRUE, SET TRUE", ["USAGE", "SET"]
    belongs = [BELONGS.format(role=sql.Literal(role.name), owner=sql.Literal(owner), kind=sql.Literal(kind)) for kind in kinds]
    if owner not in role.memberships or not all(session.rows("read groups", query)[0][0] for query in belongs):
        yield sql.SQL("GRANT {owner} TO {role}{options}").format(owner=sql.Identifier(owner), role=name, options=sql.SQL(options))


def _search_path(session: AdminSession, role: Role, database: str) -> Iterator[sql.Composed]:
    """Who acts as the owner finds the owner's schema under `$user`, no more the one named after the login: it is named in full."""
    query = SEARCH_PATH.format(oid=sql.Literal(role.oid), role=sql.Literal(role.name))
    for (value,) in session.rows("read the search path", query):
        names = list_elements(value)
        if USER_SCHEMA in names:
            full = ", ".join('"' + (role.name if name == USER_SCHEMA else name).replace('"', '""') + '"' for name in names)
            yield set_for_role(role.name, Setting(database, "search_path", full))


def _standing_in_the_way(session: AdminSession, admin: str, role: Role, owner: Role) -> Iterator[Fault]:
    names = {key: sql.Identifier(name).as_string() for key, name in {"admin": admin, "role": role.name, "owner": owner.name}.items()}
    if owner.can_log_in:
        yield Fault(owner.name, f"the owner group {owner.name} may log in", f"ALTER ROLE {names['owner']} NOLOGIN;")
    attributes: dict[str, list[bool]] = dict(
        session.rows("read roles", ATTRIBUTES.format(names=sql.SQL(", ").join(map(sql.Literal, (role.name, owner.name)))))
    )
    for word, needed, there in zip(ATTRIBUTE_NAMES, attributes[role.name], attributes[owner.name], strict=True):
        if needed and not there:
            yield Fault(
                role.name,
                f"{role.name} is {word}, which is dead once it acts as {owner.name}",
                f"ALTER ROLE {names['owner']} {word}; -- or ALTER ROLE {names['role']} NO{word};",
            )
    for group in role.memberships:
        if group != owner.name and group not in owner.memberships:
            yield Fault(
                role.name, f"{owner.name} is not a member of {group}", f"GRANT {sql.Identifier(group).as_string()} TO {names['owner']};"
            )
    for name, word in ((role.name, "role"), (owner.name, "owner")):
        options = " WITH ADMIN OPTION"
        if session.version >= GRANTS_OPTIONS:
            options = " WITH ADMIN TRUE, INHERIT TRUE, SET TRUE"
            if not session.rows("look at the admin's rights", MAY_GRANT.format(role=sql.Literal(name)))[0][0]:
                yield Fault(admin, f"the admin does not hold {name}", f"GRANT {names[word]} TO {names['admin']}{options};")
        elif word == "owner" and not holds(session, name):
            yield Fault(admin, f"the admin does not hold {name}", f"GRANT {names[word]} TO {names['admin']}{options};")
