"""`python -m tests.simulation`: play worlds in which anything may happen, and look whether a promise is broken."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from tests.simulation import runs, totals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulation.totals import Total

SHORT = 60
"""How many lines of a story are shown unless more are asked for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Give 0 when every promise was kept, 1 when one was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_number, default=1_000, help="how many worlds (1000)")
    parser.add_argument("--first", type=_number, default=0, help="the first seed (0)")
    parser.add_argument("--seed", type=_number, help="this one alone, with its story")
    parser.add_argument("--lines", type=int, default=SHORT, help=f"the story's last lines that are shown ({SHORT})")
    parser.add_argument("--store", choices=sorted(runs.STORES), default="memory", help="on which store (memory)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many processes side by side (one a core)")
    parser.add_argument("--record", action="store_true", help="add the worlds to totals.json, after those that are counted already")
    parser.add_argument("--totals", action="store_true", help="what is on record of the code as it is")
    given = parser.parse_args(arguments)
    if given.totals:
        for store in runs.STORES:
            _say(_of(totals.current(store)))
        return 0
    if given.seed is not None:
        return _one(given.seed, given.store, given.lines)
    counted = totals.current(given.store).ranges if given.record else []
    first = max((end + 1 for _, end in counted), default=given.first)
    return _many(first, given.seeds, given.store, given.jobs, record=given.record)


def _one(seed: int, store: str, lines: int) -> int:
    runs.quieten()
    story, error = runs.tell(seed, store)
    for line in story[-lines:]:
        _say(line)
    _say("every promise was kept" if error is None else f"seed {seed}: {type(error).__name__}: {error}")
    return 0 if error is None else 1


def _many(first: int, count: int, store: str, jobs: int, *, record: bool) -> int:
    report = runs.run(first, count, store=store, jobs=jobs, heard=_progress if sys.stderr.isatty() else None)
    _say(
        f"{report.seeds} worlds from seed {first} on, store {store}, code {totals.code_hash()}: {len(report.broken)} broke a promise"
        f" ({report.seconds:.0f} s, {report.seeds / report.seconds:.0f} a second)"
    )
    _say(_seen(report.seen))
    for one in report.broken:
        _say(f"  seed {one.seed}: {one.what}\n    python -m tests.simulation --store {store} --seed {one.seed}")
    if record:
        _say("in all: " + _of(totals.add(report, first, store)))
    return 1 if report.broken else 0


def _of(total: Total) -> str:
    told = {name: value for name, value in asdict(total).items() if name not in ("seen", "ranges")}
    return json.dumps(told) + ("" if not total.seen else "\n  " + _seen(total.seen))


def _seen(seen: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in seen.items())


def _progress(report: runs.Report) -> None:
    sys.stderr.write(f"\r{report.seeds} worlds, {len(report.broken)} broken, {report.seeds / report.seconds:.0f} a second ")


def _number(text: str) -> int:
    """A count or a seed. `10_000` and `10,000` are numbers, too."""
    number = int(text.replace(",", ""))
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
