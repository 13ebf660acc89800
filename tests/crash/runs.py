"""One run: a world, a scenario, a worker that meets with a fault, another one in its stead, rest, and the verdict."""

from __future__ import annotations

import random
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from tests.crash import journal
from tests.crash.boundaries import Boundary, Fault, Kind
from tests.crash.rig import CrashRig
from tests.crash.scenarios import SCENARIOS
from tests.crash.verdicts import assert_kept
from tests.witnesses import Witness

if TYPE_CHECKING:
    from tests.crash.nursery import Nursery
    from tests.processes import Process
    from tests.rigs import CustomersServer
    from worker.sandbox.postgresql import PrivatePostgresql

RESUMED_SECONDS = 60.0
"""I4: everything has come to rest so long after the last fault."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a run is to be: its number, for its names and its draws; the scenario; the fault, or none to find out the boundaries."""

    number: int
    scenario: str
    fault: Fault | None = None
    sqlite: bool = False

    def __str__(self) -> str:
        return f"{self.scenario}: {self.fault or 'no fault'}" + (" (SQLite)" if self.sqlite else "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it. `story` is empty when every promise was kept."""

    order: Order
    fired: bool
    seconds: float
    resumed: float
    logins: int
    boundaries: tuple[Boundary, ...] = ()
    story: str = ""


@dataclass(frozen=True, slots=True)
class Servers:
    """What all runs share."""

    customers: CustomersServer
    store: PrivatePostgresql


def run(order: Order, servers: Servers, nursery: Nursery) -> Verdict:
    """Let it happen. Everything but the servers is the run's own, and gone when it ends."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crash") as directory, CrashRig(
        Path(directory), [servers.customers], None if order.sqlite else _new_store(servers.store, order.number), nursery, order.number
    ) as rig:
        try:
            watched = _watched(order, rig)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's verdict
            story = "".join(traceback.format_exception(error)[-3:]) + rig.story() + "\n" + rig.last_words()
            return Verdict(order, journal.has_fired(rig.journal), time.monotonic() - began, 0.0, 0, story=story)
        passed = tuple(journal.passed(rig.journal)) if order.fault is None else ()
        return Verdict(order, journal.has_fired(rig.journal), time.monotonic() - began, *watched, passed)


def _watched(order: Order, rig: CrashRig) -> tuple[float, int]:
    """The run itself. Gives how long the world took to come to rest after the fault, and how often its customer logged in."""
    scenario = SCENARIOS[order.scenario]
    subject, bystander = rig.add(2)
    before = rig.snapshot(bystander)
    accepted = scenario.begin(rig, subject)
    chance = random.Random(order.number).random()  # noqa: S311 - the same each time
    with Witness(rig.vercel, {subject.spec.external_id: scenario.grace}) as witness:
        worker = rig.start_crashing_worker(order.fault, chance)
        rig.start_beat()
        if order.fault is not None:
            rig.wait("the fault happens, or all is over", lambda: journal.has_fired(rig.journal) or _is_at_rest(rig, subject.id))
        happened = time.monotonic()
        if order.fault is not None and order.fault.kind is Kind.KILL and journal.has_fired(rig.journal):
            _replace(worker, rig)
        rig.wait("everything has come to rest", lambda: _is_at_rest(rig, subject.id), RESUMED_SECONDS)
        rested = time.monotonic()
        rig.wait("the customer has logged in", lambda: witness.accepted)
    assert_kept(rig, witness, subject, bystander, before, accepted)
    return rested - happened, witness.accepted


def _replace(worker: Process, rig: CrashRig) -> None:
    """The worker is dead, and a supervisor starts another one, which meets with nothing."""
    worker.ended(within=10)
    rig.start_worker("real")


def _is_at_rest(rig: CrashRig, resource_id: str) -> bool:
    """Whether something was rotated or given up by now, and nothing is under way."""
    return bool(rig.store.views.rotations(resource_id, limit=1)) and rig._is_settled()


def _new_store(server: PrivatePostgresql, number: int) -> str:
    name = f"store{number}"
    with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.superuser_url(name)
