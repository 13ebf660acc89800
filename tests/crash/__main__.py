"""`python -m tests.crash`: every crash point, with a real worker that dies there; and pairs of faults, in process."""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import sys
import time
from typing import TYPE_CHECKING

from tests.crash import pairs
from tests.crash.boundaries import STORE, Kind, faults_at
from tests.crash.lanes import Lanes
from tests.crash.report import Report
from tests.crash.runs import CRASHING, Order, Servers
from tests.crash.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.crash.boundaries import Boundary, Fault
    from tests.crash.runs import Verdict

SQLITE_EVERY = 10
"""Every so manieth run has its store on SQLite."""
PAIRS = 20_000
"""Histories with two faults. Not each second fault is still ahead when the first has happened: two of three are."""
PAIRS_FOR_A_RUN = 25
"""So many for each run of a sample."""


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    report = Report(options.seed)
    pairs.quiet()
    _in_process(report, options)
    _with_real_workers(report, options)
    sys.stdout.write(json.dumps(report.as_json(), indent=2) + "\n" if options.json else "\n".join(report.lines()) + "\n")
    return 0 if report.is_clean else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--sample", type=int, help="so many runs, drawn by the seed, instead of all")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of all draws; printed at the end")
    parser.add_argument("--only", default="", help="only runs whose name holds this text")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only this one; may be repeated")
    parser.add_argument("--at-once", type=int, default=4, help="runs side by side")
    parser.add_argument("--pairs", type=int, help="so many histories with two faults")
    parser.add_argument("--worker", default=CRASHING, help="the module that is the crashing worker")
    parser.add_argument("--json", action="store_true", help="the report as JSON, on the standard output")
    options = parser.parse_args(arguments)
    if options.pairs is None:
        options.pairs = 0 if options.only else PAIRS if options.sample is None else PAIRS_FOR_A_RUN * options.sample
    return options


def _in_process(report: Report, options: argparse.Namespace) -> None:
    """Two faults a history."""
    if not options.pairs:
        return
    began = time.monotonic()
    chosen = [one for one in pairs.pairs() if options.only in str(one)]
    random.Random(options.seed).shuffle(chosen)  # noqa: S311 - the same ones each time
    for done, outcome in enumerate(pairs.outcomes(chosen[: options.pairs], options.seed, os.cpu_count() or 1), start=1):
        report.pairs[outcome.happened] += 1
        if outcome.story:
            report.broken_pairs += 1
            sys.stderr.write(f"\n{outcome.story}\nagain: python -m tests.crash --seed {options.seed} --only '{outcome.pair}' --pairs 1\n")
        elif done % 1_000 == 0:
            _progress(f"{done} of {min(options.pairs, len(chosen))} pairs", options)
    report.pair_seconds = time.monotonic() - began


def _with_real_workers(report: Report, options: argparse.Namespace) -> None:
    """One fault a run."""
    began = time.monotonic()
    with Servers.started(options.at_once) as servers, Lanes(options.at_once, servers) as lanes:
        found = _found(lanes, report, options)
        orders = _orders(found, options)
        for done, verdict in enumerate(lanes.verdicts(orders), start=1):
            report.verdicts.append(verdict)
            _tell(verdict, options)
            _progress(f"{done} of {len(orders)} runs: {verdict.order}: {verdict.seconds:.1f} s", options)
    report.seconds = time.monotonic() - began


def _found(lanes: Lanes, report: Report, options: argparse.Namespace) -> dict[Boundary, str]:
    """The boundaries, each with the first scenario that passes it: what runs without a fault wrote down."""
    names = options.scenario or list(SCENARIOS)
    verdicts = list(lanes.verdicts(Order(number, name) for number, name in enumerate(names)))
    verdicts.sort(key=lambda verdict: verdict.order.number)
    for verdict in verdicts:
        report.verdicts.append(verdict)
        _tell(verdict, options)
        for boundary in verdict.boundaries:
            report.found.setdefault(boundary, verdict.order.scenario)
    return report.found


def _orders(found: dict[Boundary, str], options: argparse.Namespace) -> list[Order]:
    faults = [(scenario, fault) for boundary, scenario in found.items() for fault in faults_at(boundary)]
    random.Random(options.seed).shuffle(faults)  # noqa: S311 - the same runs each time
    orders = [
        Order(number, scenario, fault, sqlite=number % SQLITE_EVERY == 0 and _may_be_on_sqlite(fault), worker=options.worker)
        for number, (scenario, fault) in enumerate(faults, start=len(SCENARIOS))
    ]
    orders = [one for one in orders if options.only in str(one)]
    return orders[: options.sample]


def _may_be_on_sqlite(fault: Fault) -> bool:
    """There is no connection to be cut to a store that is a file."""
    return (fault.boundary.port, fault.kind) != (STORE, Kind.RESET)


def _tell(verdict: Verdict, options: argparse.Namespace) -> None:
    """The story of one that went wrong, and how to see it again."""
    missed = verdict.order.fault is not None and not verdict.fired
    if verdict.story or missed:
        why = "the fault did not happen" if missed else "a promise was broken"
        again = f"python -m tests.crash --seed {options.seed} --only '{verdict.order}'"
        sys.stderr.write(f"\n{verdict.order}: {why}\n{verdict.story}\nagain: {again}\n")


def _progress(line: str, options: argparse.Namespace) -> None:
    """Where a person looks on, the same line again and again."""
    if not options.json:
        sys.stderr.write(f"\r{line[:120]:120}" if sys.stderr.isatty() else f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
