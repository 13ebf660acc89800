"""The runbook names every alarm that the code raises, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

RAISED = (
    re.compile(r'alarm="([a-z_]+)"'),
    re.compile(r'alarm = "([a-z_]+)"'),
    re.compile(r'"([a-z_]+)", alarm=True'),
    re.compile(r'\balarm\("([a-z_]+)"'),
)


def raised() -> set[str]:
    sources = [path.read_text(encoding="utf-8") for room in ("rotation", "worker") for path in (ROOT / room).rglob("*.py")]
    return {name for source in sources for pattern in RAISED for name in pattern.findall(source)}


def told(heading: str) -> set[str]:
    """The names in the tables whose first column has this heading."""
    page = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    tables = re.findall(rf"^\| {heading} \|.*\n\| ?---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    return {name for table in tables for row in table.splitlines() for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}


def test_every_alarm_is_in_the_runbook() -> None:
    assert raised() - told("alarm") == set()


def test_the_runbook_tells_no_alarm_that_cannot_come() -> None:
    assert told("alarm") - raised() == set()


def test_the_other_events_of_the_runbook_are_in_the_code() -> None:
    source = "".join(path.read_text(encoding="utf-8") for room in ("rotation", "worker") for path in (ROOT / room).rglob("*.py"))
    assert {name for name in told("log event") if f'"{name}"' not in source} == set()
