"""The runbook names every alarm that the code raises, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from rotation.states import Alarm

ROOT = Path(__file__).parents[2]
SOURCES = [path.read_text(encoding="utf-8") for room in ("rotation", "worker") for path in (ROOT / room).rglob("*.py")]


def told(heading: str) -> set[str]:
    """The names in the tables whose first column has this heading."""
    page = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    tables = re.findall(rf"^\| {heading} \|.*\n\| ?---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    return {name for table in tables for row in table.splitlines() for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}


def test_every_alarm_is_in_the_runbook() -> None:
    assert {str(alarm) for alarm in Alarm} - told("alarm") == set()


def test_the_runbook_tells_no_alarm_that_cannot_come() -> None:
    assert told("alarm") - {str(alarm) for alarm in Alarm} == set()


def test_every_alarm_is_raised_somewhere_by_its_name_and_by_nothing_else() -> None:
    used = {name.lower() for source in SOURCES for name in re.findall(r"\bAlarm\.([A-Z_]+)", source)}
    assert used == {str(alarm) for alarm in Alarm}
    literal = re.compile(r'(?:alarm ?= ?"[a-z_]+")|(?:"[a-z_]+",\s*alarm=True)|(?:\balarm\("[a-z_]+")')
    assert [found for source in SOURCES for found in literal.findall(source)] == []


def test_the_other_events_of_the_runbook_are_in_the_code() -> None:
    source = "".join(SOURCES)
    assert {name for name in told("log event") if f'"{name}"' not in source} == set()
