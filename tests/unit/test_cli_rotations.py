"""Asking for rotations, watching them, and reading what has happened."""

from __future__ import annotations

import base64
import json
import socket
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from rotation.errors import Fault
from tests.command_line import PREFIX, RESOURCE_FILE
from worker import tasks
from worker.cli import hinting

if TYPE_CHECKING:
    import redis

    from tests.command_line import CommandLine
    from worker.sandbox.broker import PrivateBroker


def change(rollover: CommandLine, statement: str) -> None:
    """What a worker would have recorded."""
    with sqlite3.connect(rollover.directory / "state" / "rollover.db") as connection:
        connection.execute(statement)
    connection.close()


def test_a_request_is_on_record_when_the_command_returns(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    answer = rollover.done("rotate", name, "--grace", "2h", "--reason", "a new colleague", "--json").data
    assert answer["reception"] == "opened"
    story = rollover.done("rotation", "show", answer["rotation"], "--json").data
    assert story["rotation"]["state"] == "requested"
    (request,) = story["requests"]
    assert (request["trigger"], request["grace"], request["reason"]) == ("manual", "2h", "a new colleague")
    assert request["actor"].startswith("cli:")


def test_a_second_request_joins_the_first(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    first = rollover.done("rotate", name, "--json").data
    second = rollover.done("rotate", name, "--emergency", "--json").data
    assert (second["reception"], second["rotation"]) == ("joined", first["rotation"])
    assert rollover.done("rotation", "list", "--json").data[0]["triggers"] == ["manual", "emergency"]
    assert "emergency" in rollover.done("rotation", "list", name, "--under-way").out


def rows(rollover: CommandLine) -> list[list[tuple[object, ...]]]:
    """Everything in the store."""
    with sqlite3.connect(rollover.directory / "state" / "rollover.db") as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        found = [connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in tables]  # noqa: S608 - the names are the store's own
    connection.close()
    return found


def test_a_dry_run_tells_everything_and_changes_nothing(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    rollover.engine.add_login("pg-eu-1", "orders_app", "x")
    before, roles = rows(rollover), dict(rollover.engine.server("pg-eu-1").roles)
    plan = rollover.done("rotate", name, "--dry-run", "--json").data
    assert plan["login"].startswith("orders_g2_")
    assert plan["replaces"] == "orders_app"
    assert plan["login"] in plan["statements"][0]
    assert "SCRAM-SHA-256$…" in plan["statements"][0]
    assert plan["statements"][-1] == 'DROP ROLE "orders_app"'
    assert plan["variables"] == ["DATABASE_URL"]
    assert (plan["grace"], plan["in_use"], plan["blocked"]) == ("1d", "wait", "10m")
    assert "policy" in plan["grace_reason"]
    assert plan["next_rotation_at"] is not None
    assert plan["faults"] == []
    shown = rollover.done("rotate", name, "--dry-run", "--grace", "2h")
    assert "2h: 2 hours asked for" in shown.out
    assert "NOLOGIN" in shown.out
    assert "nothing was changed" in shown.err
    assert "emergency" in rollover.done("rotate", name, "--dry-run", "--emergency").out
    assert rows(rollover) == before
    assert rollover.engine.server("pg-eu-1").roles == roles
    assert rollover.engine.acts == []


def test_the_dry_run_of_a_first_rotation_has_no_predecessor(rollover: CommandLine) -> None:
    rollover.with_resource()
    empty = RESOURCE_FILE.partition("[current]")[0].replace("store_42", "store_43").replace(PREFIX, 'login_prefix = "second"')
    rollover.done("resource", "add", rollover.file("empty.toml", empty.replace('every = "30d"', "")))
    plan = rollover.done("rotate", "store_43", "--dry-run", "--json").data
    assert (plan["replaces"], plan["grace"], plan["next_rotation_at"]) == (None, None, None)
    assert len(plan["statements"]) == 1
    assert "the first login" in rollover.done("rotate", "store_43", "--dry-run").out


def test_a_dry_run_finds_what_stands_in_the_way(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    rollover.engine.faults = (Fault("admin", "may not make logins", "ALTER ROLE admin CREATEROLE;"),)
    rollover.done("installation", "park", "icfg_1", "--reason", "the token is refused")
    rollover.done("resource", "pause", name)
    answer = rollover("rotate", name, "--dry-run", "--json")
    assert answer.code == 1
    assert [one["field"] for one in answer.data["faults"]] == ["resource", "installation", "admin", "login"]
    shown = rollover("rotate", name, "--dry-run")
    assert shown.code == 1
    assert "CREATEROLE" in shown.out
    rollover.refused("rotate", name, "--dry-run", "--wait", code=2)
    rollover.refused("rotate", "store_9", "--dry-run", code=1)
    rollover.engine.server("pg-eu-1").reachable = False
    assert "cannot be reached" in rollover.refused("rotate", name, "--dry-run", code=1)


def test_the_secrets_are_pushed_again_with_the_same_login(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    (current,) = rollover.done("credential", "list", name, "--json").data
    answer = rollover.done("push", name, "--reason", "Vercel lost them", "--json").data
    assert answer["reception"] == "opened"
    story = rollover.done("rotation", "show", answer["rotation"], "--json").data
    assert story["rotation"]["credential_id"] == current["id"]
    assert story["requests"][0]["reason"] == "Vercel lost them"
    assert rollover.events()[-1] == "push_requested"
    again = rollover("push", name, "--json")
    assert (again.data["reception"], again.data["rotation"]) == ("joined", answer["rotation"])
    assert "already" in again.err


def test_a_push_behind_a_rotation_follows_it(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    rollover.done("rotate", name)
    change(rollover, "UPDATE rotations SET state = 'offered', planned_at = requested_at, offered_at = requested_at")
    assert "after that" in rollover.done("push", name).err


def test_a_push_is_watched_to_its_end(rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    name = rollover.with_resource()
    ended = "UPDATE rotations SET state = 'completed', ended_at = requested_at"
    monkeypatch.setattr("worker.cli.watching.sleep", lambda _: change(rollover, ended))
    assert rollover.done("push", name, "--wait", "--json").data["state"] == "completed"


def test_what_cannot_be_pushed_is_told(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    assert "there is no resource" in rollover.refused("push", "store_9", code=1)
    rollover.done("resource", "pause", name)
    assert "rollover resource resume" in rollover.refused("push", name, code=1)
    empty = RESOURCE_FILE.partition("[current]")[0].replace("store_42", "store_43").replace(PREFIX, 'login_prefix = "second"')
    rollover.done("resource", "add", rollover.file("empty.toml", empty))
    assert "has no credential yet" in rollover.refused("push", "store_43", code=1)


def test_a_request_tells_the_workers_at_once(
    rollover: CommandLine, valkey_server: PrivateBroker, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLOVER_BROKER_URL", valkey_server.url.reveal())
    name = rollover.with_resource()
    rotation = rollover.done("rotate", name, "--json").data["rotation"]
    (message,) = valkey.lrange("rollover.urgent", 0, -1)
    told = json.loads(message)
    assert told["headers"]["task"] == tasks.ADVANCE_ROTATIONS
    assert json.loads(base64.b64decode(told["body"]))[0] == [[rotation]]
    rollover.done("push", name)
    assert valkey.llen("rollover.urgent") == 2


def test_the_broker_of_rollover_up_is_found(rollover: CommandLine, valkey_server: PrivateBroker, valkey: redis.Redis) -> None:
    name = rollover.with_resource()
    run = rollover.directory / "state" / "run"
    run.mkdir()
    for written in ("", "redis://127.0.0.1:1/0", valkey_server.url.reveal()):
        (run / "broker.url").write_text(written)
        rollover.done("rotate", name)
    assert valkey.llen("rollover.urgent") == 1


def test_a_silent_broker_holds_a_command_for_a_second_at_most(rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    name = rollover.with_resource()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for scheme in ("redis", "amqp"):
            monkeypatch.setenv("ROLLOVER_BROKER_URL", f"{scheme}://127.0.0.1:{port}/0")
            rollover.done("rotate", name)
            began = time.monotonic()
            answer = rollover.done("rotate", name)
            assert time.monotonic() - began < hinting.SECONDS + 1
            assert "joined" in answer.err
            assert len(answer.err.splitlines()) == 1
            assert answer.out == ""


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//", "redis://:wrong@{place}/0"])
def test_a_broker_that_refuses_fails_no_command(
    rollover: CommandLine, valkey_server: PrivateBroker, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    place = valkey_server.url.reveal().rpartition("@")[2].partition("/")[0]
    monkeypatch.setenv("ROLLOVER_BROKER_URL", url.format(place=place))
    assert len(rollover.done("rotate", rollover.with_resource()).err.splitlines()) == 1


@pytest.mark.parametrize("grace", ["soon", "", "-1h", "24", "400d"])
def test_a_grace_that_cannot_be_is_refused(rollover: CommandLine, grace: str) -> None:
    name = rollover.with_resource()
    assert "--grace" in rollover.refused("rotate", name, "--grace", grace, code=2)


def test_an_emergency_gives_no_grace(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    rollover.refused("rotate", name, "--emergency", "--grace", "1h", code=2)


def test_an_unknown_resource_is_told(rollover: CommandLine) -> None:
    for words in (("rotate", "store_9"), ("credential", "list", "store_9"), ("events", "store_9"), ("rotation", "list", "store_9")):
        assert "there is no resource 'store_9'" in rollover.refused(*words, code=1)


def test_an_unknown_rotation_is_told(rollover: CommandLine) -> None:
    assert "there is no rotation" in rollover.refused("rotation", "show", "rot_9", code=1)


def test_a_rotation_is_shown_with_who_asked_and_every_step(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    rotation = rollover.done("rotate", name, "--reason", "a new colleague", "--json").data["rotation"]
    text = rollover.done("rotation", "show", rotation).out
    for word in (rotation, name, "requested", "asked by", "a new colleague", "rotation_requested"):
        assert word in text


def test_waiting_shows_each_step_and_ends_with_the_rotation(rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    name = rollover.with_resource()
    looks = iter(
        [
            "UPDATE rotations SET state = 'offered', planned_at = requested_at, offered_at = requested_at, problem = 'Vercel is busy'",
            "UPDATE rotations SET state = 'completed', ended_at = requested_at, problem = ''",
        ]
    )
    monkeypatch.setattr("worker.cli.watching.sleep", lambda _: change(rollover, next(looks)))
    answer = rollover.done("rotate", name, "--wait")
    told = [line.split()[-1] for line in answer.err.splitlines()]
    assert told[1:] == ["requested", "planned", "offered", "busy", "completed"]


def test_waiting_for_a_rotation_that_fails_ends_with_1(rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    name = rollover.with_resource()
    failed = "UPDATE rotations SET state = 'failed', ended_at = requested_at, problem = 'no rights', advice = 'GRANT them'"
    monkeypatch.setattr("worker.cli.watching.sleep", lambda _: change(rollover, failed))
    answer = rollover("rotate", name, "--wait", "--json")
    assert (answer.code, answer.data["state"]) == (1, "failed")
    assert "no rights" in answer.err
    assert "GRANT them" in answer.err


def test_waiting_without_a_worker_says_so(rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    name = rollover.with_resource()
    looks = iter(["", "", "UPDATE rotations SET state = 'abandoned', ended_at = requested_at"])
    seconds = iter(range(0, 1000, 11))
    monkeypatch.setattr("worker.cli.watching.monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr("worker.cli.watching.sleep", lambda _: change(rollover, next(looks)))
    answer = rollover("rotate", name, "--wait")
    assert answer.code == 1
    assert "no worker seems to run" in answer.err


def test_logins_are_listed_without_what_is_sealed(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    (line,) = rollover.done("credential", "list", name, "--json").data
    assert (line["username"], line["stage"], line["generation"]) == ("orders_app", "current", 1)
    assert not [key for key in line if "sealed" in key]
    assert "orders_app" in rollover.done("credential", "list", name).out


def test_a_block_is_undone_with_a_new_end(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    credential = rollover.done("credential", "list", name, "--json").data[0]["id"]
    assert "not in grace or blocked" in rollover.refused("undo-block", credential, "--grace", "2h", code=1)
    change(rollover, "UPDATE credentials SET stage = 'blocked', grace_ends_at = recorded_at, blocked_at = recorded_at")
    rollover.refused("undo-block", credential, "--grace", "0s", code=1)
    rollover.refused("undo-block", credential, "--grace", "soon", code=2)
    assert rollover.done("undo-block", credential, "--grace", "2h", "--json").data["credential"] == credential
    assert rollover.done("credential", "list", name, "--json").data[0]["stage"] == "previous"


def test_an_unknown_credential_is_told(rollover: CommandLine) -> None:
    assert "there is no credential" in rollover.refused("undo-block", "cred_9", "--grace", "2h", code=1)


def test_events_are_told_for_one_resource_or_all(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    assert [one["kind"] for one in rollover.done("events", name, "--json").data] == ["resource_registered"]
    assert len(rollover.done("events", "--json").data) == 3
    assert len(rollover.done("events", "--limit", "1").out.splitlines()) == 2
    rollover.refused("events", "--limit", "0", code=2)


def test_the_status_counts_and_says_what_is_late(rollover: CommandLine) -> None:
    assert "resource add" in rollover.done("status").out
    name = rollover.with_resource()
    rollover.done("rotate", name)
    counts = rollover.done("status", "--json").data
    assert counts["rotations"] == {"requested": 1}
    change(rollover, "UPDATE rotations SET due_at = '2020-01-01 00:00:00.000000'")
    assert "do workers run?" in rollover.done("status").err
