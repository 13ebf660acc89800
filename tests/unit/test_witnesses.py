"""The witnesses themselves: what they take for a refusal, and that none of them looks away unnoticed."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from tests.chaos.customers import Customers
from tests.witnesses import Witness, refusal
from worker.sandbox.vercel_world import World

ASKED = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    "said",
    [
        'password authentication failed for user "shop_app"',
        'role "shop_app" is not permitted to log in',
        'permission denied for database "shop"',
        'too many connections for role "shop_app"',
        "sorry, too many clients already",
        'database "shop" does not exist',
        'role "shop_app" does not exist',
    ],
)
def test_whatever_a_server_says_to_a_login_that_it_turns_away_is_a_refusal(said: str) -> None:
    assert refusal(psycopg.OperationalError(f"{ASKED}FATAL:  {said}\nsomething more")) == said


@pytest.mark.parametrize(
    "said",
    [
        "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
        "server closed the connection unexpectedly",
        "FATAL:  the database system is starting up",
        "FATAL:  the database system is shutting down",
        "FATAL:  the database system is in recovery mode",
        "FATAL:  the database system is not yet accepting connections\nDETAIL:  Consistent recovery state has not been yet reached.",
        "FATAL:  terminating connection due to administrator command",
        "FATAL:  terminating connection due to unexpected postmaster exit",
        "WARNING:  terminating connection because of crash of another server process\nDETAIL:  The postmaster has commanded this.",
    ],
)
def test_a_server_that_takes_nobody_has_refused_nobody(said: str) -> None:
    assert refusal(psycopg.OperationalError(ASKED + said)) is None


class Broken(World):
    """A Vercel whose history cannot be read."""

    def history(self, after: int = 0) -> list[object]:  # type: ignore[override]  # it gives nothing
        raise ZeroDivisionError(after)


def watch_until_all_have_ended(witness: Witness, fails: type[Exception] | None = None) -> None:
    witness.turn = 0.0
    with witness:
        for thread in witness._threads:
            thread.join()
        if fails is not None:
            raise fails


def test_a_witness_that_looks_away_fails_its_test() -> None:
    with pytest.raises(ZeroDivisionError):
        watch_until_all_have_ended(Witness(Broken(), {"shop": timedelta(0)}))


def test_a_test_that_fails_already_fails_for_its_own_reason() -> None:
    with pytest.raises(KeyError):
        watch_until_all_have_ended(Witness(Broken(), {"shop": timedelta(0)}), fails=KeyError)


def test_customers_in_a_hurry_who_get_no_news_fail_their_run() -> None:
    with pytest.raises(ZeroDivisionError):
        watch_until_all_have_ended(Customers(Broken(), {}, {}))
