"""The tour in the README, typed as it stands there: every command succeeds, and what the page shows is what is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import readme_tour
from tests.processes import Process, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATIENCE = 120.0
"""Seconds until the page's words come true; the longest wait is for a grace period to end."""
LOOKING = re.compile(r" (list|show|status|events|doctor|check|verify)\b")
"""Commands that only look, so that they may be typed again until something has happened."""

pytestmark = pytest.mark.timeout(3 * PATIENCE)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home of its own, and `rollover` on the path. No terminal's width: nothing is folded."""
    foreign = {name: value for name, value in os.environ.items() if not name.startswith("ROLLOVER_") and name != "COLUMNS"}
    return {**foreign, "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture
def tour() -> readme_tour.Tour:
    return readme_tour.read(readme_tour.README.read_text(encoding="utf-8"))


class Terminal:
    """The third terminal: it remembers where it is and what was sourced, and what the ids of the page are called here."""

    def __init__(self, environment: Mapping[str, str], directory: Path) -> None:
        self._environment = environment
        self._directory = directory
        self._before: list[str] = []
        self._names: dict[str, str] = {}

    def do(self, step: readme_tour.Step) -> None:
        """Type it; what it says on the page has come true when this returns."""
        if step.command.startswith(("cd ", ". ")):
            self._before.append(step.command)
            return
        command = re.sub("|".join(map(re.escape, self._names)) or "(?!)", lambda found: self._names[found[0]], step.command)
        until = time.monotonic() + (PATIENCE if LOOKING.search(command) else 0)
        code, printed = self._run(command)
        while readme_tour.missing(step, printed) and time.monotonic() < until:
            code, printed = self._run(command)
        assert code == 0, f"{command}\n{printed}"
        assert readme_tour.missing(step, printed) == [], f"{command}\n{printed}"
        self._names |= readme_tour.names(step, printed)

    def _run(self, command: str) -> tuple[int, str]:
        script = "\n".join([*self._before, command])
        done = subprocess.run(  # noqa: S603 - what the README says
            ["/bin/sh", "-ec", script],
            cwd=self._directory,
            env=dict(self._environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout


def running_on(name: str, steps: tuple[readme_tour.Step, ...], environment: Mapping[str, str], log: Path) -> Process:
    """A terminal whose last command runs until it is ended."""
    *before, last = (one.command for one in steps)
    return Process(name, ["/bin/sh", "-ec", "\n".join([*before, f"exec {last}"])], environment, log)


@pytest.fixture
def terminal(tour: readme_tour.Tour, environment: dict[str, str], tmp_path: Path) -> Iterator[Terminal]:
    """The third terminal, while the other two are at work."""
    rehearsal = running_on("rehearsal", tour.rehearsal, environment, tmp_path / "rehearsal.log")
    try:
        shown = tour.rehearsal[-1]
        assert eventually(lambda: not readme_tour.missing(shown, rehearsal.log.read_text()), PATIENCE), rehearsal.last_words()
        up = running_on("up", tour.up, environment, tmp_path / "up.log")
        try:
            eventually(lambda: "child=beat" in up.log.read_text() or not up.runs, PATIENCE)
            assert up.runs, up.last_words()
            yield Terminal(environment, tmp_path)
        finally:
            up.end()
    finally:
        rehearsal.end()


def test_every_command_of_the_tour_does_what_the_readme_says(tour: readme_tour.Tour, terminal: Terminal, tmp_path: Path) -> None:
    for step in tour.steps:
        terminal.do(step)
    told = (tmp_path / "rehearsal.log").read_text()
    assert re.search(r"orders: redeployed with orders_g2_\w+; [\d,]+ logins accepted, 0 refused", told), told
