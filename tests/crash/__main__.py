"""`python -m tests.crash`: every crash point, with a real worker that dies there; and pairs of faults, in process."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import secrets
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.crash import pairs
from tests.crash.boundaries import STORE, Kind, faults_at
from tests.crash.lanes import Lanes
from tests.crash.report import Report
from tests.crash.runs import CRASHING, Order, Servers
from tests.crash.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.crash.boundaries import Boundary, Fault
    from tests.crash.runs import Verdict

ON_SQLITE = 0.1
"""The share of the runs that have their store on SQLite."""
TRIES = 3
"""What a slow machine did not let happen (an older push was no longer on its way, say) is tried so often before it counts as missed."""
RECORDINGS = 2
"""A boundary that only some of them pass was met by chance, as a call that took too long on a slow machine: it cannot be met at will,
and is counted, not tested."""
NEXT_TRY = 1_000
"""Runs have numbers of their own, as the names on the servers are made of them."""
PAIRS = 20_000
"""Histories with two faults. Not each second fault is still ahead when the first has happened: two of three are."""
PAIRS_FOR_A_RUN = 25
"""So many for each run of a sample."""


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    report = Report(options.seed)
    pairs.quiet()
    if options.pairs or options.pair is not None:
        _in_process(report, options)
    if options.pair is None:
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
    parser.add_argument("--pair", type=int, help="only the history with this number")
    parser.add_argument("--worker", default=CRASHING, help="the module that is the crashing worker")
    parser.add_argument("--json", action="store_true", help="the report as JSON, on the standard output")
    options = parser.parse_args(arguments)
    if options.pairs is None:
        options.pairs = 0 if options.only else PAIRS if options.sample is None else PAIRS_FOR_A_RUN * options.sample
    return options


def _in_process(report: Report, options: argparse.Namespace) -> None:
    """Two faults a history."""
    began = time.monotonic()
    chosen = [one for one in pairs.pairs(options.seed) if options.pair in (None, one.number)]
    random.Random(options.seed).shuffle(chosen)  # noqa: S311 - the same ones each time
    chosen = chosen[: options.pairs or 1]
    for done, outcome in enumerate(pairs.outcomes(chosen, os.cpu_count() or 1), start=1):
        report.pairs[outcome.happened - outcome.in_vain] += 1
        report.pairs_missed += not outcome.happened
        report.pairs_in_vain += outcome.in_vain
        if outcome.story:
            report.broken_pairs += 1
            sys.stderr.write(f"\n{outcome.story}\nagain: python -m tests.crash --seed {options.seed} --pair {outcome.pair.number}\n")
        elif done % 1_000 == 0:
            _progress(f"{done} of {len(chosen)} pairs", options)
    report.pair_seconds = time.monotonic() - began


def _with_real_workers(report: Report, options: argparse.Namespace) -> None:
    """One fault a run."""
    began = time.monotonic()
    with Servers.started(options.at_once) as servers, Lanes(options.at_once, servers) as lanes:
        _find(lanes, report, options)
        orders = _orders(report.found, options)
        for left in reversed(range(TRIES)):
            orders = list(_missed(lanes, orders, report, options, is_last=not left))
    report.seconds = time.monotonic() - began


def _find(lanes: Lanes, report: Report, options: argparse.Namespace) -> None:
    """The boundaries, each with the first scenario that passes it: what runs without a fault wrote down, each of them."""
    names = options.scenario or list(SCENARIOS)
    numbers = itertools.count()
    verdicts = list(lanes.verdicts([Order(next(numbers), name) for name in names for _ in range(RECORDINGS)]))
    for verdict in verdicts:
        _note(verdict, report, options)
    for name in names:
        first, *others = [verdict.told.passed for verdict in verdicts if verdict.order.scenario == name]
        for boundary in first:
            if all(boundary in other for other in others):
                report.found.setdefault(boundary, name)
        report.by_chance.update(first, *others)
    report.by_chance -= set(report.found)


def _missed(lanes: Lanes, orders: Sequence[Order], report: Report, options: argparse.Namespace, *, is_last: bool) -> Iterator[Order]:
    """Run them. Gives, to be tried again, those in which the fault did not happen though no promise was broken."""
    for done, verdict in enumerate(lanes.verdicts(orders), start=1):
        if verdict.told.fired or verdict.story or is_last:
            _note(verdict, report, options)
        else:
            yield replace(verdict.order, number=verdict.order.number + NEXT_TRY)
        _progress(f"{done} of {len(orders)} runs: {verdict.order}: {verdict.seconds:.1f} s", options)


def _orders(found: Mapping[Boundary, str], options: argparse.Namespace) -> list[Order]:
    """What is to be run: each fault at each boundary, or some of them, in an order that the seed draws."""
    orders = [
        Order(number, scenario, fault, sqlite=_is_on_sqlite(fault, options.seed), worker=options.worker)
        for number, (scenario, fault) in enumerate(
            ((scenario, fault) for boundary, scenario in found.items() for fault in faults_at(boundary)), start=NEXT_TRY
        )
    ]
    random.Random(options.seed).shuffle(orders)  # noqa: S311 - the same order each time
    return [one for one in orders if options.only in str(one)][: options.sample]


def _is_on_sqlite(fault: Fault, seed: int) -> bool:
    """Drawn; but there is no connection to be cut to a store that is a file."""
    drawn = random.Random(f"{seed}/{fault}").random() < ON_SQLITE  # noqa: S311 - the same each time
    return drawn and (fault.boundary.port, fault.kind) != (STORE, Kind.RESET)


def _note(verdict: Verdict, report: Report, options: argparse.Namespace) -> None:
    """Into the report; and, of one that went wrong, the story and how to see it again."""
    report.verdicts.append(verdict)
    missed = verdict.order.fault is not None and not verdict.told.fired
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
