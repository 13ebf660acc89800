"""Rounds of work: so many rotations or retirements by the floor or by the worker, and what they took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

import psycopg

from bench.gauges import cpu_seconds
from bench.parts import ACTOR, TICK_SECONDS, BenchFailed
from rotation import requests
from rotation.states import Trigger
from worker.hints import send
from worker.queues import Queue
from worker.tasks import ADVANCE_RETIREMENTS, ADVANCE_ROTATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.floor import Crew
    from bench.parts import Parts, Workers
    from bench.population import Population

LOOK_SECONDS = 0.05
"""How often a round looks whether it is over: a hundredth of the shortest, and next to no work for the store."""
LATENCY_LOOK_SECONDS = 0.002
PATIENCE = 120.0

ROTATING = "SELECT count(*) FROM rotations WHERE due_at IS NOT NULL AND state IN ('requested', 'planned', 'created', 'verified', 'offered')"
IN_GRACE = "SELECT count(*) FROM credentials WHERE stage = 'previous'"
BLOCKED = "SELECT count(*) FROM credentials WHERE stage = 'blocked'"
COMPLETED = "SELECT count(*) FROM rotations WHERE state = 'completed'"
# With a quiet time that was looked at: else they would wait for one, as nobody has looked for long. And made long ago: one that was made a
# moment ago is retired a little later.
GRACE_IS_OVER = (
    "UPDATE credentials SET grace_ends_at = clock_timestamp(), due_at = clock_timestamp(), quiet = 1000,"
    " current_at = current_at - interval '1 hour' WHERE stage = 'previous'"
)
BLOCKED_LONG_ENOUGH = "UPDATE credentials SET due_at = clock_timestamp() WHERE stage = 'blocked'"


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one round."""

    count: int
    seconds: float
    own_cpu: float
    """Of the processes that do the work, in seconds."""
    servers_cpu: dict[str, float]

    @property
    def rate(self) -> float:
        """How many a second."""
        return self.count / self.seconds


class Contest:
    """Both sides, ready to work on the same servers."""

    def __init__(self, parts: Parts, population: Population, crew: Crew, workers: Workers) -> None:
        self.parts = parts
        self.population = population
        self.crew = crew
        self.workers = workers
        self._store = psycopg.connect(parts.stores.superuser_url("rollover"), autocommit=True)

    def close(self) -> None:
        """Close the connection that looks on."""
        self._store.close()

    def floor_rotates(self, count: int) -> Round:
        """The floor, rotations."""
        return self._measured(count, self.crew.pids, lambda: self.crew.rotate(count))

    def floor_retires(self, count: int) -> Round:
        """The floor, retirements of what its last rotations replaced."""
        return self._measured(count, self.crew.pids, lambda: self.crew.retire(count))

    def worker_rotates(self, count: int) -> Round:
        """The worker: a backlog of requests that are on record is sent to the queue as a tick does it, and worked off."""
        self._hold_ticks()
        before = self._count(COMPLETED)
        for resource in self.population.resources[:count]:
            requests.trigger(resource.id, requests.Asked(Trigger.MANUAL, ACTOR), self.parts.ports)

        def work() -> float:
            self.workers.beat.resume()
            started = time.perf_counter()
            send(self.parts.hints, ADVANCE_ROTATIONS, Queue.URGENT, self.parts.store.due_rotations(count, urgent=True))
            self._wait(ROTATING)
            return time.perf_counter() - started

        measured = self._measured(count, self.workers.pids, work)
        if self._count(COMPLETED) - before != count:
            raise BenchFailed("not all rotations were completed")
        return measured

    def worker_retires(self, count: int) -> Round:
        """The worker: the grace of all that was replaced ends at once, and when all are blocked, so does the wait that follows."""
        blocked = self._one_stage(count, GRACE_IS_OVER, IN_GRACE)
        retired = self._one_stage(count, BLOCKED_LONG_ENOUGH, BLOCKED)
        return Round(
            count,
            blocked.seconds + retired.seconds,
            blocked.own_cpu + retired.own_cpu,
            {name: spent + retired.servers_cpu[name] for name, spent in blocked.servers_cpu.items()},
        )

    def rotation_seconds(self, number: int) -> float:
        """How long one rotation takes on idle parts, from the trigger until its completion can be read."""
        resource = self.population.resources[number % len(self.population.resources)]
        started = time.perf_counter()
        received = requests.trigger(resource.id, requests.Asked(Trigger.MANUAL, ACTOR), self.parts.ports)
        send(self.parts.hints, ADVANCE_ROTATIONS, Queue.URGENT, [str(received.rotation_id)])
        self._wait(ROTATING, LATENCY_LOOK_SECONDS)
        return time.perf_counter() - started

    def _one_stage(self, count: int, begins: LiteralString, left: LiteralString) -> Round:
        self._hold_ticks()
        self._store.execute(begins)

        def work() -> float:
            self.workers.beat.resume()
            started = time.perf_counter()
            send(self.parts.hints, ADVANCE_RETIREMENTS, Queue.RETIREMENT, self.parts.store.due_credentials(count))
            self._wait(left)
            return time.perf_counter() - started

        return self._measured(count, self.workers.pids, work)

    def _measured(self, count: int, pids: list[int], work: Callable[[], float]) -> Round:
        servers = self.parts.servers
        own, theirs = cpu_seconds(*pids), {name: cpu_seconds(pid) for name, pid in servers.items()}
        seconds = work()
        spent = {name: cpu_seconds(pid) - theirs[name] for name, pid in servers.items()}
        return Round(count, seconds, cpu_seconds(*pids) - own, spent)

    def _hold_ticks(self) -> None:
        """Nothing begins before it is measured: no tick is sent any more, and those that were are done or have expired."""
        self.workers.beat.pause()
        time.sleep(TICK_SECONDS)

    def _wait(self, left: LiteralString, look: float = LOOK_SECONDS) -> None:
        end = time.monotonic() + PATIENCE
        while self._count(left):
            if time.monotonic() > end:
                raise BenchFailed("the worker has not worked off its backlog in time")
            time.sleep(look)

    def _count(self, query: LiteralString) -> int:
        row = self._store.execute(query).fetchone()
        return 0 if row is None else int(row[0])
