"""The world of one run: a broker, a store and a Vercel of its own, two resources on a shared server, and workers out of a nursery."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.crash.boundaries import BROKER, ENGINE, LIMITER, SINK, STORE
from tests.crash.journal import ordered
from tests.crash.nursery import Forked
from tests.rigs import Rig
from worker.variables import PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.crash.boundaries import Fault
    from tests.crash.nursery import Nursery
    from tests.processes import Process
    from tests.rigs import CustomersServer
    from worker.settings import Settings

DURATIONS = {
    "TICK_SECONDS": "0.3",
    "CLAIM_SECONDS": "2",
    "CALL_DEADLINE_SECONDS": "1",
    "SERVER_ALLOWANCE_SECONDS": "3",
    "HINT_SECONDS": "0.5",
    "USAGE_SAMPLE_SECONDS": "1",
    "WORKER_THREADS": "2",
}
GRACE = timedelta(seconds=2)


class CrashRig(Rig):
    """A rig whose processes cost a fork, one of which is to crash. A store on PostgreSQL is a copy of one that has its tables."""

    look = 0.15

    def __init__(self, directory: Path, customers: Sequence[CustomersServer], store_url: str | None, nursery: Nursery, number: int) -> None:
        super().__init__(directory, customers, store_url)
        self.numbers = itertools.count(number * 10)  # other lanes make tenants on the same server
        self._nursery = nursery
        self.journal = directory / "journal"

    def start_crashing_worker(self, application: str, fault: Fault | None, chance: float) -> Process:
        """A worker, with what this module makes of it, that meets with the fault, or with none and only writes the journal."""
        order = ordered(fault, self.journal, self._servers(), chance)
        return self._forked("crashing", ["worker", "--name", "crashing"], order, application)

    def _servers(self) -> dict[str, int]:
        """Where each port's other side is."""
        store, (customers, *_) = self.store.database.engine.url.port, self.customers
        vercel = int(self.vercel_url.rpartition(":")[2])
        servers = {ENGINE: customers.postgresql.port, SINK: vercel, BROKER: self.broker.port, LIMITER: self.broker.port}
        return servers if store is None else {**servers, STORE: store}

    def _start_process(self, name: str, arguments: Sequence[str]) -> Process:
        return self._forked(name, arguments, {})

    def _forked(self, name: str, arguments: Sequence[str], more: dict[str, str], *first: str) -> Process:
        log = self.directory / f"{name}-{len(self.processes)}.log"
        process = Forked(name, self._nursery, arguments, {**self.environment, **more}, log, *first)
        self._running.callback(process.end)
        self.processes.append(process)
        return process

    def _make_tables(self, settings: Settings) -> None:
        if not settings.store_is_shared:
            super()._make_tables(settings)

    def _environment(self, data: Path) -> dict[str, str]:
        return {**super()._environment(data), **{PREFIX + name: value for name, value in DURATIONS.items()}}
