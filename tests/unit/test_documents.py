"""What the pages and the program's own advice name is there: commands, options, settings, tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from worker.cli.main import app
from worker.settings import SECRETS, Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SOURCES = sorted(path for room in ("rotation", "worker") for path in (ROOT / room).rglob("*.py"))

# After the program's name, words and options up to whatever ends the code.
COMMAND = re.compile(r"(?:`|^\$ |^  )rollover((?: [a-z-]+)+)((?: [^`\n|]*)?)", re.MULTILINE)
OPTION = re.compile(r"(?<=\s)--[a-z-]+")


def known() -> dict[str, set[str]]:
    """Every command with its options."""
    found: dict[str, set[str]] = {}

    def walk(command: Any, name: str) -> None:  # noqa: ANN401 - Typer's own classes for commands are private
        found[name] = {option for one in command.params for option in one.opts}
        for word, one in getattr(command, "commands", {}).items():
            walk(one, f"{name} {word}".strip())

    walk(typer.main.get_command(app), "")
    return found


COMMANDS = known()


def unknown(text: str) -> list[str]:
    """The commands and options in a text that the program does not have."""
    missing = []
    for words, rest in COMMAND.findall(text):
        parts = words.split()
        grouped = any(name.startswith(f"{parts[0]} ") for name in COMMANDS)
        name = " ".join(parts[: 2 if grouped else 1])
        if name not in COMMANDS:
            missing.append(f"rollover {name}")
        else:
            missing += [f"rollover {name} {option}" for option in OPTION.findall(rest) if option not in COMMANDS[name]]
    return missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    assert unknown(page.read_text(encoding="utf-8")) == []


def test_the_commands_that_messages_advise_exist() -> None:
    missing = {command for path in SOURCES for command in unknown(path.read_text(encoding="utf-8"))}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_settings_of_a_page_exist(page: Path) -> None:
    settings = {f"ROLLOVER_{name.upper()}" for name in Settings.model_fields} | {f"ROLLOVER_{name.upper()}_FILE" for name in SECRETS}
    assert set(re.findall(r"\bROLLOVER_[A-Z_]+\b", page.read_text(encoding="utf-8"))) - settings == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_of_a_page_exist(page: Path) -> None:
    named = re.findall(r"\b(?:tests|rotation|worker|migrations|docs|tools|bench)/[\w/.-]*", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path.rstrip(".")).exists()] == []


def test_what_is_not_there_is_found() -> None:
    text = "say `rollover rotate X --soon`, `rollover fly` or `rollover keys melt`"
    assert unknown(text) == ["rollover rotate --soon", "rollover fly", "rollover keys melt"]
