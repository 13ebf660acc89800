"""What somebody does by hand to the logins of a customer's server, with real workers that find out and put it right."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from rotation.sensitive import Sensitive
from rotation.states import RotationState
from tests.acceptance.conftest import STORES
from tests.promises import assert_logs_are_clean
from tests.rigs import Rig, roles
from worker.sandbox.customers import Answer, address, knock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rotation.model import Resource
    from tests.rigs import CustomersServer

HARMS = (
    "DROP OWNED BY {login}; DROP ROLE {login}",
    "ALTER ROLE {login} NOLOGIN",
    "ALTER ROLE {login} PASSWORD 'another'",
)


@pytest.fixture(scope="module", params=STORES)
def rig(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    customers: CustomersServer,
    new_store: Callable[[str], str | None],
) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("rig"), [customers], new_store(request.param)) as rig:
        rig.start(workers=2)
        yield rig


def by_hand(rig: Rig, resource: Resource, statements: str, login: str) -> None:
    """As a superuser, in the customer's database."""
    with psycopg.connect(rig.server_of(resource).superuser_url(resource.spec.database.name), autocommit=True) as connection:
        for statement in statements.split("; "):
            connection.execute(sql.SQL(statement).format(login=sql.Identifier(login)))  # statements of this test


def alarms(rig: Rig, event: str) -> int:
    return sum(line["event"] == event and line.get("alarm") is True for process in rig.processes for line in process.lines())


def events(rig: Rig, resource: Resource, kind: str) -> int:
    return sum(line.event.kind == kind for line in rig.store.views.events(resource.id))


def test_whatever_somebody_does_to_the_current_login_it_works_again(rig: Rig) -> None:
    (resource,) = rig.add()
    rig.wait_for(rig.trigger(resource), RotationState.COMPLETED)
    rig.wait_until_settled()
    door = address(Sensitive(rig.held(resource)))
    for number, harm in enumerate(HARMS, start=1):
        by_hand(rig, resource, harm, door.login.username)
        assert knock(door) is Answer.REFUSED
        began = time.monotonic()
        rig.wait("it works again", lambda: knock(door) is Answer.ACCEPTED)
        print(f"{harm.format(login='…')}: works again after {time.monotonic() - began:.1f} s")  # noqa: T201 - a figure
        rig.wait("that is on record", lambda number=number: events(rig, resource, "credential_healed") == number)  # type: ignore[misc]
    rig.wait("nothing is lost any more", lambda: rig.store.views.status().astray == 0)
    assert alarms(rig, "login_lost") >= len(HARMS)
    rig.wait_for(rig.trigger(resource), RotationState.COMPLETED)
    rig.wait_until_settled()
    assert list(roles(rig.server_of(resource), resource)) == [address(Sensitive(rig.held(resource))).login.username]
    assert list(rig.store.verify_audit()) == []
    assert_logs_are_clean(rig)


def test_a_planted_login_is_reported_counted_and_left_alone(rig: Rig) -> None:
    (resource,) = rig.add()
    login = f"{resource.spec.database.login_prefix}_planted"
    marker = rig.ports.sealer.mark("cred_planted")
    statements = f"CREATE ROLE {{login}} LOGIN; COMMENT ON ROLE {{login}} IS '{marker}'"
    began = time.monotonic()
    by_hand(rig, resource, statements, login)

    rig.wait("it is counted", lambda: rig.store.views.status().orphans == 1)
    rig.wait("it is told", lambda: alarms(rig, "orphan_found"))
    print(f"a planted login is reported after {time.monotonic() - began:.1f} s")  # noqa: T201 - a figure

    assert login in roles(rig.server_of(resource), resource)
    by_hand(rig, resource, "DROP ROLE {login}", login)
    rig.wait("it is counted no more", lambda: rig.store.views.status().orphans == 0)
