from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from rotation.sensitive import Sensitive
from rotation.states import PushBy
from worker.machine import MachineEntropy
from worker.sandbox import customers, fleet
from worker.sandbox.customers import Answer, Customer, Tally
from worker.sandbox.postgresql import PrivatePostgresql
from worker.sandbox.vercel_world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GRACE = timedelta(seconds=10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgresql]:
    with PrivatePostgresql(tmp_path_factory.mktemp("demo"), settings={"fsync": "off"}) as running:
        yield running


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def tenant(server: PrivatePostgresql, world: World, tmp_path_factory: pytest.TempPathFactory) -> fleet.Tenant:
    (only,) = fleet.tenants(1, MachineEntropy())
    fleet.settle(server, [only], MachineEntropy(), tmp_path_factory.mktemp("admin") / "admin.url")
    fleet.first_push(world, [only], server, Sensitive("token"))
    return only


@pytest.fixture
def environment(world: World, tenant: fleet.Tenant) -> dict[str, str]:
    """What the tenant's application reads when it is deployed; a test changes it as a push would."""
    return world.held(fleet.INSTALLATION, tenant.external_id)


@pytest.fixture
def customer(tenant: fleet.Tenant, environment: dict[str, str]) -> Iterator[Customer]:
    one = Customer(tenant.name, lambda: environment, GRACE, random.Random(1))  # noqa: S311 - a team's habits, not a secret
    one.deploy()
    yield one
    one.close()


def rotate(server: PrivatePostgresql, tenant: fleet.Tenant, environment: dict[str, str], username: str) -> None:
    """A second login of the same group, and its push."""
    with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {username} LOGIN IN ROLE {tenant.owner_role} PASSWORD 'new'")
        connection.execute(f"ALTER ROLE {username} SET role = {tenant.owner_role}")
    environment["DATABASE_URL"] = f"postgresql://{username}:new@{server.host}:{server.port}/{tenant.name}"


def sessions(server: PrivatePostgresql, username: str) -> int:
    with psycopg.connect(server.superuser_url()) as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (username,)).fetchone()
    assert row is not None
    return int(row[0])


def test_three_in_five_tenants_push_by_resource_and_two_by_product() -> None:
    five = fleet.tenants(5, MachineEntropy())

    assert [one.push_by for one in five].count(PushBy.RESOURCE) == 3
    assert [one.push_by for one in five].count(PushBy.PRODUCT) == 2


def test_the_admin_of_the_demo_is_no_superuser(server: PrivatePostgresql, tenant: fleet.Tenant) -> None:
    with psycopg.connect(server.superuser_url()) as connection:
        row = connection.execute("SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = %s", (fleet.ADMIN,)).fetchone()

    assert row == (False, True)


def test_what_the_application_makes_belongs_to_the_group(server: PrivatePostgresql, tenant: fleet.Tenant) -> None:
    with psycopg.connect(server.superuser_url(tenant.name)) as connection:
        row = connection.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'visits'").fetchone()

    assert row == (tenant.owner_role,)


def test_an_application_logs_in_and_works_with_what_vercel_holds(customer: Customer, tenant: fleet.Tenant) -> None:
    customer.turn(0.0)

    assert customer.deployed == tenant.login.username
    assert customer.tally == Tally(accepted=3, queries=6, deployments=1)


def test_it_redeploys_within_grace_and_then_leaves_the_old_login_alone(
    customer: Customer, server: PrivatePostgresql, tenant: fleet.Tenant, environment: dict[str, str]
) -> None:
    customer.turn(0.0)
    rotate(server, tenant, environment, "orders_second")

    customer.turn(1.0)
    assert customer.deployed == tenant.login.username
    customer.turn(1.0 + GRACE.total_seconds() * customers.LATEST_REDEPLOY)

    assert customer.deployed == "orders_second"
    assert sessions(server, tenant.login.username) == 0
    assert sessions(server, "orders_second") == customers.SESSIONS
    assert customer.tally.tried == customer.tally.accepted


def test_a_login_that_was_taken_away_is_counted_as_refused(
    customer: Customer, server: PrivatePostgresql, tenant: fleet.Tenant, environment: dict[str, str]
) -> None:
    rotate(server, tenant, environment, "orders_third")
    customer.deploy()
    with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
        connection.execute("ALTER ROLE orders_third NOLOGIN")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'orders_third'")

    customer.turn(0.0)

    assert customer.tally.refused == 1
    assert customer.tally.broken == customers.SESSIONS
    assert customers.knock(customers.address(Sensitive(environment["DATABASE_URL"]))) is Answer.REFUSED


def test_a_server_that_is_not_there_has_not_refused_anybody(server: PrivatePostgresql, tenant: fleet.Tenant, tmp_path: Path) -> None:
    with PrivatePostgresql(tmp_path / "gone") as gone:
        somewhere = customers.address(Sensitive(gone.superuser_url()))

    assert customers.knock(somewhere) is Answer.UNREACHABLE


@pytest.mark.parametrize("url", ["postgresql://host/db", "postgresql://user:password@host/db", "not a URL"])
def test_a_url_that_is_not_whole_is_not_used(url: str) -> None:
    with pytest.raises(ValueError, match="does not name"):
        customers.address(Sensitive(url))
