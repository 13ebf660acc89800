"""Databases on a private PostgreSQL, as a provider keeps them: an admin that may make logins, and an owner group for each tenant."""

from __future__ import annotations

import itertools
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from rotation.cases import Deadline
from rotation.engines.postgresql import AdminLogin, PostgresqlEngine
from rotation.model import Credential, Database, Login, Resource, ResourceSpec, SecretTemplate, Server
from rotation.sensitive import Sensitive
from rotation.states import ResourceState, Stage
from tests.fakes.sealer import FakeSealer

if TYPE_CHECKING:
    from psycopg.rows import TupleRow

    from rotation.model import Endpoint, Minted
    from worker.sandbox.postgresql import PrivatePostgresql

ADMIN = "rollover_admin"
TEMPLATE = SecretTemplate("DATABASE_URL", "postgresql://{username}:{password}@{host}:{port}/{database}")
_numbers = itertools.count(1)


class SystemClock:
    """This machine's clocks as they are."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class SystemEntropy:
    def bytes(self, count: int) -> bytes:
        return os.urandom(count)


def within(seconds: float = 20.0) -> Deadline:
    return Deadline(time.monotonic() + seconds)


def as_superuser(server: PrivatePostgresql, *statements: str, database: str = "postgres") -> list[TupleRow]:
    """Run them, each committed; the rows of the last one."""
    rows: list[TupleRow] = []
    with psycopg.connect(server.superuser_url(database), autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(sql.SQL(statement))  # statements of tests
            rows = cursor.fetchall() if cursor.description else []
    return rows


def as_login(server: PrivatePostgresql, database: str, login: Login) -> psycopg.Connection[TupleRow]:
    """A session of a customer's application."""
    return psycopg.connect(
        host=server.host,
        port=server.port,
        dbname=database,
        user=login.username,
        password=login.password.reveal(),
        application_name="app",
        autocommit=True,
        connect_timeout=10,
    )


def logs_in(server: PrivatePostgresql, database: str, username: str, password: str) -> bool:
    try:
        as_login(server, database, Login(username, Sensitive(password))).close()
    except psycopg.OperationalError:
        return False
    return True


def prepare_admin(server: PrivatePostgresql) -> AdminLogin:
    """The admin login of the server, with every right that preflight wants; made once."""
    if not as_superuser(server, "SELECT 1 FROM pg_roles WHERE rolname = 'rollover_admin'"):
        as_superuser(
            server,
            f"CREATE ROLE {ADMIN} LOGIN CREATEROLE PASSWORD 'admin of tests'",
            f"GRANT pg_monitor, pg_signal_backend TO {ADMIN}",
        )
    return AdminLogin(ADMIN, Sensitive("admin of tests"))


def engine_for(server: PrivatePostgresql, *, clock: SystemClock | None = None, allow_private_hosts: bool = True) -> PostgresqlEngine:
    admin = prepare_admin(server)
    return PostgresqlEngine(lambda _: admin, FakeSealer(), clock or SystemClock(), allow_private_hosts=allow_private_hosts)


def new_tenant(
    server: PrivatePostgresql,
    name: str = "",
    *,
    endpoints: tuple[Endpoint, ...] = (),
    secrets: tuple[SecretTemplate, ...] = (TEMPLATE,),
    connections: int = 8,
) -> Resource:
    """A database of its own with its owner group, held by the admin, as a resource that has no login yet."""
    name = name or f"tenant{next(_numbers)}"
    prepare_admin(server)
    as_superuser(
        server,
        f"CREATE ROLE {name}_owner NOLOGIN",
        f"GRANT {name}_owner TO {ADMIN} WITH ADMIN OPTION",
        f"CREATE DATABASE {name} OWNER {name}_owner",
    )
    return Resource(
        f"id of {name}",
        ResourceState.ACTIVE,
        1,
        ResourceSpec(
            "icfg_1",
            f"store_{name}",
            "postgres",
            "postgresql",
            owns_all_secrets=True,
            database=Database("pg", name, f"{name}_owner", name, endpoints),
            secrets=secrets,
        ),
        Server("pg", "postgresql", server.host, server.port, sslmode="disable", connections=connections),
    )


def credential_of(
    resource: Resource, minted: Minted | Login, generation: int, *, adopted: bool = False, credential_id: str = ""
) -> Credential:
    return Credential(
        credential_id or f"credential of {minted.username}",
        resource.id,
        generation,
        minted.username,
        Stage.PENDING,
        None,
        None,
        datetime.now(UTC),
        adopted=adopted,
    )
