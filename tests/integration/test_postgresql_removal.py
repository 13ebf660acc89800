"""Removing logins that are in use, own things, or are not ours, on each version of PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from rotation.errors import Refused, Unavailable
from rotation.model import Login
from tests.postgresql_tenants import (
    ADMIN,
    SystemEntropy,
    as_login,
    as_superuser,
    credential_of,
    engine_for,
    logs_in,
    new_tenant,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg.rows import TupleRow

    from rotation.engines.postgresql import PostgresqlEngine
    from rotation.model import Credential, Resource
    from worker.sandbox.postgresql import PrivatePostgresql

ENTROPY = SystemEntropy()


class Tenant:
    """A resource with a login of ours."""

    def __init__(self, server: PrivatePostgresql, engine: PostgresqlEngine) -> None:
        self.server = server
        self.engine = engine
        self.resource: Resource = new_tenant(server)
        self.database = self.resource.spec.database.name
        self.owner = self.resource.spec.database.owner_role
        self.root(f"GRANT CREATE ON SCHEMA public TO {self.owner}")
        self.credential, self.login = self.admit(1)

    def admit(self, generation: int, like: str | None = None) -> tuple[Credential, Login]:
        minted = self.engine.mint(self.resource, generation, ENTROPY)
        credential = credential_of(self.resource, minted, generation)
        self.engine.admit(self.resource, credential, minted.verifier, like, within())
        return credential, Login(minted.username, minted.password)

    def withdraw(self, seconds: float = 20.0) -> None:
        self.engine.withdraw(self.resource, self.credential, (), within(seconds))

    def root(self, *statements: str, database: str = "") -> list[TupleRow]:
        return as_superuser(self.server, *statements, database=database or self.database)

    def session(self, login: Login | None = None) -> psycopg.Connection[TupleRow]:
        return as_login(self.server, self.database, login or self.login)


@pytest.fixture
def engine(postgresql_any: PrivatePostgresql) -> Iterator[PostgresqlEngine]:
    engine = engine_for(postgresql_any)
    yield engine
    engine.close()


@pytest.fixture
def tenant(postgresql_any: PrivatePostgresql, engine: PostgresqlEngine) -> Tenant:
    return Tenant(postgresql_any, engine)


def test_sessions_in_the_middle_of_a_transaction_are_ended(tenant: Tenant) -> None:
    session = tenant.session()
    session.autocommit = False
    session.execute("CREATE TABLE half_made (n int)")

    tenant.withdraw()

    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    session.close()

    assert tenant.root("SELECT FROM pg_class WHERE relname = 'half_made'") == []
    assert not logs_in(tenant.server, tenant.database, tenant.login.username, tenant.login.password.reveal())


def test_what_escaped_the_owner_is_handed_over_in_every_database(tenant: Tenant) -> None:
    other = f"{tenant.database}_other"
    tenant.root(f"CREATE DATABASE {other} OWNER {tenant.owner}")
    for database in (tenant.database, other):
        tenant.root(f'GRANT CREATE, USAGE ON SCHEMA public TO "{tenant.login.username}"', database=database)
        with as_login(tenant.server, database, tenant.login) as session:
            # The one way out of the group: what is made so belongs to the login itself.
            session.execute("SET ROLE NONE")
            session.execute("CREATE TABLE escaped (n int)")
    tenant.root(f'GRANT CREATE ON DATABASE {tenant.database} TO "{tenant.login.username}"')

    tenant.withdraw()

    for database in (tenant.database, other):
        assert tenant.root("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'escaped'", database=database) == [(tenant.owner,)]
    assert (tenant.login.username,) not in tenant.root("SELECT rolname FROM pg_roles")


def test_a_table_that_is_locked_delays_the_removal_and_leaves_the_login_blocked(tenant: Tenant) -> None:
    tenant.root(f'GRANT CREATE ON SCHEMA public TO "{tenant.login.username}"')
    with tenant.session() as session:
        session.execute("SET ROLE NONE")
        session.execute("CREATE TABLE escaped (n int)")
    _, other = tenant.admit(2)
    tenant.root(f"GRANT SELECT ON escaped TO {tenant.owner}")
    with tenant.session(other) as reader, reader.transaction():
        reader.execute("SELECT * FROM escaped")
        with pytest.raises(Unavailable, match="55P03"):
            tenant.withdraw()
        assert not logs_in(tenant.server, tenant.database, tenant.login.username, tenant.login.password.reveal())

    tenant.withdraw()
    tenant.engine.prove_refused(tenant.resource, tenant.login, other, within())


def test_a_session_whose_role_somebody_dropped_is_found_and_ended(tenant: Tenant) -> None:
    with tenant.session() as session:
        tenant.root(f'DROP ROLE "{tenant.login.username}"')
        _, control = tenant.admit(2)
        with pytest.raises(Unavailable, match="1 sessions"):
            tenant.engine.prove_refused(tenant.resource, tenant.login, control, within())

        tenant.withdraw()

        tenant.engine.prove_refused(tenant.resource, tenant.login, control, within())
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


def test_one_tenants_removal_leaves_the_other_tenant_alone(tenant: Tenant, engine: PostgresqlEngine) -> None:
    neighbour = Tenant(tenant.server, engine)
    with neighbour.session() as session:
        session.execute("CREATE TABLE theirs (n int)")
        tenant.withdraw()
        session.execute("INSERT INTO theirs VALUES (1)")

    assert logs_in(neighbour.server, neighbour.database, neighbour.login.username, neighbour.login.password.reveal())
    assert neighbour.login.username in {one.username for one in engine.list_logins(neighbour.resource.server, within())}


def test_a_login_that_is_to_be_kept_is_never_removed(tenant: Tenant) -> None:
    with pytest.raises(Refused):
        tenant.engine.withdraw(tenant.resource, tenant.credential, (tenant.login.username,), within())

    assert logs_in(tenant.server, tenant.database, tenant.login.username, tenant.login.password.reveal())


def test_a_copied_mark_on_another_role_is_no_mark(tenant: Tenant) -> None:
    tenant.root(f"COMMENT ON ROLE \"{tenant.login.username}\" IS 'rollover:forged:0123456789abcdef'")

    with pytest.raises(Refused, match="name clash"):
        tenant.withdraw()
    assert tenant.engine.list_logins(tenant.resource.server, within()) == () or all(
        one.username != tenant.login.username for one in tenant.engine.list_logins(tenant.resource.server, within())
    )


def test_what_a_person_changed_on_a_login_is_set_right_by_admitting_it_again(tenant: Tenant) -> None:
    credential, second = tenant.admit(2, like=tenant.login.username)
    name = f'"{second.username}"'
    tenant.root(
        f"ALTER ROLE {name} NOLOGIN NOINHERIT CONNECTION LIMIT 1",
        f"ALTER ROLE {name} RESET role",
        f"ALTER ROLE {name} SET work_mem = '1MB'",
        f"REVOKE {tenant.owner} FROM {name} CASCADE",
    )
    assert tenant.engine.parity(tenant.resource, second.username, tenant.login.username, within())

    minted = tenant.engine.mint(tenant.resource, 2, ENTROPY)
    tenant.engine.admit(tenant.resource, credential, minted.verifier, tenant.login.username, within())

    assert tenant.engine.parity(tenant.resource, second.username, tenant.login.username, within()) == ()
    assert logs_in(tenant.server, tenant.database, second.username, minted.password.reveal())


def test_an_admin_that_lost_its_rights_is_told_so(tenant: Tenant) -> None:
    tenant.root(f"ALTER ROLE {ADMIN} NOCREATEROLE")
    try:
        with pytest.raises(Refused, match="42501") as refused:
            tenant.admit(2)
        assert "resource check" in refused.value.advice
    finally:
        tenant.root(f"ALTER ROLE {ADMIN} CREATEROLE")
