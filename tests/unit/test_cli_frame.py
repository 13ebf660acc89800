"""Help, errors, exit codes and the shape of what is printed."""

from __future__ import annotations

import importlib.metadata
from datetime import UTC, datetime, time, timedelta
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING

import pytest

from rotation.errors import Fault, Invalid, RolloverError, Unavailable
from rotation.model import Window
from rotation.sensitive import Sensitive
from worker.cli import output

if TYPE_CHECKING:
    from tests.command_line import CommandLine

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOUNS = ("resource", "server", "installation", "rotation", "credential", "keys", "audit", "sandbox")


def test_help_names_every_command(bare_rollover: CommandLine) -> None:
    text = bare_rollover.done("--help").out
    for command in ("demo", "up", "status", "doctor", "rotate", "undo-block", "events", "migrate", "settings", "worker", "beat", *NOUNS):
        assert f"\n  {command} " in text


@pytest.mark.parametrize("noun", NOUNS)
def test_each_noun_has_help(bare_rollover: CommandLine, noun: str) -> None:
    assert "Commands:" in bare_rollover.done(noun, "--help").out


def test_the_version_is_printed(bare_rollover: CommandLine) -> None:
    assert bare_rollover.done("--version").out.startswith("rollover")


def test_a_directory_that_is_not_installed_has_no_version(bare_rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert bare_rollover.done("--version").out == "rollover 0+unknown\n"


@pytest.mark.parametrize("words", [("nonsense",), ("rotate",), ("resource", "show", "a", "b"), ("status", "--nonsense")])
def test_wrong_use_is_told_and_ends_with_2(bare_rollover: CommandLine, words: tuple[str, ...]) -> None:
    answer = bare_rollover(*words)
    assert answer.code == 2
    assert "Error" in answer.err


def test_every_wrong_setting_is_told_at_once(bare_rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOVER_TICK_SECONDS", "CANARY")
    monkeypatch.setenv("ROLLOVER_NONSENSE", "CANARY")
    answer = bare_rollover("status")
    assert answer.code == 2
    assert "2 faults" in answer.err
    assert "ROLLOVER_TICK_SECONDS" in answer.err
    assert "ROLLOVER_NONSENSE" in answer.err


def test_a_store_without_tables_says_what_to_do(bare_rollover: CommandLine) -> None:
    answer = bare_rollover("status")
    assert answer.code == 1
    assert "rollover migrate" in answer.err


def test_migrating_twice_is_harmless(bare_rollover: CommandLine) -> None:
    first = bare_rollover.done("migrate", "--json").data
    assert first["before"] is None
    assert bare_rollover.done("migrate", "--json").data == {"before": first["after"], "after": first["after"]}


def test_the_settings_show_no_secret(bare_rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOVER_BROKER_URL", "redis://:CANARY@broker.example.com:6379/0")
    rows = {one["name"]: one for one in bare_rollover.done("settings", "--json").data}
    assert rows["ROLLOVER_BROKER_URL"]["source"] == "environment"
    assert "broker.example.com" in bare_rollover.done("settings").out


def test_a_wide_table_is_readable_at_80_columns(rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = rollover.with_resource()
    rollover.done("rotate", name, "--reason", "because somebody said so in a rather long sentence")
    for words in (("resource", "list"), ("rotation", "list"), ("events",), ("credential", "list", name), ("installation", "list")):
        lines = rollover.done(*words).out.splitlines()
        assert len(lines) > 1
        assert max(map(len, lines)) <= 80


def test_output_that_is_no_terminal_is_not_folded(rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    rollover.with_resource()
    assert len(rollover.done("resource", "list").out.splitlines()) == 2


def test_distances_are_said_in_their_largest_unit() -> None:
    assert output.distance(NOW + timedelta(hours=3), NOW) == "in 3h"
    assert output.distance(NOW - timedelta(seconds=90), NOW) == "90s ago"
    assert output.distance(NOW - timedelta(days=40), NOW) == "40d ago"
    assert output.distance(NOW, NOW) == "now"
    assert output.distance(None, NOW) == output.NOTHING


def test_foreign_text_cannot_steer_the_terminal() -> None:
    assert output.text("a\x1b[2Jb") == "a\N{REPLACEMENT CHARACTER}[2Jb"


def test_json_knows_times_and_refuses_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    output.show({"at": NOW, "window": Window(time(1), time(5)), "grace": timedelta(hours=24), "names": frozenset({"b", "a"})})
    assert '"2026-03-01T12:00:00+00:00"' in capsys.readouterr().out
    with pytest.raises(TypeError):
        output.show({"password": Sensitive("CANARY")})


def test_an_error_becomes_a_sentence_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert output.tell(RolloverError("it is closed")) == 1
    assert output.tell(Unavailable("later", retry_after=timedelta(seconds=30))) == 1
    assert output.tell(Invalid([Fault("name", "is missing", "give one")])) == 2
    assert capsys.readouterr().err.splitlines() == [
        "rollover: it is closed",
        "rollover: later",
        "  try again in 30s",
        "rollover: there is one fault",
        "  name: is missing (give one)",
    ]
