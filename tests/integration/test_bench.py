"""`python -m bench` works: its numbers are for a quiet machine and for people, never asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bench(*options: str) -> str:
    command = [sys.executable, "-m", "bench", "--quick", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)  # noqa: S603 - this interpreter and our own module
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_both_sides_work_in_turn_and_are_compared() -> None:
    told = bench("--sections", "throughput,tick", "--at-once", "1,2", "--each", "4", "--fleets", "100,300", "--json")
    lines = {line["what"]: line for line in json.loads(told)}
    for what in ("rotations, 1 at once", "rotations, 2 at once", "retirements, 2 at once"):
        assert lines[what]["worker"] > 0
        assert lines[what]["ratio"] == lines[what]["worker"] / lines[what]["floor"]
    for size in (100, 300):
        assert lines[f"tick, {size} resources, 20 due"]["worker"] > lines[f"tick, {size} resources, 0 due"]["worker"]
