"""The world of a run: a fleet on two customers' servers, one of which is reached through a proxy, as Vercel is."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import select

from rotation.errors import Unavailable
from rotation.sensitive import Sensitive
from rotation.states import PushBy, Stage
from rotation.store.rules import ENDED_STATES
from rotation.store.tables import credentials, rotations
from tests.chaos.proxy import FaultProxy
from tests.crash.nursery import Forked
from tests.rigs import PATIENCE, Rig
from worker.sandbox.customers import address
from worker.sandbox.fleet import Tenant, add_tenants, tenants
from worker.variables import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Row

    from rotation.model import Server
    from tests.crash.nursery import Nursery
    from tests.processes import Process
    from tests.rigs import CustomersServer
    from worker.sandbox.customers import Address

T = TypeVar("T")
ENDS = (Stage.CURRENT, Stage.RETIRED, Stage.DISCARDED)
ALLOWANCE_SECONDS = 6.0
"""More than the longest delays of the proxy and of Vercel together, on a machine that is busy."""
GRACES = (4.0, 10.0)
EVERY = (20.0, 60.0)
"""Seconds, between which each resource has its own."""


@dataclass(frozen=True, slots=True)
class Moving:
    """What has not come to its end, a line each for a person who wonders why. False when there is nothing."""

    rotations: tuple[str, ...]
    logins: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.rotations or self.logins)

    def lines(self) -> tuple[str, ...]:
        return (*self.rotations, *self.logins)


class ChaosRig(Rig):
    """A rig whose processes cost a fork, and whose workers reach Vercel and the last of the customers' servers through proxies."""

    look = 0.5

    def __init__(
        self, directory: Path, customers: Sequence[CustomersServer], store_url: str, nursery: Nursery, chance: random.Random
    ) -> None:
        super().__init__(directory, customers, store_url, apart=True)
        self._nursery = nursery
        self._chance = chance
        self.before_server = FaultProxy(customers[-1].postgresql.port, random.Random(chance.random()))  # noqa: S311 - the same each time
        self.before_vercel: FaultProxy

    def add_fleet(self, count: int) -> None:
        """Register so many customers, on the servers in turn, each with a schedule and a grace of its own."""
        names = [f"tenant{number}" for number in range(count)]
        for index, server in enumerate(self.customers):
            add_tenants(server.postgresql, fleet := [self._tenant(name) for name in names[index :: len(self.customers)]])
            for tenant in fleet:
                every, grace = (timedelta(seconds=self._chance.uniform(*bounds)) for bounds in (EVERY, GRACES))
                self.register([tenant], server, every=every, grace=grace)

    def _tenant(self, name: str) -> Tenant:
        (any_of_them,) = tenants(1, self.entropy)
        push_by = self._chance.choice([PushBy.RESOURCE, PushBy.RESOURCE, PushBy.PRODUCT])
        return replace(any_of_them, name=name, push_by=push_by, login=replace(any_of_them.login, username=f"{name}_app"))

    def steadily(self, ask: Callable[[], T]) -> T:
        """Ask the store again while it cannot be reached, as its server was restarted under our connections."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return ask()
            except Unavailable:
                if time.monotonic() > end:
                    raise
                time.sleep(self.look)

    def moving(self) -> Moving:
        """What is under way, and what it waits for."""
        of_rotations = select(rotations.c.id, rotations.c.state, rotations.c.tries, rotations.c.due_at, rotations.c.problem)
        of_logins = select(credentials.c.username, credentials.c.stage, credentials.c.tries, credentials.c.due_at, credentials.c.problem)
        now = self.store.now()
        with self.store.database.reading() as connection:
            return Moving(
                tuple(_told(row, now) for row in connection.execute(of_rotations.where(rotations.c.state.not_in(ENDED_STATES)))),
                tuple(_told(row, now) for row in connection.execute(of_logins.where(credentials.c.stage.not_in(ENDS)))),
            )

    def doors(self, value: str) -> tuple[Address, ...]:
        """Every way in with a value that Vercel holds: the one that it names, and the one past the proxy."""
        named = address(Sensitive(value))
        beside = [self.customers[-1].postgresql.port] if named.port == self.before_server.port else []
        return (named, *(replace(named, port=port) for port in beside))

    def spoil(self, share: float) -> None:
        """So many of the connections through the proxies are spoilt from now on."""
        self.before_server.share = self.before_vercel.share = share

    def _server(self, one: CustomersServer) -> Server:
        server = super()._server(one)
        return server if one is not self.customers[-1] else replace(server, port=self.before_server.port)

    def _start_vercel(self) -> str:
        url = super()._start_vercel()
        chance = random.Random(self._chance.random())  # noqa: S311 - the same each time
        self.before_vercel = FaultProxy(int(url.rpartition(":")[2]), chance)
        for proxy in (self.before_server, self.before_vercel):
            self._running.enter_context(proxy)
        return url

    def _environment(self, data: Path) -> dict[str, str]:
        ours = {
            "VERCEL_API_URL": f"http://127.0.0.1:{self.before_vercel.port}",
            "SERVER_ALLOWANCE_SECONDS": f"{ALLOWANCE_SECONDS:g}",
        }
        return {**super()._environment(data), **{PREFIX + name: value for name, value in ours.items()}}

    def _start_process(self, name: str, arguments: Sequence[str]) -> Process:
        log = self.directory / f"{name}-{len(self.processes)}.log"
        process = Forked(name, self._nursery, arguments, self.environment, log)
        self._running.callback(process.end)
        self.processes.append(process)
        return process

    def start_again(self, process: Process) -> Process:
        return self._start_process(process.name, process.command)


def _told(row: Row[Any, Any, Any, Any, Any], now: datetime) -> str:
    name, state, tries, due_at, problem = row
    due = "without a date" if due_at is None else f"due in {(due_at - now).total_seconds():.1f} s"
    return f"{name} {state}, tries {tries}, {due}: {problem}"
