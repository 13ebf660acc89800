"""The page for Prometheus, and the same numbers for people."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from rotation.states import Alarm, ResourceState, RotationState, Stage
from rotation.store.views import Status
from tests.fakes.clock import START
from worker import metrics

if TYPE_CHECKING:
    from tests.command_line import CommandLine

SAMPLE = re.compile(r'^(rollover_[a-z_]+)(?:\{([a-z]+)="((?:[^"\\\n]|\\.)*)"\})? (-?[0-9.]+(?:e[+-]?[0-9]+)?)$')


def status(**changes: object) -> Status:
    values: dict[str, object] = {
        "at": START,
        "resources": {ResourceState.ACTIVE: 1_234_567},
        "due": 2,
        "rotations": {RotationState.OFFERED: 3},
        "credentials": {Stage.PREVIOUS: 4},
        "in_grace": 3,
        "waiting_for_use": 1,
        "parked": 1,
        "failing": 0,
        "astray": 0,
        "orphans": 0,
        "held": 0,
        "oldest_look_at": None,
        "oldest_due_at": START - timedelta(seconds=90.5),
        "alarms": {"work_overdue": 1, "push_refused": 5},
    }
    return Status(**values | changes)  # type: ignore[arg-type]  # the fields as they are named


def samples(page: str) -> dict[tuple[str, str], float]:
    """As a server of Prometheus' reads them; every line of the page must be one of the three kinds."""
    found = {}
    told: set[str] = set()
    for line in page.splitlines():
        if line.startswith("#"):
            told.add(line.split(" ", 3)[2])
            continue
        match = SAMPLE.match(line)
        assert match, line
        assert match[1] in told, "what it says and its type come first"
        found[match[1], match[3] or ""] = float(match[4])
    return found


def test_the_page_says_what_the_status_says() -> None:
    found = samples(metrics.text(status()))
    assert found["rollover_resources", "active"] == 1_234_567
    assert found["rollover_rotations_under_way", "offered"] == 3
    assert found["rollover_logins", "previous"] == 4
    assert found["rollover_oldest_overdue_seconds", ""] == 90.5
    assert found["rollover_alarms", "push_refused"] == 5


def test_an_alarm_that_does_not_stand_is_a_zero_so_that_a_rule_can_be_written_for_it() -> None:
    found = samples(metrics.text(status(alarms={}, oldest_due_at=None)))
    assert {name for metric, name in found if metric == "rollover_alarms"} == {str(alarm) for alarm in Alarm}
    assert {value for (metric, _), value in found.items() if metric == "rollover_alarms"} == {0}
    assert found["rollover_oldest_overdue_seconds", ""] == 0


def test_a_name_that_this_version_does_not_know_is_told_and_cannot_break_the_page() -> None:
    found = samples(metrics.text(status(alarms={'a "newer"\\alarm\n': 1})))
    assert found["rollover_alarms", r"a \"newer\"\\alarm\n"] == 1


def test_the_page_ends_with_a_line_end() -> None:
    assert metrics.text(status()).endswith("\n")


def test_the_commands_print_what_the_store_knows(rollover: CommandLine) -> None:
    rollover.with_resource()
    rollover.done("installation", "park", "icfg_1", "--reason", "the token is refused")
    found = samples(rollover.done("metrics").out)
    assert found["rollover_resources", "active"] == 1
    assert found["rollover_alarms", "installation_parked"] == 1
    assert rollover.done("status", "--json").data["alarms"] == {"installation_parked": 1}
    assert "1 installation_parked" in rollover.done("status").out
