"""`python -m tests.crash` itself: a worker that is right survives, and one that makes a mistake is found out."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.rigs import ROOT, _foreign

ENDS_WITHIN = 240
AT_THE_PUSH = ("--scenario", "schedule", "--at-once", "2")


def crash_points(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """The exit code, the report, and what was told."""
    command = [sys.executable, "-P", "-m", "tests.crash", "--json", "--seed", "1", *arguments]
    environment = {**_foreign(), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=ENDS_WITHIN, check=False)  # noqa: S603 - this interpreter and our own module
    return ended.returncode, json.loads(ended.stdout), ended.stderr


@pytest.mark.timeout(ENDS_WITHIN + 10)
def test_a_worker_that_is_killed_around_its_push_breaks_no_promise() -> None:
    code, report, told = crash_points(*AT_THE_PUSH, "--only", ": kill lost sink.push")
    assert (code, report["violations"], report["faults_that_did_not_happen"]) == (0, 0, 0), told
    assert report["boundaries_tested"] == 1
    assert report["boundaries_found"] > 40
    assert report["logins_of_customers"] > 0


@pytest.mark.timeout(ENDS_WITHIN + 10)
def test_a_worker_that_removes_the_new_login_after_a_push_without_an_answer_is_found_out() -> None:
    code, report, told = crash_points(*AT_THE_PUSH, "--only", ": error lost sink.push", "--worker", "tests.crash.careless")
    assert (code, report["violations"], report["faults_that_did_not_happen"]) == (1, 1, 0), told
    assert "a promise was broken" in told
    assert "again: python -m tests.crash --seed 1 --only 'schedule: error lost sink.push, rotation offered'" in told
