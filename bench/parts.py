"""The servers that both sides use, and the worker's processes: everything private, on free ports of 127.0.0.1, gone with this process."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg
from celery import Celery

from bench.floor import STORE, Places
from rotation.model import Event, Installation, SealContext
from rotation.sensitive import Sensitive
from rotation.store.keyring import create_key_file
from rotation.store.migration import migrate
from rotation.store.sql import SqlStore
from worker.app import celery_settings
from worker.machine import MachineEntropy
from worker.sandbox import fleet
from worker.sandbox.broker import PrivateBroker
from worker.sandbox.postgresql import PrivatePostgresql
from worker.sandbox.vercel_client import SandboxVercelClient
from worker.sandbox.vercel_faults import delayed
from worker.settings import load
from worker.wiring import wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from rotation.ports import Ports

ACTOR = "bench"
TOKEN = Sensitive("tok_bench")
START_SECONDS = 30.0
END_SECONDS = 30.0
TICK_SECONDS = 1.0

SERVER_SETTINGS = {"max_wal_size": "4GB"}
"""Everything else is PostgreSQL's default, fsync and synchronous_commit included; a checkpoint in the middle of a round would be noise."""


class BenchFailed(Exception):
    """A part did not do what it must; the message says which."""


class Process:
    """One process of ours, with its log in a file."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(  # noqa: S603 - this interpreter and our own modules
                [*("setpriv", "--pdeathsig=KILL"), sys.executable, "-P", *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._child.pid

    def wait_for(self, words: str) -> str:
        """Its log, once these words stand in it. Raises `BenchFailed` when they do not come."""
        end = time.monotonic() + START_SECONDS
        while words not in (told := self.log.read_text(errors="replace")):
            if self._child.poll() is not None or time.monotonic() > end:
                raise BenchFailed(f"{self.log.name} did not start: {told[-500:]}")
            time.sleep(0.02)
        return told

    def pause(self) -> None:
        """Stop it in its tracks."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def end(self) -> None:
        """Ask it to end, and make sure that it does."""
        if self._child.poll() is None:
            self.resume()
        self._child.terminate()
        try:
            self._child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class Workers:
    """Worker processes and one beat, ready."""

    def __init__(self, parts: Parts, *, processes: int, threads: int) -> None:
        self.processes = [parts.start("worker", "--name", f"bench{number}", "--threads", str(threads)) for number in range(processes)]
        self.beat = parts.start("beat")
        for one in self.processes:
            one.wait_for(" ready.")

    def __enter__(self) -> Self:
        """Use them; they end with the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Let them drain and end."""
        for one in (self.beat, *self.processes):
            one.end()

    @property
    def pids(self) -> list[int]:
        """The processes that do the work."""
        return [one.pid for one in self.processes]


class Parts:
    """The store's server, the customers' server, the broker and the local Vercel, all running, and the ports of this process to them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running = ExitStack()
        self._numbers: Iterator[int] = iter(range(1_000_000))
        self.stores = PrivatePostgresql(directory / "stores", settings=SERVER_SETTINGS)
        self.customers = PrivatePostgresql(directory / "customers", settings=SERVER_SETTINGS)
        self.broker = PrivateBroker(directory / "broker")
        self.admin_url_file = directory / "admin.url"
        self.vercel_url = ""
        self.vercel: SandboxVercelClient
        self.ports: Ports
        self.store: SqlStore
        self.hints: Celery
        self._vercel_process: Process
        self._environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Start everything."""
        with self._running:
            self._start()
            self._running = self._running.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End everything."""
        self._running.close()

    @property
    def places(self) -> Places:
        """The same parts, as the floor is told of them."""
        return Places(
            store_url=self.stores.superuser_url("floor"),
            admin_url=self.admin_url_file.read_text(),
            host=self.customers.host,
            port=self.customers.port,
            vercel_url=self.vercel_url,
            token=TOKEN.reveal(),
            installation=fleet.INSTALLATION,
        )

    @property
    def servers(self) -> dict[str, int]:
        """The processes of the servers, by name."""
        return {
            "store": self.stores.pid,
            "customers' PostgreSQL": self.customers.pid,
            "broker": self.broker.pid,
            "Vercel": self._vercel_process.pid,
        }

    def start(self, *arguments: str) -> Process:
        """Start a command of `rollover`."""
        return self._process(["-m", "worker", *arguments], f"{arguments[0]}-{next(self._numbers)}.log")

    def answer_after(self, seconds: float) -> None:
        """From now on Vercel takes this long for an answer."""
        self.vercel.script([delayed(seconds, times=None)] if seconds else [])

    def database(self, name: str) -> str:
        """Make an empty database on the store's server. Gives its URL."""
        with psycopg.connect(self.stores.superuser_url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.stores.superuser_url(name)

    def _start(self) -> None:
        for server in (self.stores, self.customers, self.broker):
            self._running.enter_context(server)
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("ROLLOVER_")}
        self._environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        self._start_vercel()
        with psycopg.connect(self.database("floor"), autocommit=True) as connection:
            connection.execute(STORE)
        self._configure()
        fleet.make_admin(self.customers, MachineEntropy(), self.admin_url_file)
        sealed = self.ports.sealer.seal(TOKEN, SealContext(fleet.INSTALLATION, "", "", "token"))
        self.store.add_installation(Installation(fleet.INSTALLATION, sealed), Event("installation_added", ACTOR))
        self.store.add_server(fleet.server(self.customers, self.admin_url_file), Event("server_added", ACTOR))

    def _start_vercel(self) -> None:
        token = secrets.token_urlsafe(16)
        self._vercel_process = self._process(["-m", "bench.vercel", token], "vercel.log")
        self.vercel_url = self._vercel_process.wait_for("\n").strip()
        self.vercel = self._running.enter_context(SandboxVercelClient(self.vercel_url, token))
        self.vercel.add_installation(fleet.INSTALLATION, TOKEN.reveal())

    def _configure(self) -> None:
        """The settings of all processes, this one's ports, and its way to send hints."""
        data = self.directory / "data"
        data.mkdir(mode=0o700)
        create_key_file(data / "rollover.keys")
        self._environment |= {
            "ROLLOVER_DATA_DIR": str(data),
            "ROLLOVER_KEYS_FILE": str(data / "rollover.keys"),
            "ROLLOVER_STORE_URL": self.database("rollover"),
            "ROLLOVER_BROKER_URL": self.broker.url.reveal(),
            "ROLLOVER_VERCEL_API_URL": self.vercel_url,
            "ROLLOVER_VERCEL_RATE_PER_MINUTE": "100000",
            "ROLLOVER_ALLOW_PRIVATE_HOSTS": "true",
            "ROLLOVER_TICK_SECONDS": f"{TICK_SECONDS:g}",
            "ROLLOVER_LOG_FORMAT": "json",
        }
        settings = load(self._environment)
        migrate(settings.store)
        self.ports = wire(settings)
        if not isinstance(self.ports.store, SqlStore):
            raise BenchFailed("the store is not the one that is to be measured")
        self.store = self.ports.store
        self._running.callback(self.store.dispose)
        self.hints = Celery("bench", set_as_current=False)
        self.hints.config_from_object(celery_settings(settings))
        self._running.callback(self.hints.close)

    def _process(self, command: list[str], log: str) -> Process:
        process = Process(command, self._environment, self.directory / log)
        self._running.callback(process.end)
        return process
