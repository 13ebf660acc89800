"""Two database servers, one of which hangs: what that does to the rotations of the other. And a Vercel that answers nothing but 5xx.

The load is paced, as a fleet's is: so many rotations a second are asked for, whether or not those before have ended.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, LiteralString, Self

import psycopg

from bench.parts import ACTOR, BenchFailed, Workers
from bench.population import Home, found, settle
from rotation import requests
from rotation.model import Event
from rotation.states import Trigger
from worker.hints import send
from worker.machine import MachineEntropy
from worker.queues import Queue
from worker.sandbox import fleet
from worker.sandbox.postgresql import PrivatePostgresql
from worker.sandbox.vercel_faults import answered
from worker.tasks import ADVANCE_ROTATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from bench.parts import Parts
    from rotation.model import Resource

HANGING = "hanging"
THREADS = 8
PATIENCE = 120.0
LOOK_SECONDS = 0.1
FAULT = 503

UNDER_WAY: LiteralString = "SELECT count(*) FROM rotations WHERE state IN ('requested', 'planned', 'created', 'verified', 'offered')"
SECONDS: LiteralString = "SELECT extract(epoch FROM ended_at - requested_at) FROM rotations WHERE id = ANY(%s) AND state = 'completed'"
SENT: LiteralString = "SELECT count(*) FROM attempts WHERE rotation_id = ANY(%s) AND NOT (state = 'not_applied' AND status IS NULL)"
"""The attempts that were opened, but for those of which not one byte was sent."""


@dataclass(frozen=True, slots=True)
class Load:
    """How many rotations a second are asked for, and for how many seconds."""

    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Paced:
    """What came of a load: the seconds of each rotation, and how many were completed a second, the last one's end included."""

    seconds: list[float]
    rate: float


@dataclass(frozen=True, slots=True)
class Budget:
    """What came of an outage of Vercel: rotations, requests that were sent, and the seconds from its end to the end of the last one."""

    rotations: int
    sent: int
    resumed: float


class TwoServers:
    """The parts with a second customers' server, one worker process, and customers on both servers."""

    def __init__(self, parts: Parts, customers: int) -> None:
        self.parts = parts
        self._customers = customers
        self._running = ExitStack()
        self._hanging = PrivatePostgresql(parts.directory / HANGING)
        self.healthy: Sequence[Resource] = ()
        self.stuck: Sequence[Resource] = ()

    def __enter__(self) -> Self:
        """Start the second server and the worker."""
        with self._running:
            self._start()
            self._running = self._running.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End them."""
        self._running.close()

    def _start(self) -> None:
        parts = self.parts
        self._running.enter_context(self._hanging)
        admin_url_file = parts.directory / f"{HANGING}.url"
        fleet.make_admin(self._hanging, MachineEntropy(), admin_url_file)
        server = replace(fleet.server(self._hanging, admin_url_file), name=HANGING)
        parts.store.add_server(server, Event("server_added", ACTOR))
        home = Home(self._hanging, HANGING)
        found(parts, home)
        self.healthy = settle(parts, self._customers, "healthy").resources
        self.stuck = settle(parts, self._customers, HANGING, home).resources
        self._store = self._running.enter_context(psycopg.connect(parts.stores.superuser_url("rollover"), autocommit=True))
        self._running.enter_context(Workers(parts, processes=1, threads=THREADS))

    def alone(self, load: Load) -> Paced:
        """The load on the healthy server while both answer."""
        return self._paced(load)

    def beside(self, load: Load) -> tuple[Paced, float]:
        """The same from the moment on at which the other one hangs, with a rotation waiting for it for each of its customers.

        Also gives the seconds from its return to the end of the last of those.
        """
        self._hanging.freeze()
        try:
            self._ask(self.stuck)
            paced = self._paced(load)
        finally:
            self._hanging.thaw()
        return paced, self._wait_for_all()

    def outage(self, seconds: float) -> Budget:
        """Vercel answers 5xx for so long, with a rotation waiting for each customer of both servers."""
        self.parts.vercel.script([answered(FAULT, applies=False, times=None)])
        asked = self._ask((*self.healthy, *self.stuck))
        time.sleep(seconds)
        self.parts.vercel.script([])
        resumed = self._wait_for_all()
        return Budget(len(asked), int(self._numbers(SENT, asked)[0]), resumed)

    def _paced(self, load: Load) -> Paced:
        began = time.monotonic()
        asked: list[str] = []
        for number, resource in self._in_turn(load):
            time.sleep(max(0.0, began + number / load.rate - time.monotonic()))
            asked += self._ask([resource])
        end = time.monotonic() + PATIENCE
        while len(seconds := self._numbers(SECONDS, asked)) < len(asked):
            if time.monotonic() > end:
                raise BenchFailed(f"{len(asked) - len(seconds)} rotations of the healthy server were not completed")
            time.sleep(LOOK_SECONDS)
        return Paced(sorted(seconds), len(asked) / (time.monotonic() - began))

    def _in_turn(self, load: Load) -> Iterator[tuple[int, Resource]]:
        for number in range(int(load.rate * load.seconds)):
            yield number, self.healthy[number % len(self.healthy)]

    def _ask(self, resources: Sequence[Resource]) -> list[str]:
        """Ask for a rotation of each, and hint it, as a command does."""
        asked = []
        for resource in resources:
            received = requests.trigger(resource.id, requests.Asked(Trigger.MANUAL, ACTOR), self.parts.ports)
            asked.append(str(received.rotation_id))
            send(self.parts.hints, ADVANCE_ROTATIONS, Queue.URGENT, asked[-1:])
        return asked

    def _wait_for_all(self) -> float:
        began = time.monotonic()
        while self._numbers(UNDER_WAY)[0]:
            if time.monotonic() > began + PATIENCE:
                raise BenchFailed("not everything went on")
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - began

    def _numbers(self, query: LiteralString, ids: Sequence[str] | None = None) -> list[float]:
        rows = self._store.execute(query, None if ids is None else (list(ids),))
        return [float(number) for (number,) in rows]
