"""The sections of the bench: each gives the lines of the table that it measured."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.fleet_rows import FleetRows
from bench.floor import Crew
from bench.gauges import resident_bytes
from bench.hanging import Load, TwoServers
from bench.longevity import furnish, last
from bench.parts import Workers
from bench.population import found, settle
from bench.report import Line, line, percentile
from bench.work import Contest
from rotation import requests
from rotation.store.database import make_engine
from rotation.store.migration import migrate
from rotation.store.sql import SqlStore
from worker.addresses import store_address
from worker.tasks import AT_ONCE, OUTSTANDING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.parts import Parts
    from bench.population import Population
    from bench.work import Round
    from rotation.ports import Ports

    Both = tuple[Round, Round]
    """Rotations, and the retirements of what they replaced."""

SLOW_SINK = 0.05
ENOUGH_AT_ONE = 4
"""One at a time is slower by so much: it gets so many times less to do."""
PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done."""

    rounds: int
    at_once: tuple[int, ...]
    each: int
    """Rotations and retirements a round."""
    single: int
    """Rotations one after the other, for the time from trigger to completion."""
    lasting: int
    """Rotations that each worker process has behind it when its memory is looked at."""
    fleets: tuple[int, ...]
    due: int
    rotations: int
    """Of one resource, one after the other."""
    load: Load
    customers: int
    """Of each server, of which one hangs."""
    outage: float
    """Seconds of 5xx."""


FULL = Sizes(
    rounds=5,
    at_once=(1, 8, 16),
    each=200,
    single=200,
    lasting=1_000,
    fleets=(1_000, 100_000, 1_000_000),
    due=500,
    rotations=5_000,
    load=Load(rate=5, seconds=40),
    customers=100,
    outage=120,
)
QUICK = Sizes(
    rounds=1,
    at_once=(4,),
    each=8,
    single=4,
    lasting=8,
    fleets=(1_000,),
    due=20,
    rotations=20,
    load=Load(rate=4, seconds=3),
    customers=6,
    outage=3,
)


class Bench:
    """The sections, on parts that run."""

    def __init__(self, parts: Parts, sizes: Sizes) -> None:
        self.parts = parts
        self.sizes = sizes
        self._running = ExitStack()
        self._ready: dict[int, Contest] = {}
        self._founded = False

    def close(self) -> None:
        """End what works on either side."""
        self._ready.clear()
        self._running.close()

    def throughput(self) -> Iterator[Line]:
        """Rotations and retirements a second, and what they cost, both sides in turn."""
        for at_once in self.sizes.at_once:
            contest = self._contest(at_once)
            each = max(1, self.sizes.each // (ENOUGH_AT_ONE if at_once == 1 else 1))
            yield from self._in_turn(contest, at_once, each)
            self.parts.answer_after(SLOW_SINK)
            floors, workers = self._rounds(contest, at_once, each, self.sizes.rounds)
            self.parts.answer_after(0)
            name = f"rotations, {at_once} at once, the sink answers after {SLOW_SINK * 1000:.0f} ms"
            yield line(name, "a second", [rotated.rate for rotated, _ in workers], [rotated.rate for rotated, _ in floors])

    def latency(self) -> Iterator[Line]:
        """From the trigger to the completion, on idle parts."""
        contest = self._contest(max(self.sizes.at_once))
        contest.rotation_seconds(0)
        seconds = sorted(contest.rotation_seconds(number) for number in range(self.sizes.single))
        contest.worker_retires(self.sizes.single + 1)
        for percent in (50, 99):
            yield Line(f"trigger to completed, p{percent}", "ms", percentile(seconds, percent) * 1000, rounds=len(seconds))

    def memory(self) -> Iterator[Line]:
        """What a worker process holds when it has done many rotations, and their retirements."""
        contest = self._contest(max(self.sizes.at_once))
        for done in range(0, self.sizes.lasting * PROCESSES, self.sizes.each):
            contest.worker_rotates(self.sizes.each)
            contest.worker_retires(self.sizes.each)
            _tell(f"memory: {done + self.sizes.each} rotations")
        largest = max(resident_bytes(pid) for pid in contest.workers.pids)
        yield Line(f"memory of a worker process after {self.sizes.lasting} rotations", "MB", largest / 1_000_000)

    def tick(self) -> Iterator[Line]:
        """The sweep of the store, by how large the fleet is and how much of it is due."""
        url = self.parts.database("fleet")
        migrate(store_address(url))
        engine = make_engine(store_address(url))
        ports = self.parts.ports
        store = SqlStore(engine, clock=ports.clock, terms=ports.terms, audit_key=b"of a bench")
        fleet_ports = replace(ports, store=store)
        with closing(FleetRows(url)) as rows:
            for size in self.sizes.fleets:
                started = time.perf_counter()
                rows.grow(size)
                _tell(f"tick: {size} resources made in {time.perf_counter() - started:.0f} s")
                for due in (0, self.sizes.due):
                    times = [_tick_with(due, rows, fleet_ports) for _ in range(self.sizes.rounds + 1)][1:]
                    yield line(f"tick, {size:,} resources, {due} due", "ms", [seconds * 1000 for seconds in times])
        store.dispose()

    def longevity(self) -> Iterator[Line]:
        """One resource rotated again and again: the last ones against the first, and what the server keeps against what it kept."""
        (resource,) = self._population("lasting", 1).resources
        database = resource.spec.database
        url = self.parts.customers.superuser_url(database.name)
        furnish(url, database.name, database.owner_role)
        count = self.sizes.rotations

        def told(done: int) -> None:
            if done % max(1, count // 20) == 0:
                _tell(f"longevity: {done} of {count}")

        lasted = last(resource.id, self.parts.ports, url, count, told)
        part = max(1, min(100, count // 2))
        first, final = ([one * 1000 for one in lasted.seconds[chosen]] for chosen in (slice(part), slice(-part, None)))
        yield line(f"rotation and retirement, the last {part} of {count:,} against the first", "ms", final, first)
        yield Line("the same, p99", "ms", percentile(sorted(final), 99), percentile(sorted(first), 99), rounds=part)
        for name, before in lasted.before.items():
            yield Line(f"{name}, after against before", "entries", lasted.after[name], before)
        for name, (kib, dead, vacuums) in lasted.sizes_after.items():
            yield Line(f"size of {name}, after against before", "KiB", kib, lasted.sizes_before[name][0])
            yield Line(f"dead rows of {name} at the end; autovacuum came {vacuums} times", "rows", dead)

    def bulkhead(self) -> Iterator[Line]:
        """The rotations of one server while another hangs, against the same while it does not, in turn; then Vercel answers 5xx."""
        self._found()
        with TwoServers(self.parts, self.sizes.customers) as servers:
            servers.alone(replace(self.sizes.load, seconds=min(5, self.sizes.load.seconds)))  # connections are open, code is warm
            alone, beside, resumed = [], [], []
            for number in range(self.sizes.rounds):
                alone.append(servers.alone(self.sizes.load))
                paced, seconds = servers.beside(self.sizes.load)
                beside.append(paced)
                resumed.append(seconds)
                _tell(f"bulkhead: round {number + 1} of {self.sizes.rounds}")
            yield line(
                "rotations of one server while another hangs, against none",
                "a second",
                *[[one.rate for one in side] for side in (beside, alone)],
            )
            for percent in (50, 99):
                times = [[percentile(one.seconds, percent) * 1000 for one in side] for side in (beside, alone)]
                yield line(f"requested to completed, p{percent}, while another hangs, against none", "ms", *times)
            yield line("from the return of the server that hung to the end of the last rotation that waited", "s", resumed)
            budget = servers.outage(self.sizes.outage)
            what = (
                f"requests to Vercel for {budget.rotations} rotations that waited through {self.sizes.outage:g} s of 5xx, against one each"
            )
            yield Line(what, "requests", budget.sent, budget.rotations)
            yield Line("from the end of that to the end of the last rotation", "s", budget.resumed)

    def _in_turn(self, contest: Contest, at_once: int, each: int) -> Iterator[Line]:
        floors, workers = self._rounds(contest, at_once, each, self.sizes.rounds + 1)
        for index, what in enumerate(("rotations", "retirements")):
            floor, worker = [one[index] for one in floors[1:]], [one[index] for one in workers[1:]]
            name = f"{what}, {at_once} at once"
            yield line(name, "a second", [one.rate for one in worker], [one.rate for one in floor])
            yield line(
                f"{name}: our CPU", "ms each", [_each(one.own_cpu, one) for one in worker], [_each(one.own_cpu, one) for one in floor]
            )
            for server in self.parts.servers:
                costs = [[_each(one.servers_cpu[server], one) for one in side] for side in (worker, floor)]
                yield line(f"{name}: CPU of {server}", "ms each", *costs)

    def _rounds(self, contest: Contest, at_once: int, each: int, count: int) -> tuple[list[Both], list[Both]]:
        """The floor and the worker in turn, so many times. Either retires what it rotated before the other begins: logins slow down
        the making of others.
        """
        floors: list[Both] = []
        workers: list[Both] = []
        for number in range(count):
            floors.append((contest.floor_rotates(each), contest.floor_retires(each)))
            workers.append((contest.worker_rotates(each), contest.worker_retires(each)))
            told = f"{_rates(workers[-1])} by the worker, {_rates(floors[-1])} by the floor"
            _tell(f"{at_once} at once, round {number + 1} of {count}: {told}")
        return floors, workers

    def _population(self, label: str, count: int) -> Population:
        """Who is rotated: others each time, since a floor that ended has taken along what it knew of its customers."""
        self._found()
        return settle(self.parts, count, label)

    def _found(self) -> None:
        if not self._founded:
            found(self.parts)
            self._founded = True

    def _contest(self, at_once: int) -> Contest:
        """Both sides with as many threads as work is to be done at once, spread over the same number of processes; kept while it fits."""
        if at_once not in self._ready:
            self.close()
            population = self._population(f"{at_once}", self.sizes.each)
            processes = min(PROCESSES, at_once)
            threads = at_once // processes
            crew = self._running.enter_context(closing(Crew(self.parts.places, population.accounts, processes=processes, threads=threads)))
            workers = self._running.enter_context(Workers(self.parts, processes=processes, threads=threads))
            self._ready[at_once] = self._running.enter_context(closing(Contest(self.parts, population, crew, workers)))
            _tell(f"{at_once} at once: both sides are ready")
        return self._ready[at_once]


def _tick_with(due: int, rows: FleetRows, ports: Ports) -> float:
    """The seconds of one tick's work on the store: what worker.tasks.tick does, but for sending messages."""
    rows.make_due(due)
    started = time.perf_counter()
    requests.request_due(ports, AT_ONCE)
    for urgent in (True, False):
        ports.store.due_rotations(OUTSTANDING, urgent=urgent)
    ports.store.due_credentials(OUTSTANDING)
    ports.store.due_servers(AT_ONCE)
    seconds = time.perf_counter() - started
    rows.settle()
    return seconds


def _each(seconds: float, done: Round) -> float:
    return seconds / done.count * 1000


def _rates(rounds: Both) -> str:
    return " and ".join(f"{one.rate:.0f}" for one in rounds) + " a second"


def _tell(what: str) -> None:
    sys.stderr.write(f"{what}\n")
