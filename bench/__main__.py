"""`python -m bench`: measure, then print the table."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import structlog

from bench.parts import Parts
from bench.report import as_json, as_table
from bench.sections import FULL, QUICK, Bench

SECTIONS = ("throughput", "latency", "memory", "tick")
LONG = ("longevity", "bulkhead")
"""Only when they are asked for: they take minutes, and are compared with themselves, not with the floor."""


def main() -> None:
    """Run the sections that were asked for."""
    options = _options()
    # The bench's own process triggers and asks; only the workers' logs are part of what is measured.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    sizes = QUICK if options.quick else FULL
    names = ("rounds", "each", "at_once", "fleets", "rotations")
    changes = {name: value for name in names if (value := getattr(options, name)) is not None}
    sizes = replace(sizes, **changes)
    with (
        tempfile.TemporaryDirectory(prefix="rollover-bench-") as directory,
        Parts(Path(directory)) as parts,
        closing(Bench(parts, sizes)) as bench,
    ):
        lines = [line for section in options.sections for line in getattr(bench, section)()]
    sys.stdout.write((as_json(lines) if options.json else as_table(lines)) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="The whole worker against a bare script that does the same work.")
    parser.add_argument("--sections", type=_sections, default=SECTIONS, help=f"only these of {','.join(SECTIONS + LONG)}")
    parser.add_argument("--rounds", type=int, help="how often each side has its turn")
    parser.add_argument("--each", type=int, help="rotations a round")
    parser.add_argument("--at-once", type=_numbers, help="how many at once, e.g. 1,8,16")
    parser.add_argument("--fleets", type=_numbers, help="how many resources the tick sees, in ascending order, e.g. 1000,100000")
    parser.add_argument("--rotations", type=int, help="how many rotations of one resource `longevity` makes")
    parser.add_argument("--quick", action="store_true", help="only to see that everything works: the numbers mean nothing")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser.parse_args()


def _sections(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(SECTIONS + LONG):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return names


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    main()
