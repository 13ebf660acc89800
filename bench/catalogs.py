"""What a database server keeps of its logins: the rows that rotations must not leave behind, and what its catalogs have become by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT: Mapping[str, LiteralString] = {
    "pg_authid": "SELECT count(*) FROM pg_authid",
    "pg_auth_members": "SELECT count(*) FROM pg_auth_members",
    "pg_shdescription": "SELECT count(*) FROM pg_shdescription",
    "pg_shdepend": "SELECT count(*) FROM pg_shdepend",
    "pg_db_role_setting": "SELECT count(*) FROM pg_db_role_setting",
    "pg_default_acl": "SELECT count(*) FROM pg_default_acl",
    "pg_database.datacl": "SELECT coalesce(sum(cardinality(datacl)), 0) FROM pg_database",
    "pg_class.relacl": "SELECT coalesce(sum(cardinality(relacl)), 0) FROM pg_class",
    "pg_namespace.nspacl": "SELECT coalesce(sum(cardinality(nspacl)), 0) FROM pg_namespace",
}
"""Rows, and entries of access lists. Those that belong to one database are counted in the one that is asked."""

SIZES: LiteralString = """
SELECT relname, pg_relation_size(relid) / 1024.0, n_dead_tup, autovacuum_count
  FROM pg_stat_sys_tables WHERE relname IN ('pg_authid', 'pg_auth_members', 'pg_shdescription', 'pg_shdepend', 'pg_db_role_setting')
 ORDER BY relname"""


def kept(url: str) -> dict[str, int]:
    """How many rows, or entries, there are of each kind."""
    with psycopg.connect(url, autocommit=True) as connection:
        return {name: _number(connection, query) for name, query in KEPT.items()}


def sizes(url: str) -> dict[str, tuple[float, int, int]]:
    """Of each catalog of logins: KiB, dead rows that are still there, how often autovacuum has been at it."""
    with psycopg.connect(url, autocommit=True) as connection:
        return {name: (float(kib), dead, vacuums) for name, kib, dead, vacuums in connection.execute(SIZES)}


def _number(connection: psycopg.Connection, query: LiteralString) -> int:
    row = connection.execute(query).fetchone()
    return 0 if row is None else int(row[0])
