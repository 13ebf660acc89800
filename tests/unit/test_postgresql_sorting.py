from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from rotation.engines.postgresql_errors import NameTaken, NameUnknown, sort_error
from rotation.engines.postgresql_roles import Setting, list_elements, set_for_role
from rotation.errors import LostClaim, OutcomeUnknown, Refused, RolloverError, Unavailable, Unreachable


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.OperationalError("connection lost"), OutcomeUnknown),
        (errors.DivisionByZero("too late"), LostClaim),
        (errors.InsufficientPrivilege(""), Refused),
        (errors.UndefinedObject(""), NameUnknown),
        (errors.SyntaxError(""), Refused),
        (errors.DuplicateObject(""), NameTaken),
        (errors.DependentObjectsStillExist(""), Unavailable),
        (errors.QueryCanceled(""), Unavailable),
        (errors.AdminShutdown(""), Unavailable),
        (errors.CannotConnectNow(""), Unavailable),
        (errors.TooManyConnections(""), Unavailable),
        (errors.DiskFull(""), Unavailable),
        (errors.LockNotAvailable(""), Unavailable),
        (errors.SerializationFailure(""), Unavailable),
        (errors.DeadlockDetected(""), Unavailable),
        (errors.InternalError_("tuple concurrently updated"), Unavailable),
        (errors.TransactionTimeout(""), Unavailable),
        (errors.ReadOnlySqlTransaction(""), Refused),
    ],
)
def test_an_error_of_an_act_is_sorted_by_its_code(error: psycopg.Error, kind: type[RolloverError]) -> None:
    sorted_error = sort_error(error, "create a login", "pg-eu-1", sent=True)

    assert type(sorted_error) is kind
    assert "pg-eu-1" in str(sorted_error)
    assert "tuple" not in str(sorted_error)


def test_a_question_that_got_no_answer_changed_nothing() -> None:
    assert type(sort_error(psycopg.OperationalError(), "ask", "pg", sent=False)) is Unreachable


def test_the_elements_of_a_list_setting_are_taken_apart() -> None:
    assert list_elements('"$user", public') == ["$user", "public"]
    assert list_elements('"a, b", "say ""hi""",c') == ["a, b", 'say "hi"', "c"]
    assert list_elements("") == [""]
    assert list_elements('""') == [""]


def test_a_setting_is_stated_as_it_was() -> None:
    statement = set_for_role('odd"name', Setting("my db", "search_path", '"$user", public'))
    assert statement.as_string() == """ALTER ROLE "odd""name" IN DATABASE "my db" SET "search_path" = '$user', 'public'"""
    assert set_for_role("a", Setting("", "my.thing", "x, y")).as_string() == """ALTER ROLE "a" SET "my"."thing" = 'x, y'"""
