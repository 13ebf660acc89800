"""The rights that a role holds directly on objects, as statements that give them to the owner group instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from rotation.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rotation.engines.postgresql_admin import AdminSession

_ACLS = (
    ("DATABASE", "quote_ident(o.datname)", "pg_database o", "o.datacl", "o.datdba"),
    ("TABLESPACE", "quote_ident(o.spcname)", "pg_tablespace o", "o.spcacl", "o.spcowner"),
    ("SCHEMA", "quote_ident(o.nspname)", "pg_namespace o", "o.nspacl", "o.nspowner"),
    ("TABLE", "o.oid::regclass::text", "pg_class o", "CASE WHEN o.relkind <> 'S' THEN o.relacl END", "o.relowner"),
    ("SEQUENCE", "o.oid::regclass::text", "pg_class o", "CASE WHEN o.relkind = 'S' THEN o.relacl END", "o.relowner"),
    ("ROUTINE", "o.oid::regprocedure::text", "pg_proc o", "o.proacl", "o.proowner"),
    ("TYPE", "o.oid::regtype::text", "pg_type o", "o.typacl", "o.typowner"),
    ("LANGUAGE", "quote_ident(o.lanname)", "pg_language o", "o.lanacl", "o.lanowner"),
    ("LARGE OBJECT", "o.oid::text", "pg_largeobject_metadata o", "o.lomacl", "o.lomowner"),
    ("FOREIGN DATA WRAPPER", "quote_ident(o.fdwname)", "pg_foreign_data_wrapper o", "o.fdwacl", "o.fdwowner"),
    ("FOREIGN SERVER", "quote_ident(o.srvname)", "pg_foreign_server o", "o.srvacl", "o.srvowner"),
)
"""Every catalog with rights: the word that GRANT wants, the object's name, the catalog, its rights, its owner."""

_ONE_ACL = """
SELECT '{word}', {name}, string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type)
  FROM {catalog}, aclexplode({acl}) a, me WHERE a.grantee = me.oid AND {owner} <> me.oid GROUP BY 2"""

_COLUMNS = """
SELECT 'TABLE', c.oid::regclass::text, string_agg(format('%s (%I)', a.privilege_type, o.attname), ', ' ORDER BY a.privilege_type, o.attnum)
  FROM pg_attribute o JOIN pg_class c ON c.oid = o.attrelid, aclexplode(o.attacl) a, me
 WHERE a.grantee = me.oid AND c.relowner <> me.oid GROUP BY 2"""

_RIGHTS = sql.SQL(
    "WITH me AS (SELECT oid FROM pg_roles WHERE rolname = {role}) "  # noqa: S608 - put together from the constants above
    + " UNION ALL ".join(
        [_ONE_ACL.format(word=word, name=name, catalog=catalog, acl=acl, owner=owner) for word, name, catalog, acl, owner in _ACLS]
        + [_COLUMNS]
    )
    + " ORDER BY 1, 2"
)

_POLICIES = sql.SQL("""
SELECT quote_ident(p.polname), p.polrelid::regclass::text
  FROM pg_policy p JOIN pg_roles r ON r.oid = ANY (p.polroles) WHERE r.rolname = {role} ORDER BY 2, 1""")


def direct_rights(session: AdminSession, username: str, owner: str) -> Iterator[Fault]:
    """What the role may do in this database, and with what all databases share, by rights of its own; each with what replaces it.

    A later generation would lack it, and must not be given it: each right of a login grows the object's catalog row.
    """
    role = sql.Literal(username)
    new, old = (sql.Identifier(name).as_string() for name in (owner, username))
    for word, name, privileges in session.rows("read rights", _RIGHTS.format(role=role)):
        yield Fault(
            username,
            f"holds {privileges} on {word.lower()} {name} directly",
            f"GRANT {privileges} ON {word} {name} TO {new}; REVOKE {privileges} ON {word} {name} FROM {old};",
        )
    for policy, table in session.rows("read policies", _POLICIES.format(role=role)):
        yield Fault(username, f"is named by the policy {policy} on {table}", f"ALTER POLICY {policy} ON {table} TO {new};")


_UNSETTABLE = sql.SQL("""
SELECT DISTINCT n.name FROM pg_roles r JOIN pg_db_role_setting s ON s.setrole = r.oid, unnest(s.setconfig) AS one,
       split_part(one, '=', 1) AS n(name)
 WHERE r.rolname = {role} AND n.name <> 'role' AND NOT has_parameter_privilege(n.name, 'SET')
   AND NOT EXISTS (SELECT FROM pg_settings p WHERE p.name = n.name AND p.context IN ('user', 'backend')) ORDER BY 1""")


def unsettable(session: AdminSession, username: str) -> Iterator[Fault]:
    """The settings of a login that the admin may not give to another: a superuser's, and those of extensions that are not loaded."""
    (admin,) = session.rows("look at the admin's rights", sql.SQL("SELECT quote_ident(current_user)"))[0]
    for (name,) in session.rows("read settings", _UNSETTABLE.format(role=sql.Literal(username))):
        grant = f"GRANT SET ON PARAMETER {sql.Identifier(*name.split('.')).as_string()} TO {admin};"
        yield Fault(username, f"has the setting {name}, which the admin may not copy", grant)


_DEFAULTS = sql.SQL("""
WITH d AS (
  SELECT a.oid, n.nspname, a.defaclobjtype, a.defaclacl, a.defaclrole,
         CASE WHEN a.defaclnamespace = 0
              THEN acldefault(CASE a.defaclobjtype WHEN 'S' THEN 's' ELSE a.defaclobjtype END, a.defaclrole) END AS usual
    FROM pg_default_acl a JOIN pg_roles r ON r.oid = a.defaclrole LEFT JOIN pg_namespace n ON n.oid = a.defaclnamespace
   WHERE r.rolname = {role})
SELECT d.nspname::text, d.defaclobjtype::text, 'GRANT', x.privilege_type, g.rolname::text, x.is_grantable, x.grantee = d.defaclrole
  FROM d, aclexplode(d.defaclacl) x LEFT JOIN pg_roles g ON g.oid = x.grantee
 WHERE NOT EXISTS (SELECT FROM aclexplode(d.usual) u WHERE (u.grantee, u.privilege_type) = (x.grantee, x.privilege_type))
 UNION ALL
SELECT d.nspname::text, d.defaclobjtype::text, 'REVOKE', u.privilege_type, g.rolname::text, false, u.grantee = d.defaclrole
  FROM d, aclexplode(d.usual) u LEFT JOIN pg_roles g ON g.oid = u.grantee
 WHERE NOT EXISTS (SELECT FROM aclexplode(d.defaclacl) x WHERE (u.grantee, u.privilege_type) = (x.grantee, x.privilege_type))
 ORDER BY 1, 2, 3, 4, 5""")
"""How the default privileges of a role differ from PostgreSQL's own; those of one schema add to the others (catalog pg_default_acl)."""

_OBJECTS = {"r": "TABLES", "S": "SEQUENCES", "f": "FUNCTIONS", "T": "TYPES", "n": "SCHEMAS", "L": "LARGE OBJECTS"}


def move_defaults(session: AdminSession, username: str, owner: str) -> Iterator[sql.Composed]:
    """The statements that give the owner the default privileges of the role, and take them from the role: REASSIGN OWNED leaves them."""
    for schema, kind, verb, privilege, grantee, grantable, own in session.rows(
        "read defaults", _DEFAULTS.format(role=sql.Literal(username))
    ):
        for role, word in ((owner, verb), (username, "REVOKE" if verb == "GRANT" else "GRANT")):
            to = sql.Identifier(role if own else grantee) if own or grantee else sql.SQL("PUBLIC")
            yield sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {role}{place} {word} {privilege} ON {objects} {by} {to}{option}").format(
                role=sql.Identifier(role),
                place=sql.SQL(" IN SCHEMA {}").format(sql.Identifier(schema)) if schema else sql.SQL(""),
                word=sql.SQL(word),
                privilege=sql.SQL(privilege),
                objects=sql.SQL(_OBJECTS[kind]),
                by=sql.SQL("TO" if word == "GRANT" else "FROM"),
                to=to,
                option=sql.SQL(" WITH GRANT OPTION" if grantable and word == "GRANT" else ""),
            )
