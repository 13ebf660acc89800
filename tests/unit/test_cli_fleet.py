"""What an operator registers: installations, servers, resources. Wrong input changes nothing."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rotation.errors import Fault
from tests.command_line import PASSWORD, PREFIX, RESOURCE_FILE, SERVER_FILE, TOKEN

if TYPE_CHECKING:
    from tests.command_line import CommandLine


# -- installations


def test_an_installation_is_added_with_a_token_from_the_standard_input(rollover: CommandLine) -> None:
    rollover.with_installation()
    assert rollover.done("installation", "show", "icfg_1", "--json").data == {
        "id": "icfg_1",
        "state": "ready",
        "has_token": True,
        "parked_at": None,
        "parked_reason": "",
    }
    assert "ready" in rollover.done("installation", "list").out


def test_a_token_comes_from_a_file_as_well(rollover: CommandLine) -> None:
    rollover.done("installation", "add", "icfg_1", "--token-file", rollover.file("token", TOKEN + "\n"))
    assert rollover.done("installation", "show", "icfg_1", "--json").data["has_token"]


def test_an_installation_without_a_token_says_so(rollover: CommandLine) -> None:
    rollover.done("installation", "add", "icfg_1", "--no-token")
    assert rollover.done("installation", "list", "--json").data[0]["state"] == "no token"
    assert "none" in rollover.done("installation", "show", "icfg_1").out
    rollover.done("installation", "token", "icfg_1", typed=TOKEN)
    assert rollover.done("installation", "list", "--json").data[0]["state"] == "ready"


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "a\tb"])
def test_an_id_that_cannot_be_one_is_refused(rollover: CommandLine, name: str) -> None:
    assert "installation's id" in rollover.refused("installation", "add", name, typed=TOKEN, code=2)


@pytest.mark.parametrize("token", ["", " \n", "two words", "a" * 20_000, "\x00"])
def test_a_token_that_cannot_be_one_is_refused(rollover: CommandLine, token: str) -> None:
    assert "token" in rollover.refused("installation", "add", "icfg_1", typed=token, code=2)


def test_a_token_file_that_is_not_there_is_told(rollover: CommandLine) -> None:
    assert "cannot be read" in rollover.refused("installation", "add", "icfg_1", "--token-file", "/nonexistent", code=2)


def test_a_token_file_contradicts_no_token(rollover: CommandLine) -> None:
    rollover.refused("installation", "add", "icfg_1", "--no-token", "--token-file", "x", code=2)


def test_an_installation_is_added_once(rollover: CommandLine) -> None:
    rollover.with_installation()
    assert "exists already" in rollover.refused("installation", "add", "icfg_1", typed=TOKEN, code=1)


@pytest.mark.parametrize("command", ["show", "token", "park", "unpark"])
def test_an_unknown_installation_is_told(rollover: CommandLine, command: str) -> None:
    assert "there is no installation 'icfg_9'" in rollover.refused("installation", command, "icfg_9", typed=TOKEN, code=1)


def test_parking_holds_and_unparking_lets_go(rollover: CommandLine) -> None:
    rollover.with_installation()
    rollover.done("installation", "park", "icfg_1", "--reason", "moving house")
    assert "moving house" in rollover.done("installation", "show", "icfg_1").out
    assert "parked already" in rollover.done("installation", "park", "icfg_1").err
    assert "pushes are held" in rollover.done("status").err
    rollover.done("installation", "unpark", "icfg_1")
    assert "was not parked" in rollover.done("installation", "unpark", "icfg_1").err
    assert rollover.events() == ["installation_added", "installation_parked", "installation_unparked"]


def test_the_audit_trail_names_the_person(rollover: CommandLine) -> None:
    rollover.with_installation()
    (event,) = rollover.done("events", "--json").data
    assert event["actor"].startswith("cli:")
    assert event["detail"] == {"installation": "icfg_1"}


# -- servers


def test_a_server_is_added_shown_and_checked(rollover: CommandLine) -> None:
    rollover.with_server()
    assert "db.example.com:5432" in rollover.done("server", "list").out
    assert "admin.url" in rollover.done("server", "show", "pg-eu-1").out
    assert rollover.done("server", "show", "pg-eu-1", "--json").data["sslmode"] == "verify-full"
    assert rollover.done("server", "check", "pg-eu-1", "--json").data == {"server": "pg-eu-1", "ok": True, "sessions": 0, "logins": 0}


def test_a_server_that_does_not_answer_is_told(rollover: CommandLine) -> None:
    rollover.with_server()
    rollover.engine.server("pg-eu-1").reachable = False
    assert rollover.refused("server", "check", "pg-eu-1", code=1)
    answer = rollover("server", "check", "pg-eu-1", "--json")
    assert (answer.code, answer.data["ok"]) == (1, False)


def test_a_server_is_changed_by_its_file(rollover: CommandLine) -> None:
    rollover.with_server()
    rollover.done("server", "update", rollover.file("server.toml", SERVER_FILE.replace("5432", "6432")))
    assert rollover.done("server", "show", "pg-eu-1", "--json").data["port"] == 6432


@pytest.mark.parametrize("command", ["add", "update"])
def test_every_fault_of_a_servers_file_is_told(rollover: CommandLine, command: str) -> None:
    wrong = SERVER_FILE.replace("5432", '"CANARY"').replace("verify-full", "CANARY")
    told = rollover.refused("server", command, rollover.file("wrong.toml", wrong), code=2)
    assert "port" in told
    assert "sslmode" in told


def test_an_unknown_server_is_told(rollover: CommandLine) -> None:
    for words in (("show", "x"), ("check", "x"), ("update", rollover.file("server.toml", SERVER_FILE))):
        assert "there is no server" in rollover.refused("server", *words, code=1)


# -- resources


def test_adding_a_resource_says_when_it_rotates_and_touches_no_database(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    assert rollover.engine.acts == []
    assert rollover.events() == ["installation_added", "server_added", "resource_registered"]
    (line,) = rollover.done("resource", "list", "--json").data
    assert (line["external_id"], line["state"], line["generation"]) == ("store_42", "active", 1)
    assert line["next_rotation_at"] is not None
    assert "every 30d" in rollover.done("resource", "show", name).out
    assert rollover.done("resource", "show", "store_42", "--json").data["spec"]["database"]["name"] == "orders"


def test_the_store_and_the_keys_are_for_their_owner_alone(rollover: CommandLine) -> None:
    rollover.with_resource()
    state = Path(rollover.directory / "state")
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE(rollover.key_file.stat().st_mode) == 0o600
    for file in state.iterdir():
        assert PASSWORD.encode() not in file.read_bytes()
        assert TOKEN.encode() not in file.read_bytes()


def test_with_a_fault_in_one_file_no_file_is_added(rollover: CommandLine) -> None:
    rollover.with_installation()
    rollover.with_server()
    rollover.file("current.password", PASSWORD)
    good = rollover.file("good.toml", RESOURCE_FILE)
    wrong = rollover.file("wrong.toml", RESOURCE_FILE.replace('"30d"', '"CANARY"').replace("{host}", "{hots}"))
    told = rollover.refused("resource", "add", good, wrong, code=2)
    assert "wrong.toml: policy.every (line 15)" in told
    assert "hots" in told


def test_what_the_store_has_against_any_file_is_told_and_no_file_is_added(rollover: CommandLine) -> None:
    rollover.with_resource()
    fresh = RESOURCE_FILE.replace("store_42", "store_43").replace("orders_app", "billing_app").replace(PREFIX, 'login_prefix = "billing"')
    files = [
        rollover.file("fresh.toml", fresh),
        rollover.file("again.toml", fresh),
        rollover.file("known.toml", RESOURCE_FILE),
        rollover.file("login.toml", RESOURCE_FILE.replace("store_42", "store_44")),
        rollover.file("lost.toml", fresh.replace("icfg_1", "icfg_9").replace("pg-eu-1", "pg-eu-9")),
    ]
    told = rollover.refused("resource", "add", *files, code=1).splitlines()
    for file, words in (
        ("again.toml", "fresh.toml as well"),
        ("known.toml", "exists already"),
        ("login.toml", "the login orders_app on pg-eu-1 belongs to another credential"),
        ("login.toml", "database.login_prefix: on pg-eu-1 the logins of icfg_1/store_42 are named orders already"),
        ("lost.toml", "there is no server 'pg-eu-9'"),
        ("lost.toml", "there is no installation 'icfg_9'"),
    ):
        assert [line for line in told if file + ":" in line and words in line], words
    assert not [line for line in told if "fresh.toml:" in line]
    rollover.done("resource", "add", files[0])


def test_two_files_cannot_have_one_login(rollover: CommandLine) -> None:
    rollover.with_installation()
    rollover.with_server()
    rollover.file("current.password", PASSWORD)
    files = [rollover.file(f"{one}.toml", RESOURCE_FILE.replace("store_42", one)) for one in ("store_1", "store_2")]
    assert "store_2.toml: the login orders_app on pg-eu-1 is that of" in rollover.refused("resource", "add", *files, code=1)


def test_two_files_cannot_name_their_logins_alike(rollover: CommandLine) -> None:
    rollover.with_installation()
    rollover.with_server()
    rollover.file("current.password", PASSWORD)
    files = [
        rollover.file(f"{one}.toml", RESOURCE_FILE.replace("store_42", one).replace("orders_app", f"{one}_app"))
        for one in ("store_1", "store_2")
    ]
    assert "store_2.toml: database.login_prefix on pg-eu-1 is that of" in rollover.refused("resource", "add", *files, code=1)


def test_what_is_doubtful_in_a_file_is_told_and_done(rollover: CommandLine) -> None:
    rollover.with_installation()
    rollover.file("admin.url", "postgresql://admin:CANARY@db.example.com/postgres", mode=0o644)
    assert "warning" in rollover.done("server", "add", rollover.file("server.toml", SERVER_FILE)).err
    assert "warning" in rollover.done("server", "update", rollover.file("server.toml", SERVER_FILE)).err
    rollover.file("current.password", PASSWORD, mode=0o644)
    for command in ("add", "update"):
        said = rollover.done("resource", command, rollover.file("resource.toml", RESOURCE_FILE)).err
        assert "resource.toml: current.password_file" in said
        assert "warning" in said


def test_a_resource_needs_its_installation_and_its_server(rollover: CommandLine) -> None:
    rollover.file("current.password", PASSWORD)
    file = rollover.file("resource.toml", RESOURCE_FILE)
    assert "there is no server" in rollover.refused("resource", "add", file, code=1)
    rollover.with_server()
    assert "there is no installation" in rollover.refused("resource", "add", file, code=1)


def test_a_resource_is_added_once(rollover: CommandLine) -> None:
    rollover.with_resource()
    assert "exists already" in rollover.refused("resource", "add", str(rollover.directory / "resource.toml"), code=1)


def test_updating_makes_a_new_revision(rollover: CommandLine) -> None:
    rollover.with_resource()
    rollover.done("resource", "update", rollover.file("resource.toml", RESOURCE_FILE.replace("30d", "7d")))
    shown = rollover.done("resource", "show", "store_42", "--json").data
    assert (shown["revision"], shown["spec"]["policy"]["every"]) == (2, "7d")
    assert "gone.toml" in rollover.refused("resource", "update", str(rollover.directory / "gone.toml"), code=2)


@pytest.mark.parametrize("command", ["show", "check", "adopt", "pause", "resume"])
def test_an_unknown_resource_is_told(rollover: CommandLine, command: str) -> None:
    assert "there is no resource 'store_9'" in rollover.refused("resource", command, "store_9", code=1)


def test_adopting_dry_prints_statements_and_changes_nothing(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    rollover.engine.add_login("pg-eu-1", "orders_app", "x")
    assert "GRANT" in rollover.done("resource", "adopt", name, "--dry-run").out
    assert rollover.engine.server("pg-eu-1").roles["orders_app"].owner is None
    assert "resource_adopted" not in rollover.events()


def test_adopting_shares_what_the_login_owns(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    rollover.engine.add_login("pg-eu-1", "orders_app", "x")
    assert len(rollover.done("resource", "adopt", name, "--json").data["statements"]) == 1
    assert rollover.engine.server("pg-eu-1").roles["orders_app"].owner == "orders_owner"
    assert rollover.events()[-1] == "resource_adopted"


def test_a_resource_without_a_login_has_nothing_to_adopt(rollover: CommandLine) -> None:
    rollover.with_installation()
    rollover.with_server()
    added = rollover.done("resource", "add", rollover.file("empty.toml", RESOURCE_FILE.partition("[current]")[0]))
    assert "icfg_1/store_42" in added.err
    assert "no login yet" in rollover.refused("resource", "adopt", "store_42", code=1)


def test_checking_tells_what_would_stop_a_rotation(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    assert rollover.done("resource", "check", name, "--json").data == {"resource": name, "ok": True, "faults": []}
    assert "ready to be rotated" in rollover.done("resource", "check", name).err
    rollover.engine.faults = (Fault("admin", "may not make logins", "ALTER ROLE admin CREATEROLE;"),)
    answer = rollover("resource", "check", name)
    assert answer.code == 1
    assert "CREATEROLE" in answer.out
    assert rollover("resource", "check", name, "--json").data["faults"][0]["field"] == "admin"


def test_a_paused_resource_is_not_rotated(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    rollover.done("resource", "pause", name, "--reason", "a holiday")
    assert "rollover resource resume" in rollover.refused("rotate", name, code=1)
    assert rollover.done("resource", "list", "--state", "active", "--json").data == []
    rollover.done("resource", "resume", name)
    rollover.done("rotate", name)


def test_the_fleet_is_held_and_let_go(rollover: CommandLine) -> None:
    rollover.with_resource()
    second = RESOURCE_FILE.partition("[current]")[0].replace("store_42", "store_43").replace(PREFIX, 'login_prefix = "second"')
    rollover.done("resource", "add", rollover.file("second.toml", second))
    assert "paused 2 resources" in rollover.done("resource", "pause", "--all").err
    assert rollover.done("status", "--json").data["resources"] == {"paused": 2}
    assert "resumed 2 resources" in rollover.done("resource", "resume", "--all").err


@pytest.mark.parametrize("command", ["pause", "resume"])
@pytest.mark.parametrize("words", [(), ("store_42", "--all")])
def test_one_or_all_must_be_said(rollover: CommandLine, command: str, words: tuple[str, ...]) -> None:
    rollover.with_resource()
    rollover.refused("resource", command, *words, code=2)


def test_removing_asks_what_becomes_of_the_logins(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    assert "--drop-logins" in rollover.refused("resource", "remove", name, "--yes", code=2)
    rollover.refused("resource", "remove", name, "--drop-logins", typed="n\n", code=1)
    rollover.refused("resource", "remove", name, "--drop-logins", "--yes", "--after", "soon", code=2)
    rollover.done("resource", "remove", name, "--drop-logins", "--after", "1h", typed="y\n")
    assert rollover.done("resource", "list", "--json").data[0]["state"] == "leaving"


def test_removing_may_keep_the_logins_and_forgets_their_passwords(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    resource = rollover.done("resource", "list", "--json").data[0]["id"]
    said = rollover.done("resource", "remove", name, "--keep-logins", typed="y\n").err
    assert "forget the passwords" in said
    assert "work on" in said
    (line,) = rollover.done("credential", "list", resource, "--json").data
    assert line["stage"] == "released"
    assert rollover.engine.acts == []
    with sqlite3.connect(rollover.directory / "state" / "rollover.db") as connection:
        assert connection.execute("SELECT sealed_password, sealed_verifier FROM credentials").fetchall() == [(None, None)]
    connection.close()
    assert rollover.done("resource", "list", "--state", "gone", "--json").data[0]["id"] == resource


@pytest.mark.parametrize("words", [(), ("--keep-logins", "--drop-logins"), ("--keep-logins", "--after", "1h")])
def test_what_becomes_of_the_logins_is_said_once(rollover: CommandLine, words: tuple[str, ...]) -> None:
    name = rollover.with_resource()
    assert "--keep-logins" in rollover.refused("resource", "remove", name, "--yes", *words, code=2)


def test_a_state_that_there_is_not_is_told(rollover: CommandLine) -> None:
    rollover.refused("resource", "list", "--state", "asleep", code=2)
