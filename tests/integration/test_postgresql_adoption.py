"""Adopting a login that owns the tables, while its applications go on working, on each version of PostgreSQL."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from rotation.errors import Refused, Unavailable
from rotation.model import Login
from rotation.sensitive import Sensitive
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

    import psycopg
    from psycopg.rows import TupleRow

    from rotation.engines.postgresql import PostgresqlEngine
    from rotation.model import Resource
    from worker.sandbox.postgresql import PrivatePostgresql

PASSWORD = "chosen by a person long ago"
_numbers = itertools.count(1)


class Customer:
    """A database whose tables are owned by the login that the application uses, as most begin."""

    def __init__(self, server: PrivatePostgresql) -> None:
        self.server = server
        self.engine: PostgresqlEngine = engine_for(server)
        self.resource: Resource = new_tenant(server)
        self.database = self.resource.spec.database.name
        self.owner = self.resource.spec.database.owner_role
        self.login = Login(f"Old-App {next(_numbers)}", Sensitive(PASSWORD))
        self.name = f'"{self.login.username}"'
        as_superuser(
            server,
            f"CREATE ROLE {self.name} LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 20",
            f"GRANT {self.name} TO {ADMIN} WITH ADMIN OPTION",
            f"GRANT CREATE ON SCHEMA public TO {self.owner}",
            database=self.database,
        )
        as_superuser(server, f"CREATE TABLE orders (n int); ALTER TABLE orders OWNER TO {self.name}", database=self.database)

    def session(self, login: Login | None = None) -> psycopg.Connection[TupleRow]:
        return as_login(self.server, self.database, login or self.login)

    def root(self, *statements: str, database: str = "") -> list[TupleRow]:
        return as_superuser(self.server, *statements, database=database or self.database)

    def adopt(self, *, dry_run: bool = False, seconds: float = 20.0) -> tuple[str, ...]:
        return self.engine.adopt(self.resource, self.login.username, within(seconds), dry_run=dry_run)

    def next_generation(self, generation: int = 2) -> Login:
        minted = self.engine.mint(self.resource, generation, SystemEntropy())
        credential = credential_of(self.resource, minted, generation)
        self.engine.admit(self.resource, credential, minted.verifier, self.login.username, within())
        return Login(minted.username, minted.password)

    def parity(self, login: Login) -> list[str]:
        return [str(fault) for fault in self.engine.parity(self.resource, login.username, self.login.username, within())]


@pytest.fixture
def customer(postgresql_any: PrivatePostgresql) -> Iterator[Customer]:
    customer = Customer(postgresql_any)
    yield customer
    customer.engine.close()


def works(session: psycopg.Connection[TupleRow], column: str) -> None:
    """All that an application does with a table of its own, changes of its form included."""
    session.execute("INSERT INTO orders (n) VALUES (1)")
    session.execute(f"ALTER TABLE orders ADD COLUMN {column} int")
    session.execute("SELECT * FROM orders")
    session.execute(f"CREATE TABLE made_{column} (n int)")


def test_the_application_works_before_and_after_with_old_and_new_sessions(customer: Customer) -> None:
    with customer.session() as older:
        customer.adopt()
        works(older, "by_an_older_session")
        with customer.session() as newer:
            works(newer, "by_a_newer_session")
            works(older, "by_an_older_session_again")

    (owner,) = customer.root("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'orders'")[0]
    assert owner == customer.owner


def test_after_a_rotation_both_logins_work_with_what_either_of_them_makes(customer: Customer) -> None:
    customer.adopt()
    new = customer.next_generation()

    assert customer.parity(new) == []
    with customer.session() as old_session, customer.session(new) as new_session:
        works(new_session, "by_the_new_one")
        works(old_session, "by_the_old_one")
        old_session.execute("ALTER TABLE made_by_the_new_one ADD COLUMN more int")
        new_session.execute("DROP TABLE made_by_the_old_one")


def test_what_an_older_session_made_meanwhile_is_handed_over_with_the_login(customer: Customer) -> None:
    with customer.session() as older:
        customer.adopt()
        older.execute("CREATE TABLE late (n int)")
    new = customer.next_generation()

    # The older session still acts as itself: parity tells, and adopting again mends it.
    assert customer.parity(new)
    customer.adopt()
    assert customer.parity(new) == []


def test_a_dry_run_says_every_statement_and_changes_nothing(customer: Customer) -> None:
    before = customer.root("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'orders'")

    planned = customer.adopt(dry_run=True)

    assert customer.root("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'orders'") == before
    assert planned[0].startswith(f'GRANT "{customer.owner}" TO {customer.name}')
    assert planned[1:] == (
        f'/* in {customer.database} */ REASSIGN OWNED BY {customer.name} TO "{customer.owner}"',
        f"/* in {customer.database} */ ALTER ROLE {customer.name} SET \"role\" = '{customer.owner}'",
    )
    assert customer.adopt() == planned
    assert customer.adopt() == ()


def test_an_open_select_of_another_application_is_neither_broken_nor_waited_for_too_long(customer: Customer) -> None:
    with customer.session() as reader:
        reader.autocommit = False
        reader.execute("SELECT * FROM orders")
        with pytest.raises(Unavailable, match="55P03"):
            customer.adopt()
        with customer.session() as writer:
            writer.execute("INSERT INTO orders VALUES (2)")
        reader.execute("SELECT * FROM orders")
        reader.commit()

    customer.adopt()
    assert customer.parity(customer.next_generation()) == []


def test_what_it_owns_in_another_database_changes_hands_too(customer: Customer) -> None:
    other = f"{customer.database}_archive"
    customer.root(f"CREATE DATABASE {other} OWNER {customer.owner}")
    customer.root(
        f"GRANT CREATE ON SCHEMA public TO {customer.owner}",
        "CREATE TABLE old (n int)",
        f"ALTER TABLE old OWNER TO {customer.name}",
        database=other,
    )

    customer.adopt()

    assert customer.root("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'old'", database=other) == [(customer.owner,)]
    assert customer.parity(customer.next_generation()) == []


def test_default_privileges_move_to_the_owner(customer: Customer) -> None:
    reader = f"{customer.database}_reader"
    customer.root(
        f"CREATE ROLE {reader} NOLOGIN",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {customer.name} GRANT SELECT ON TABLES TO {reader} WITH GRANT OPTION",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {customer.name} IN SCHEMA public GRANT USAGE ON SEQUENCES TO {reader}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {customer.name} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    )

    customer.adopt()
    new = customer.next_generation()

    assert customer.parity(new) == []
    with customer.session(new) as session:
        session.execute("CREATE TABLE fresh (n serial)")
        session.execute("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    rights = f"has_table_privilege('{reader}', 'fresh', 'SELECT'), has_sequence_privilege('{reader}', 'fresh_n_seq', 'USAGE')"
    assert customer.root(f"SELECT {rights}, has_function_privilege('{reader}', 'one()', 'EXECUTE')") == [(True, True, False)]


def test_a_schema_of_the_logins_own_name_stays_on_its_search_path(customer: Customer) -> None:
    customer.root(f"CREATE SCHEMA AUTHORIZATION {customer.name}", f"CREATE TABLE {customer.name}.here (n int)")
    customer.root(f"ALTER TABLE {customer.name}.here OWNER TO {customer.name}")

    customer.adopt()
    new = customer.next_generation()

    assert customer.parity(new) == []
    for login in (customer.login, new):
        with customer.session(login) as session:
            assert session.execute("SELECT current_schemas(false)").fetchone() == ([customer.login.username, "public"],)
            session.execute("INSERT INTO here VALUES (1)")


def test_settings_and_the_connection_limit_are_handed_on(customer: Customer) -> None:
    customer.root(
        f'ALTER ROLE {customer.name} SET search_path = public, "Odd, ""name"""',
        f"ALTER ROLE {customer.name} IN DATABASE {customer.database} SET work_mem = '12MB'",
        f"ALTER ROLE {customer.name} SET application_name = 'it''s'",
        f"ALTER ROLE {customer.name} SET my.setting = 'a, b=c'",
    )
    with pytest.raises(Refused) as refused:
        customer.adopt()
    customer.root(*refused.value.advice.splitlines())

    customer.adopt()
    new = customer.next_generation()

    assert customer.parity(new) == []
    shown = "SELECT current_setting('search_path'), current_setting('work_mem'), current_setting('my.setting')"
    with customer.session() as old_session, customer.session(new) as new_session:
        assert new_session.execute(shown).fetchone() == old_session.execute(shown).fetchone()
    limits = customer.root("SELECT rolname, rolconnlimit FROM pg_roles WHERE rolconnlimit <> -1")
    assert (new.username, 20) in limits


def test_rights_of_its_own_stand_in_the_way_and_are_listed_with_what_replaces_them(customer: Customer) -> None:
    customer.root(
        "CREATE TABLE shared (n int, secret text)",
        f"GRANT SELECT (n), UPDATE (n) ON shared TO {customer.name}",
        f"GRANT CONNECT ON DATABASE {customer.database} TO {customer.name}",
        "CREATE SEQUENCE numbers",
        f"GRANT USAGE ON SEQUENCE numbers TO {customer.name}",
        "ALTER TABLE shared ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY mine ON shared TO {customer.name} USING (true)",
    )

    with pytest.raises(Refused) as refused:
        customer.adopt()

    assert "holds CONNECT on database" in str(refused.value)
    statements = [line for line in refused.value.advice.splitlines() if not line.startswith("--")]
    assert len(statements) == 4
    customer.root(*statements)
    customer.adopt()
    assert customer.parity(customer.next_generation()) == []
    with customer.session() as session:
        session.execute("SELECT n FROM shared")


def test_attributes_and_groups_that_would_be_dead_stand_in_the_way(customer: Customer) -> None:
    group = f"{customer.database}_group"
    customer.root(f"CREATE ROLE {group} NOLOGIN", f"GRANT {group} TO {customer.name}", f"ALTER ROLE {customer.name} CREATEDB")

    with pytest.raises(Refused) as refused:
        customer.adopt()

    customer.root(*(line.partition(" -- ")[0] for line in refused.value.advice.splitlines()))
    customer.adopt()
    assert customer.parity(customer.next_generation()) == []


def test_an_admin_that_does_not_hold_the_login_or_the_owner_is_told_what_to_run(customer: Customer) -> None:
    customer.root(f"REVOKE {customer.owner} FROM {ADMIN}", f"REVOKE {customer.name} FROM {ADMIN}")

    with pytest.raises(Refused) as refused:
        customer.adopt()

    customer.root(*refused.value.advice.splitlines())
    customer.adopt()


def test_a_login_or_an_owner_that_does_not_exist_is_named(customer: Customer) -> None:
    with pytest.raises(Refused, match="there is no login nobody"):
        customer.engine.adopt(customer.resource, "nobody", within(), dry_run=True)
    customer.root(f"DROP OWNED BY {customer.owner}", f"ALTER DATABASE {customer.database} OWNER TO postgres", f"DROP ROLE {customer.owner}")
    with pytest.raises(Refused) as refused:
        customer.adopt(dry_run=True)
    assert refused.value.advice == f'CREATE ROLE "{customer.owner}" NOLOGIN'


def test_the_adopted_login_is_removed_at_last_and_its_tables_stay(customer: Customer) -> None:
    customer.adopt()
    new = customer.next_generation()
    credential = credential_of(customer.resource, customer.login, 1, adopted=True)

    with customer.session():
        customer.engine.withdraw(customer.resource, credential, (new.username,), within())
    customer.engine.prove_refused(customer.resource, customer.login, new, within())

    assert not logs_in(customer.server, customer.database, customer.login.username, PASSWORD)
    with customer.session(new) as session:
        works(session, "by_the_last_one")
