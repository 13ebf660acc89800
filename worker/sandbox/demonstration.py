"""The demo from first to last: make a world of our own, let `rollover up` work on it, look on, and take stock when nothing moves any more.

Everything is in one temporary directory and in child processes that end with this one. The database server, the local Vercel and the
customers are the world; the store, the broker, the workers and the clock are `rollover up` itself, with settings that make it quick.
"""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rotation import requests
from rotation.errors import RolloverError, Unavailable
from rotation.model import Deadline, Event, Installation, SealContext, Sensitive, Trigger
from rotation.store.keyring import create_key_file
from rotation.store.sql import SqlStore
from worker.machine import MachineEntropy
from worker.sandbox import fleet
from worker.sandbox.customers import Customer
from worker.sandbox.ledger import read_standings
from worker.sandbox.postgresql import PrivatePostgresql
from worker.sandbox.scoreboard import Board, Summary
from worker.sandbox.stocktaking import take_stock
from worker.sandbox.vercel import SandboxVercel
from worker.settings import load
from worker.supervisor import Inbox
from worker.variables import PREFIX
from worker.wiring import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from rotation.model import KnownLogin, Resource, Server
    from rotation.ports import Ports

ACTOR = "demo"
LOOK_SECONDS = 0.5
FIRST_ROTATIONS_WITHIN = 4.0
"""Seconds from the registration in which each resource is rotated for the first time, one after another."""
START_SECONDS = 30.0
STOP_SECONDS = 20.0

QUICK = {
    "TICK_SECONDS": "1",
    "USAGE_SAMPLE_SECONDS": "1",
    # Nobody is on the way between us and the local Vercel who could still deliver what we gave up on.
    "SERVER_ALLOWANCE_SECONDS": "3",
    "ALLOW_PRIVATE_HOSTS": "true",
    "LOG_FORMAT": "json",
}
FORGETFUL = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
"""The customers' data end with the demo."""


class DemoFailed(RolloverError):
    """The demo could not be set up, or did not last; the message says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be shown. `lasts` counts from the registration; None: until somebody ends it."""

    resources: int
    every: timedelta
    grace: timedelta
    lasts: timedelta | None
    bin_directory: Path | None = None
    """PostgreSQL's programs, where not those that are found."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The world as it stands when the first rotation may begin."""

    postgresql: PrivatePostgresql
    vercel: SandboxVercel
    up: subprocess.Popen[bytes]
    log: Path
    ports: Ports
    store: SqlStore
    resources: Mapping[str, Resource]
    customers: Sequence[Customer]
    registered_at: float

    def look(self) -> Board:
        """Everything as it is now. Raises `DemoFailed` when `rollover up` has ended."""
        if self.up.poll() is not None:
            raise DemoFailed(f"`rollover up` has ended: {_last_words(self.log)}")
        return self.board()

    def board(self) -> Board:
        """Everything as the store and the customers have it."""
        now, standings = read_standings(self.store.database, self.resources)
        return Board(
            now=now,
            elapsed=timedelta(seconds=time.monotonic() - self.registered_at),
            standings=standings,
            tallies={one.name: one.tally for one in self.customers},
            deployed={one.name: one.deployed for one in self.customers},
            worker=_worker_of(self.up.pid),
        )


def demonstrate(plan: Plan, show: Callable[[Board], None]) -> Summary:
    """Show the plan until its time is over, or a signal asks for the end; nothing is left running or lying about.

    `show` is called twice a second. Raises `DemoFailed`, and `ServerFailed` or `BrokerFailed` where there is no server to be had.
    """
    with Inbox() as inbox, ExitStack() as world:
        directory = Path(world.enter_context(tempfile.TemporaryDirectory(prefix="rollover-demo-")))
        with ExitStack() as play:
            scene = _set_up(plan, directory, world, play)
            _play(plan, scene, inbox, show)
        return take_stock(scene.board(), scene.postgresql, scene.vercel.world, _marked_logins(scene))


def _set_up(plan: Plan, directory: Path, world: ExitStack, play: ExitStack) -> Scene:
    """What is entered into `play` ends before stock is taken, what is entered into `world` after it."""
    entropy = MachineEntropy()
    vercel = world.enter_context(SandboxVercel(per_minute=None))
    environment = _environment(directory / "rollover", vercel.url)
    settings = load(environment)
    log = directory / "rollover.log"
    settings.data_dir.mkdir(mode=0o700)
    create_key_file(settings.data_dir / "keys.json")
    up = play.enter_context(_up(environment, log))
    postgresql = world.enter_context(PrivatePostgresql(directory / "postgresql", bin_directory=plan.bin_directory, settings=FORGETFUL))
    token = Sensitive(secrets.token_urlsafe(24))
    tenants = fleet.tenants(plan.resources, entropy)
    admin_url_file = directory / "admin.url"
    fleet.settle(postgresql, tenants, entropy, admin_url_file)
    fleet.first_push(vercel.world, tenants, postgresql, token)
    customers = [_customer(tenant, vercel, plan) for tenant in tenants]
    play.enter_context(_at_work(customers))
    ports = wire(settings)
    store = _store(ports)
    _await_store(store, up, log)
    registered_at = time.monotonic()
    resources = _register(plan, tenants, fleet.server(postgresql, admin_url_file), token, ports)
    return Scene(postgresql, vercel, up, log, ports, store, resources, customers, registered_at)


def _play(plan: Plan, scene: Scene, inbox: Inbox, show: Callable[[Board], None]) -> None:
    """Ask for the first rotations, one after another; then look on."""
    waiting = list(scene.resources.values())
    pace = FIRST_ROTATIONS_WITHIN / max(1, len(waiting) - 1)
    while inbox.wait(LOOK_SECONDS) is None:
        board = scene.look()
        begun = len(scene.resources) - len(waiting)
        if waiting and board.elapsed.total_seconds() >= begun * pace:
            requests.trigger(waiting.pop(0).id, requests.Asked(Trigger.MANUAL, ACTOR, "the first rotation"), scene.ports)
        show(board)
        if plan.lasts is not None and board.elapsed >= plan.lasts:
            return


def _environment(data_dir: Path, vercel_url: str) -> dict[str, str]:
    """Our settings instead of the caller's: a demo must not touch anybody's store."""
    ours = {"DATA_DIR": str(data_dir), "VERCEL_API_URL": vercel_url, **QUICK}
    foreign = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {**foreign, **{PREFIX + name: value for name, value in ours.items()}, "PYTHONPATH": str(Path(__file__).parents[2])}


@contextmanager
def _up(environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`rollover up` in a process group of its own, so that Ctrl-C reaches us alone; it ends with us, however we end."""
    command = ["setpriv", "--pdeathsig=TERM", sys.executable, "-P", "-m", "worker", "up"]
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0)  # noqa: S603 - our own command
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()  # asked twice, it ends its children by force
            process.wait()


@contextmanager
def _at_work(customers: Sequence[Customer]) -> Iterator[None]:
    """All applications, each on a thread; what one of them did not expect is raised at the end."""
    ending = threading.Event()
    running: list[Future[None]] = []
    with ThreadPoolExecutor(len(customers), thread_name_prefix="customer") as threads:
        try:
            running += [threads.submit(one.run, ending) for one in customers]
            yield
        finally:
            ending.set()
    for one in running:
        one.result()


def _customer(tenant: fleet.Tenant, vercel: SandboxVercel, plan: Plan) -> Customer:
    def environment() -> Mapping[str, str]:
        return vercel.world.held(fleet.INSTALLATION, tenant.external_id)

    return Customer(tenant.name, environment, plan.grace, random.Random())  # noqa: S311 - a team's habits are no secret


def _await_store(store: SqlStore, up: subprocess.Popen[bytes], log: Path) -> None:
    """Until `rollover up` has made the tables."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            store.servers()
        except Unavailable as error:
            if up.poll() is not None or time.monotonic() > until:
                raise DemoFailed(f"`rollover up` did not start: {_last_words(log) or error}") from None
        else:
            return
        time.sleep(0.05)


def _register(plan: Plan, tenants: Sequence[fleet.Tenant], server: Server, token: Sensitive, ports: Ports) -> Mapping[str, Resource]:
    """What an operator does with `rollover installation add`, `server add` and `resource add`."""
    store = _store(ports)
    sealed = ports.sealer.seal(token, SealContext(fleet.INSTALLATION, "", "", "token"))
    store.add_installation(Installation(fleet.INSTALLATION, sealed), Event("installation_added", ACTOR))
    store.add_server(server, Event("server_added", ACTOR))
    return {one.name: requests.register(fleet.spec(one, every=plan.every, grace=plan.grace), one.login, ACTOR, ports) for one in tenants}


def _marked_logins(scene: Scene) -> tuple[KnownLogin, ...]:
    deadline = Deadline(scene.ports.clock.monotonic() + scene.ports.terms.call_deadline.total_seconds())
    return scene.ports.engines[fleet.ENGINE].list_logins(scene.store.server(fleet.SERVER), deadline)


def _store(ports: Ports) -> SqlStore:
    """The store with what an operator may do beside what a rotation needs."""
    if not isinstance(ports.store, SqlStore):
        raise DemoFailed("the demo needs the store on SQLAlchemy")
    return ports.store


def _worker_of(up: int) -> int | None:
    """One worker among the children of `rollover up`, for who wants to try what happens when it dies."""
    try:
        children = Path(f"/proc/{up}/task/{up}/children").read_text().split()
        return next((int(pid) for pid in children if b"--name\0all" in Path(f"/proc/{pid}/cmdline").read_bytes()), None)
    except (FileNotFoundError, ProcessLookupError):
        return None


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-800:]
