"""`python -m tests.crash`: every crash point, with a real worker that dies there."""

from __future__ import annotations

import argparse
import json
import random
import secrets
import sys
import time
from typing import TYPE_CHECKING

from tests.crash.boundaries import faults_at
from tests.crash.lanes import Lanes
from tests.crash.report import Report
from tests.crash.runs import Order, Servers
from tests.crash.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.crash.boundaries import Boundary
    from tests.crash.runs import Verdict

SQLITE_EVERY = 10
"""Every so manieth run has its store on SQLite."""


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    began = time.monotonic()
    with Servers.started(options.at_once) as servers, Lanes(options.at_once, servers) as lanes:
        found, verdicts = _found(lanes)
        orders = _orders(found, options)
        for done, verdict in enumerate(lanes.verdicts(orders), start=1):
            verdicts.append(verdict)
            _tell(verdict)
            if not options.json:
                _progress(f"{done} of {len(orders)}: {verdict.order}: {verdict.seconds:.1f} s")
    report = Report(list(found), verdicts, options.seed, time.monotonic() - began)
    sys.stdout.write(json.dumps(report.as_json(), indent=2) + "\n" if options.json else "\n".join(report.lines()) + "\n")
    return 1 if report.violations or report.missed or not found else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--sample", type=int, help="so many runs, drawn by the seed, instead of all")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of all draws; printed at the end")
    parser.add_argument("--only", default="", help="only runs whose name holds this text")
    parser.add_argument("--at-once", type=int, default=4, help="runs side by side")
    parser.add_argument("--json", action="store_true", help="the report as JSON, on the standard output")
    return parser.parse_args(arguments)


def _found(lanes: Lanes) -> tuple[dict[Boundary, str], list[Verdict]]:
    """The boundaries, each with the first scenario that passes it: what runs without a fault wrote down."""
    verdicts = list(lanes.verdicts(Order(number, name) for number, name in enumerate(SCENARIOS)))
    verdicts.sort(key=lambda verdict: verdict.order.number)
    for verdict in verdicts:
        _tell(verdict)
    found: dict[Boundary, str] = {}
    for verdict in verdicts:
        for boundary in verdict.boundaries:
            found.setdefault(boundary, verdict.order.scenario)
    return found, verdicts


def _orders(found: dict[Boundary, str], options: argparse.Namespace) -> list[Order]:
    chance = random.Random(options.seed)  # noqa: S311 - the same runs each time
    faults = [(scenario, fault) for boundary, scenario in found.items() for fault in faults_at(boundary)]
    chance.shuffle(faults)
    first = len(SCENARIOS)
    orders = [Order(number, *each) for number, each in enumerate(faults, start=first)]
    orders = [one for one in orders if options.only in str(one)]
    return orders[: options.sample]


def _tell(verdict: Verdict) -> None:
    """The story of one that went wrong, and how to see it again."""
    missed = verdict.order.fault is not None and not verdict.fired
    if verdict.story or missed:
        why = "the fault did not happen" if missed else "a promise was broken"
        sys.stderr.write(f"\n{verdict.order}: {why}\n{verdict.story}\nagain: python -m tests.crash --only '{verdict.order}'\n")


def _progress(line: str) -> None:
    """One line a run; where a person looks on, the same one."""
    sys.stderr.write(f"\r{line[:120]:120}" if sys.stderr.isatty() else f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
