"""What the chaos run must find on a real server: a login that nobody wants, and a customer who was turned away."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rotation.model import Resource
from rotation.states import ResourceState
from tests.chaos.customers import Customers
from tests.chaos.verdicts import orphans, told, wanted
from tests.postgresql_tenants import as_superuser
from tests.processes import eventually
from tests.rigs import CustomersServer
from tests.store_samples import SERVER, spec
from worker.sandbox.vercel_world import Call, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.sandbox.postgresql import PrivatePostgresql

PASSWORD = "of-a-customer"
PROXY = 1
"""A port that Vercel names and nobody listens on."""


@pytest.fixture
def login(postgresql: PrivatePostgresql) -> Iterator[str]:
    name = "chaos_customer"
    as_superuser(postgresql, f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    yield name
    as_superuser(postgresql, f"DROP ROLE {name}")


def held(postgresql: PrivatePostgresql, *passwords: str) -> World:
    """A Vercel that has held a login with each of these passwords for a resource, one after the other."""
    world = World(per_minute=None)
    world.add_installation("icfg", "token")
    world.add_resource("icfg", "store", "postgres")
    for number, password in enumerate(passwords):
        url = f"postgresql://chaos_customer{'_' * number}:{password}@{postgresql.host}:{PROXY}/postgres"
        body = {"secrets": [{"name": "DATABASE_URL", "value": url}]}
        assert world.put_secrets(Call("PUT", "icfg", "store", token="token", body=body)).status == 201
    return world


def watched(postgresql: PrivatePostgresql, *passwords: str, grace: float) -> Customers:
    """The customer of that resource."""
    return Customers(held(postgresql, *passwords), {"store": timedelta(seconds=grace)}, {PROXY: postgresql.port})


def on(server: str) -> Resource:
    """A resource of a server with this name."""
    return Resource("res_1", ResourceState.ACTIVE, 1, spec(server=server), replace(SERVER, name=server))


@pytest.fixture
def direct(postgresql: PrivatePostgresql) -> CustomersServer:
    return CustomersServer("direct", postgresql, postgresql.directory)


def test_a_login_that_nobody_wants_is_an_orphan(direct: CustomersServer, login: str) -> None:
    assert f"{login} on direct" in set(orphans(direct, wanted(direct, [])))
    assert f"{login} on direct" not in set(orphans(direct, wanted(direct, [(on("direct"), login)])))


def test_a_login_that_was_blocked_and_never_removed_is_an_orphan(direct: CustomersServer, login: str) -> None:
    as_superuser(direct.postgresql, f"ALTER ROLE {login} NOLOGIN")
    assert f"{login} on direct" in set(orphans(direct, wanted(direct, [])))


def test_a_login_that_is_wanted_on_another_server_is_an_orphan_on_this_one(direct: CustomersServer, login: str) -> None:
    assert f"{login} on direct" in set(orphans(direct, wanted(direct, [(on("proxied"), login)])))


def test_the_group_that_owns_a_database_is_wanted_on_the_server_of_the_database_alone(direct: CustomersServer, login: str) -> None:
    assert wanted(direct, [(on("direct"), login), (on("proxied"), "another")]) == {login, "orders_owner"}
    assert wanted(direct, [(on("proxied"), login)]) == set()


def test_customers_come_in_by_the_direct_door_with_what_vercel_holds(postgresql: PrivatePostgresql, login: str) -> None:
    with watched(postgresql, PASSWORD, grace=60) as customers:
        assert eventually(lambda: customers.accepted >= 3, within=30)
    assert (customers.refused, customers.unreachable) == ([], 0)


def test_a_customer_who_is_turned_away_with_what_vercel_holds_is_a_refusal(postgresql: PrivatePostgresql, login: str) -> None:
    with watched(postgresql, "another", grace=60) as customers:
        assert eventually(lambda: customers.refused, within=30)
    assert {(one.username, one.said) for one in customers.refused} == {(login, f'password authentication failed for user "{login}"')}


def test_a_customer_who_is_turned_away_within_the_grace_is_a_refusal(postgresql: PrivatePostgresql, login: str) -> None:
    with watched(postgresql, "another", PASSWORD, grace=60) as customers:
        assert eventually(lambda: customers.refused, within=30)
    assert login in {one.username for one in customers.refused}


def test_a_customer_who_is_promised_no_grace_does_not_try_what_vercel_held_before(postgresql: PrivatePostgresql, login: str) -> None:
    with watched(postgresql, "another", PASSWORD, grace=0) as customers:
        assert eventually(lambda: customers.refused, within=30)
    assert login not in {one.username for one in customers.refused}


def test_a_customer_whom_nobody_watches_is_visited(postgresql: PrivatePostgresql, login: str) -> None:
    customers = Customers(held(postgresql, "another"), {}, {PROXY: postgresql.port}, ["store"])
    with customers:
        assert eventually(lambda: customers.refused, within=30)
    assert {(one.username, one.said) for one in customers.refused} == {(login, f'password authentication failed for user "{login}"')}


def test_a_password_that_vercel_was_given_is_found_in_a_log(postgresql: PrivatePostgresql, tmp_path: Path) -> None:
    password = "Of" * 16
    helds = watched(postgresql, password, "x" + password, grace=60).diary.of("store")
    (log := tmp_path / "worker0.log").write_text(f"connecting to postgresql://chaos_customer:{password}@host\n")
    assert list(told([log], helds)) == ["worker0.log tells the password of chaos_customer"]
    log.write_text("connecting to postgresql://chaos_customer:***@host\n")
    assert list(told([log], helds)) == []
