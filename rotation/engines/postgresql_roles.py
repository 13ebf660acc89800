"""Roles as PostgreSQL's catalogs show them, and the statements that make and change them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from rotation.engines.postgresql_admin import PreparedQuery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rotation.engines.postgresql_admin import AdminSession, Row
    from rotation.sensitive import Sensitive

LISTS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)
"""Settings whose value is a list of quoted names (pg_dump's variable_is_guc_list_quote, src/bin/pg_dump/dumputils.c)."""

_ELEMENT = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",\s]+))\s*(?:,|$)')

ROLES = PreparedQuery(
    "rollover_roles",
    3,
    """
SELECT r.oid::bigint, r.rolname::text, r.rolcanlogin, r.rolinherit, r.rolconnlimit,
       (SELECT c.description FROM pg_shdescription c WHERE c.objoid = r.oid AND c.classoid = 'pg_authid'::regclass),
       ARRAY(SELECT DISTINCT pg_get_userbyid(m.roleid)::text FROM pg_auth_members m WHERE m.member = r.oid AND m.roleid <> r.oid),
       ARRAY(SELECT ARRAY[coalesce((SELECT d.datname::text FROM pg_database d WHERE d.oid = s.setdatabase), ''), one]
             FROM pg_db_role_setting s, unnest(s.setconfig) AS one WHERE s.setrole = r.oid),
       ARRAY(SELECT ARRAY[coalesce((SELECT d.datname::text FROM pg_database d WHERE d.oid = s.dbid), ''), s.deptype::text, count(*)::text]
             FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid GROUP BY s.dbid, s.deptype)
  FROM pg_roles r WHERE r.rolname IN ($1, $2, $3)""",
)
"""Half the work of the same with shobj_description and joins, most of which was planning; so the lists come as they are, in no order."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One `ALTER ROLE … SET`; `database` is '' where it holds in all."""

    database: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Held:
    """How many objects of one kind depend on a role in one database ('' for what all share): `o` owned, `a` a right, `r` a policy."""

    database: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class Role:
    """One role of a server, with what depends on it in all databases."""

    oid: int
    name: str
    can_log_in: bool
    inherits: bool
    connection_limit: int
    comment: str | None
    memberships: tuple[str, ...]
    settings: tuple[Setting, ...]
    held: tuple[Held, ...]

    @property
    def acts_as(self) -> str | None:
        """The role that its sessions begin as, where that is set for all databases."""
        return next((one.value for one in self.settings if one.name == "role" and not one.database), None)


def read_roles(session: AdminSession, *names: str) -> dict[str, Role]:
    """The roles with these exact names, three at most; those that do not exist are left out."""
    return roles_of(session.rows("read roles", roles_query(session, *names)))


def roles_query(session: AdminSession, *names: str) -> sql.Composed:
    """What `roles_of` takes, to be sent in a message of this session."""
    return session.asking(ROLES, *names, *[names[-1]] * (ROLES.parameters - len(names)))


def roles_of(rows: list[Row]) -> dict[str, Role]:
    """The roles by name."""
    return {row[1]: _role(*row) for row in rows}


def _role(  # noqa: PLR0917 - the columns of a row
    oid: int,
    name: str,
    can_log_in: bool,  # noqa: FBT001 - a column
    inherits: bool,  # noqa: FBT001 - a column
    connection_limit: int,
    comment: str | None,
    memberships: list[str],
    settings: list[list[str]],
    held: list[list[str]],
) -> Role:
    split = ((database, *one.partition("=")) for database, one in sorted(settings))
    return Role(
        oid,
        name,
        can_log_in,
        inherits,
        connection_limit,
        comment,
        tuple(sorted(memberships)),
        tuple(Setting(database, setting, value) for database, setting, _, value in split),
        tuple(Held(database, kind, int(count)) for database, kind, count in sorted(held)),
    )


def wanted_settings(owner: str, like: Role | None) -> tuple[Setting, ...]:
    """What a new login's settings must be: those of `like`, and that it acts as the owner."""
    copied = [one for one in like.settings if one.name != "role"] if like else []
    return (Setting("", "role", owner), *copied)


def make_role(name: str, owner: str, verifier: Sensitive, marker: str, like: Role | None = None) -> Iterator[sql.Composed]:
    """A login that shares its objects with every other of the owner's group. Rights on objects are never given to it:
    each would grow the objects' catalog rows, and at some 2,400 PostgreSQL refuses.
    """
    limit = like.connection_limit if like else -1
    yield sql.SQL("CREATE ROLE {role} LOGIN INHERIT CONNECTION LIMIT {limit} PASSWORD {verifier} IN ROLE {owner}").format(
        role=sql.Identifier(name),
        limit=sql.Literal(limit),
        verifier=sql.Literal(verifier.reveal()),
        owner=sql.Identifier(owner),
    )
    yield sql.SQL("COMMENT ON ROLE {role} IS {marker}").format(role=sql.Identifier(name), marker=sql.Literal(marker))
    for setting in wanted_settings(owner, like):
        yield set_for_role(name, setting)


def mend_role(role: Role, owner: str, verifier: Sensitive, like: Role | None) -> Iterator[sql.Composed]:
    """What makes an existing login the one that `make_role` makes. The verifier is stated always: nobody but a superuser can read it."""
    name = sql.Identifier(role.name)
    attributes = [sql.SQL("PASSWORD {verifier} VALID UNTIL 'infinity'").format(verifier=sql.Literal(verifier.reveal()))]
    if not role.can_log_in:
        attributes.append(sql.SQL("LOGIN").format())
    if not role.inherits:
        attributes.append(sql.SQL("INHERIT").format())
    limit = like.connection_limit if like else (role.connection_limit or -1)
    if role.connection_limit != limit:
        attributes.append(sql.SQL("CONNECTION LIMIT {limit}").format(limit=sql.Literal(limit)))
    yield sql.SQL("ALTER ROLE {role} {attributes}").format(role=name, attributes=sql.SQL(" ").join(attributes))
    if owner not in role.memberships:
        yield sql.SQL("GRANT {owner} TO {role}").format(owner=sql.Identifier(owner), role=name)
    wanted = wanted_settings(owner, like)
    for setting in wanted:
        if setting not in role.settings:
            yield set_for_role(role.name, setting)
    if like:
        kept = {(setting.database, setting.name) for setting in wanted}
        for setting in role.settings:
            if (setting.database, setting.name) not in kept:
                yield reset_for_role(role.name, setting)


def set_for_role(name: str, setting: Setting) -> sql.Composed:
    """`ALTER ROLE … SET`, with lists taken apart: quoted as one, they would be one name."""
    values = list_elements(setting.value) if setting.name in LISTS else [setting.value]
    return sql.SQL("{alter} SET {name} = {value}").format(
        alter=_alter(name, setting),
        name=_setting_name(setting.name),
        value=sql.SQL(", ").join(sql.Literal(value) for value in values),
    )


def reset_for_role(name: str, setting: Setting) -> sql.Composed:
    """`ALTER ROLE … RESET`."""
    return sql.SQL("{alter} RESET {name}").format(alter=_alter(name, setting), name=_setting_name(setting.name))


def list_elements(value: str) -> list[str]:
    """The names of a list setting as it is stored; one empty name for an empty list."""
    return [quoted.replace('""', '"') if quoted else plain for quoted, plain in _ELEMENT.findall(value)] or [""]


def _alter(name: str, setting: Setting) -> sql.Composed:
    place = sql.SQL(" IN DATABASE {}").format(sql.Identifier(setting.database)) if setting.database else sql.SQL("")
    return sql.SQL("ALTER ROLE {role}{place}").format(role=sql.Identifier(name), place=place)


def _setting_name(name: str) -> sql.Identifier:
    """Settings of extensions have two parts."""
    return sql.Identifier(*name.split("."))
