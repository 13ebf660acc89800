"""The world that the demo's `rollover up` works on: a database server, customers who use it, and what an operator would do at first."""

from __future__ import annotations

import random
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

from celery import Celery

from rotation import requests
from rotation.cases import Deadline
from rotation.errors import Unavailable
from rotation.model import Event, Installation, SealContext
from rotation.sensitive import Sensitive
from rotation.states import Trigger
from worker.machine import MachineEntropy
from worker.sandbox import fleet, stocktaking
from worker.sandbox.customers import Customer
from worker.sandbox.ledger import read_standings
from worker.sandbox.scoreboard import Board, Summary
from worker.settings import load
from worker.wiring import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rotation.model import KnownLogin, Resource
    from rotation.ports import Ports
    from rotation.store.sql import SqlStore
    from worker.sandbox.demonstration import Plan, Up
    from worker.sandbox.postgresql import PrivatePostgresql
    from worker.sandbox.vercel_world import World
    from worker.supervisor import Inbox

ACTOR = "demo"
LOOK_SECONDS = 0.25
FIRST_ROTATIONS_WITHIN = 4.0
"""Seconds from the registration in which each resource is rotated for the first time, one after another."""
START_SECONDS = 90.0
ANSWER_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Scene:
    """The world as it stands when the first rotation may begin. Resources go by their tenants' names."""

    plan: Plan
    up: Up
    postgresql: PrivatePostgresql
    vercel: World
    ports: Ports
    store: SqlStore
    resources: Mapping[str, Resource]
    customers: Sequence[Customer]

    def look(self, elapsed: timedelta, worker: int | None = None) -> Board:
        """Everything as the store and the customers have it now."""
        now, standings = read_standings(self.store.database, self.resources)
        tallies = {one.name: one.tally for one in self.customers}
        deployed = {one.name: one.deployed for one in self.customers}
        return Board(now, elapsed, standings, tallies, deployed, worker)


def set_up(plan: Plan, directory: Path, postgresql: PrivatePostgresql, vercel: World, up: Up) -> Scene:
    """Make the tenants, wait until `up` is ready, and register what is to be rotated."""
    entropy, admin_url_file = MachineEntropy(), directory / "admin.url"
    token = Sensitive(secrets.token_urlsafe(24))
    tenants = fleet.tenants(plan.resources, entropy)
    fleet.settle(postgresql, tenants, entropy, admin_url_file)
    fleet.first_push(vercel, tenants, postgresql, token)
    ports = wire(load(up.environment))
    store = cast("SqlStore", ports.store)  # it does what an operator needs, beside what a rotation needs
    _await_tables(store, up)
    sealed = ports.sealer.seal(token, SealContext(fleet.INSTALLATION, "", "", "token"))
    store.add_installation(Installation(fleet.INSTALLATION, sealed), Event("installation_added", ACTOR))
    store.add_server(fleet.server(postgresql, admin_url_file), Event("server_added", ACTOR))
    _await_worker(up)
    resources = {
        one.name: requests.register(fleet.spec(one, every=plan.every, grace=plan.grace), one.login, ACTOR, ports) for one in tenants
    }
    customers = [_customer(tenant, vercel, plan.grace) for tenant in tenants]
    return Scene(plan, up, postgresql, vercel, ports, store, resources, customers)


def play(scene: Scene, inbox: Inbox, show: Callable[[Board], None]) -> timedelta:
    """Ask for the first rotations, one after another, and look on until the time is over or a signal comes. Gives how long it took."""
    began_at = time.monotonic()
    waiting = list(scene.resources.values())
    pace = FIRST_ROTATIONS_WITHIN / max(1, len(waiting) - 1)
    elapsed, lasts = timedelta(), scene.plan.lasts
    with _at_work(scene.customers):
        while lasts is None or elapsed < lasts:
            if waiting and elapsed.total_seconds() >= pace * (len(scene.resources) - len(waiting)):
                requests.trigger(waiting.pop(0).id, requests.Asked(Trigger.MANUAL, ACTOR, "the first rotation"), scene.ports)
            show(scene.look(elapsed, _worker_of(scene.up.pid)))
            if inbox.wait(LOOK_SECONDS) is not None:
                break
            elapsed = timedelta(seconds=time.monotonic() - began_at)
    return elapsed


def take_stock(scene: Scene, elapsed: timedelta) -> Summary:
    """What it came to, now that `rollover up` has ended and nothing moves any more."""
    return stocktaking.take_stock(scene.look(elapsed), scene.postgresql, scene.vercel, _marked_logins(scene))


@contextmanager
def _at_work(customers: Sequence[Customer]) -> Iterator[None]:
    """All applications, each on a thread; what one of them did not expect is raised at the end."""
    ending = threading.Event()
    with ThreadPoolExecutor(len(customers), thread_name_prefix="customer") as threads:
        running = [threads.submit(one.run, ending) for one in customers]
        try:
            yield
        finally:
            ending.set()
    for one in running:
        one.result()


def _customer(tenant: fleet.Tenant, vercel: World, grace: timedelta) -> Customer:
    def environment() -> Mapping[str, str]:
        return vercel.held(fleet.INSTALLATION, tenant.external_id)

    return Customer(tenant.name, environment, grace, random.Random())  # noqa: S311 - a team's habits are no secret


def _await_tables(store: SqlStore, up: Up) -> None:
    """Until `rollover up` has made them. Raises `DemoFailed` when it ended instead."""
    until = time.monotonic() + START_SECONDS
    while not _has_tables(store):
        _give_up(up, until)
        time.sleep(0.05)


def _await_worker(up: Up) -> None:
    """Until one answers: on a busy machine their start takes long, and the time of the demo is for rotations."""
    until = time.monotonic() + START_SECONDS
    while (url := up.broker_url()) is None:
        _give_up(up, until)
        time.sleep(0.05)
    with Celery(ACTOR, broker=url.reveal(), set_as_current=False) as app:
        while not app.control.ping(timeout=ANSWER_SECONDS, limit=1):
            _give_up(up, until)


def _give_up(up: Up, until: float) -> None:
    pid = up.pid
    if time.monotonic() > until:
        raise Unavailable(f"`rollover up` (process {pid}) was not ready after {START_SECONDS:.0f} seconds: is this machine very busy?")


def _has_tables(store: SqlStore) -> bool:
    try:
        store.servers()
    except Unavailable:
        return False
    return True


def _marked_logins(scene: Scene) -> tuple[KnownLogin, ...]:
    deadline = Deadline(scene.ports.clock.monotonic() + scene.ports.terms.call_deadline.total_seconds())
    return scene.ports.engines[fleet.ENGINE].list_logins(scene.store.server(fleet.SERVER), deadline)


def _worker_of(up: int) -> int | None:
    """One worker among the children of `rollover up`, for who wants to try what happens when it dies."""
    try:
        children = Path(f"/proc/{up}/task/{up}/children").read_text().split()
        return next((int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "worker\n"), None)
    except (FileNotFoundError, ProcessLookupError):
        return None
