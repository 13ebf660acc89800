"""`rollover reconcile`: what it lists, what it does, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.fakes.engine import FakeRole

if TYPE_CHECKING:
    from tests.command_line import CommandLine

LOGIN = "orders_app"


def ready(rollover: CommandLine) -> str:
    """A resource whose login is there; gives the resource's name."""
    name = rollover.with_resource()
    password = "CANARY-password-of-orders"
    rollover.engine.add_login("pg-eu-1", LOGIN, password)
    return name


def roles(rollover: CommandLine) -> dict[str, FakeRole]:
    return rollover.engine.server("pg-eu-1").roles


def plant(rollover: CommandLine, username: str, credential_id: str = "cred_nobody_knows") -> None:
    """A login with our mark and without a row."""
    roles(rollover)[username] = FakeRole(username, "x", marker=rollover.engine._sealer.mark(credential_id))


def lines(rollover: CommandLine, *options: str) -> list[dict[str, object]]:
    (server,) = rollover("reconcile", "--json", *options).data["servers"]
    assert server["problem"] == ""
    found: list[dict[str, object]] = server["lines"]
    return found


def test_nothing_differs(rollover: CommandLine) -> None:
    ready(rollover)
    assert "every login is as the store says" in rollover.done("reconcile").out
    assert lines(rollover) == []


def test_a_lost_login_is_listed_and_made_again_only_when_that_is_said(rollover: CommandLine) -> None:
    ready(rollover)
    del roles(rollover)[LOGIN]
    before = rollover.events()

    answer = rollover("reconcile")
    assert answer.code == 1
    assert "its login is gone" in answer.out
    assert "--apply" in answer.err
    assert rollover.events() == before
    assert LOGIN not in roles(rollover)

    (line,) = lines(rollover, "--apply")
    assert (line["kind"], line["login"], line["mended"]) == ("lost", LOGIN, True)
    assert LOGIN in roles(rollover)
    assert rollover.events()[-1] == "credential_healed"
    rollover.done("reconcile")


def test_a_password_that_was_changed_by_hand_is_found(rollover: CommandLine) -> None:
    ready(rollover)
    roles(rollover)[LOGIN] = replace(roles(rollover)[LOGIN], verifier="another")
    (line,) = lines(rollover)
    assert "is refused" in str(line["problem"])
    rollover.done("reconcile", "--apply")


def test_a_login_without_a_row_is_never_removed_and_counted(rollover: CommandLine) -> None:
    ready(rollover)
    plant(rollover, "somebody")

    answer = rollover("reconcile", "--apply")

    assert answer.code == 1
    assert "by hand" in answer.out
    assert "somebody" in roles(rollover)
    status = rollover.done("status")
    assert "logins without a row" in status.out
    assert "rollover reconcile" in status.err
    assert rollover.done("status", "--json").data["orphans"] == 1
    del roles(rollover)["somebody"]
    rollover.done("reconcile", "--apply")
    assert rollover.done("status", "--json").data["orphans"] == 0


def test_a_login_newer_than_the_store_holds_its_resource_until_it_is_brought_on(rollover: CommandLine) -> None:
    name = ready(rollover)
    plant(rollover, "orders_g2_0123456789abcdef")

    (line,) = lines(rollover, "--apply")
    assert line["kind"] == "ahead"
    assert rollover.done("status", "--json").data["held"] == 1
    assert "--after-restore" in rollover.refused("resource", "resume", name, code=1)
    assert "--after-restore" in rollover.refused("rotate", name, code=1)
    assert "newer than all" in rollover.done("resource", "show", name).out

    (line,) = lines(rollover, "--after-restore")
    assert line["mended"] is None
    assert rollover.events()[-1] == "resource_held"
    rollover.done("reconcile", "--after-restore", "--apply")
    assert rollover.events()[-1] == "resource_restored"
    assert rollover.done("status", "--json").data["held"] == 0
    listed = rollover.done("credential", "list", name, "--json").data
    assert sorted(one["username"] for one in listed) == [LOGIN, "orders_g2_0123456789abcdef"]
    assert lines(rollover, "--after-restore") == []


def test_a_server_that_does_not_answer_is_told(rollover: CommandLine) -> None:
    ready(rollover)
    rollover.engine.server("pg-eu-1").reachable = False
    answer = rollover("reconcile")
    assert answer.code == 1
    assert "pg-eu-1 cannot be compared" in answer.err
    (server,) = rollover("reconcile", "--json").data["servers"]
    assert not server["ok"]


def test_an_unknown_server_is_told(rollover: CommandLine) -> None:
    assert "pg-us-1" in rollover("reconcile", "--server", "pg-us-1").err
