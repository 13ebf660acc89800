"""The bench's table and gauges."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bench.gauges import cpu_seconds, resident_bytes
from bench.report import Line, as_json, as_table, line, percentile

LINES = [line("rotations, 8 at once", "a second", [90.0, 110.0, 100.0], [130.0, 120.0, 125.0]), Line("memory", "MB", 118.4)]


def test_a_line_holds_the_medians_and_their_ratio() -> None:
    assert (LINES[0].worker, LINES[0].floor, LINES[0].rounds) == (100.0, 125.0, 3)
    assert LINES[0].ratio == pytest.approx(0.8)


def test_what_has_no_floor_or_a_floor_of_nothing_has_no_ratio() -> None:
    assert LINES[1].ratio is None
    assert Line("CPU of broker", "ms each", 1.0, 0.0).ratio is None


def test_the_table_is_markdown_with_aligned_columns() -> None:
    assert as_table(LINES).splitlines() == [
        "|                                | worker | floor | worker / floor |",
        "| ------------------------------ | -----: | ----: | -------------: |",
        "| rotations, 8 at once, a second |    100 |   125 |           0.80 |",
        "| memory, MB                     |    118 |       |                |",
    ]


def test_machines_get_the_same() -> None:
    read = json.loads(as_json(LINES))
    assert [(one["what"], one["worker"], one["ratio"]) for one in read] == [("rotations, 8 at once", 100.0, 0.8), ("memory", 118.4, None)]


def test_a_percentile_lies_between_the_values() -> None:
    assert percentile([1.0], 99) == 1.0
    assert percentile([float(number) for number in range(101)], 50) == 50.0


def test_the_cost_of_a_child_that_has_ended_still_counts() -> None:
    before = cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert cpu_seconds(os.getpid()) - before > 0.2


def test_a_process_that_is_gone_costs_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert cpu_seconds(child.pid) == 0.0


def test_memory_is_told_in_bytes() -> None:
    assert 1_000_000 < resident_bytes(os.getpid()) < 10_000_000_000
