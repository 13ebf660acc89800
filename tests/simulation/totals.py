"""How many worlds were played in all, by the hash of what was played: the code under test and the simulator.

`totals.json` is committed. A world that was played on other code proves nothing about this one, so only the current hash counts.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.runs import Report

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).parent / "totals.json"
PLAYED = ("rotation", "migrations", "tests/fakes", "tests/simulation", "tests/world.py")


@dataclass(slots=True)
class Total:
    """What was played of one hash on one kind of store. `ranges` are the seeds, first and last."""

    code: str
    store: str
    seeds: int = 0
    broken: list[int] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    ranges: list[list[int]] = field(default_factory=list)


def code_hash() -> str:
    """The hash of everything that a world is made of, in twelve hex digits."""
    digest = hashlib.sha256()
    places = [ROOT / place for place in PLAYED]
    for path in sorted(path for place in places for path in (place.rglob("*.py") if place.is_dir() else [place])):
        digest.update(f"{path.relative_to(ROOT)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def read() -> list[Total]:
    """Everything on record, the newest last."""
    return [Total(**one) for one in json.loads(FILE.read_text(encoding="utf-8"))] if FILE.exists() else []


def current(store: str) -> Total:
    """What is on record of the code as it is."""
    code = code_hash()
    return next((one for one in read() if (one.code, one.store) == (code, store)), Total(code, store))


def add(report: Report, first: int, store: str) -> Total:
    """Count a run. Seeds that were counted before are not counted again: `ValueError`."""
    total = current(store)
    last = first + report.seeds - 1
    if any(begin <= last and first <= end for begin, end in total.ranges):
        raise ValueError(f"some of the seeds {first} to {last} were counted before: begin at {max(end for _, end in total.ranges) + 1}")
    total.seeds += report.seeds
    total.broken += [one.seed for one in report.broken]
    for name, count in report.seen.items():
        total.seen[name] = total.seen.get(name, 0) + count
    total.ranges.append([first, last])
    others = [one for one in read() if (one.code, one.store) != (total.code, total.store)]
    FILE.write_text(json.dumps([asdict(one) for one in (*others, total)], indent=1) + "\n", encoding="utf-8")
    return total
