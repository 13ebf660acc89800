"""Many worlds, one after the other on every core: what they have seen, and which of them broke a promise."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from tests.simulation.rest import rest
from tests.simulation.stores import InMemory, OnSqlite
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rotation.ports import Terms
    from tests.simulation.clocks import SimulatedClock
    from tests.simulation.stores import SimulatedStore

CHUNK = 50
STORES: Mapping[str, Callable[[SimulatedClock, Terms], SimulatedStore]] = {"memory": InMemory, "sqlite": OnSqlite}


@dataclass(frozen=True, slots=True)
class Broken:
    """A world that broke a promise: its seed, the invariant's name, and what was seen."""

    seed: int
    invariant: str
    what: str


@dataclass(slots=True)
class Report:
    """What some worlds came to."""

    seeds: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: Report) -> None:
        """Count the worlds of another report as well."""
        self.seeds += other.seeds
        self.seen += other.seen
        self.broken += other.broken


def play(seed: int, store: str = "memory", story: list[str] | None = None) -> World:
    """One world from its beginning to its end. Raises `Violation`, or whatever the code under test dies of."""
    world = World(seed, STORES[store], story)
    try:
        world.live()
        rest(world)
    finally:
        world.close()
    return world


def tell(seed: int, store: str = "memory") -> tuple[list[str], BaseException | None]:
    """The same with its story, and what ended it."""
    story: list[str] = []
    try:
        play(seed, store, story)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what the story ends with
        return story, error
    return story, None


def run(first: int, count: int, *, store: str = "memory", jobs: int | None = None, heard: Callable[[Report], None] | None = None) -> Report:
    """So many worlds from the first seed on. `heard` is told how far it is now and then."""
    began_at = time.monotonic()
    report = Report()
    for part in _parts(first, count, store, jobs or os.cpu_count() or 1):
        report.add(part)
        report.seconds = time.monotonic() - began_at
        if heard is not None:
            heard(report)
    report.broken.sort(key=lambda one: one.seed)
    return report


def _parts(first: int, count: int, store: str, jobs: int) -> Iterator[Report]:
    chunks = [range(begin, min(begin + CHUNK, first + count)) for begin in range(first, first + count, CHUNK)]
    if jobs == 1:
        quieten()
        yield from map(partial(_chunk, store), chunks)
        return
    with ProcessPoolExecutor(jobs, initializer=_begin) as pool:
        yield from pool.map(partial(_chunk, store), chunks)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and ends the pool
    quieten()


def quieten() -> None:
    """Thousands of log lines that nobody reads are not even made."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))


def _chunk(store: str, seeds: range) -> Report:
    report = Report()
    for seed in seeds:
        report.seeds += 1
        try:
            world = play(seed, store)
        except Exception as error:  # noqa: BLE001  # a crash of the code under test breaks I4
            report.broken.append(Broken(seed, getattr(error, "invariant", type(error).__name__), str(error)))
        else:
            report.seen.update(asdict(world.tally))
    return report
