"""The whole system in real processes, where every secret begins with the canary and everybody who can log does so as loudly as possible."""

from __future__ import annotations

import base64
import os
import sqlite3
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg

from rotation import requests
from rotation.model import SecretTemplate
from rotation.sensitive import Sensitive
from rotation.store.keyring import KEY_BYTES, KeyUse, load_key_file
from rotation.store.sealing import KeyringSealer
from tests.canary.echo import Echo
from tests.canary.faults import Orders
from tests.canary.needles import CANARY, CanaryEntropy
from tests.canary.program import ORDERS
from tests.canary.sinks import BrokerTraffic
from tests.processes import Process, eventually
from tests.rigs import PATIENCE, ROOT, Rig, prepared
from worker.sandbox.broker import PrivateBroker
from worker.sandbox.postgresql import PrivatePostgresql, free_port
from worker.variables import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rotation.model import Resource

LOUD = {
    "log_statement": "all",
    "log_min_duration_statement": "0",
    "log_min_error_statement": "debug5",
    "log_min_messages": "debug1",
    "log_error_verbosity": "verbose",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "-1",
    "log_connections": "on",
    "log_disconnections": "on",
    "log_line_prefix": "%m [%p] %q%u@%d/%a %v:%x ",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "all",
    "pg_stat_statements.track_utility": "on",
    "pg_stat_statements.max": "50000",
}
"""A PostgreSQL that tells whatever it can tell."""
QUICK_BUT_KEPT = {"fsync": "off", "max_connections": "100", "max_wal_size": "4GB"}
"""What was written to the log of changes stays there until the end."""
LOUD_SETTINGS = {"LOG_LEVEL": "debug", "TICK_SECONDS": "0.3", "CLAIM_SECONDS": "2", "CALL_DEADLINE_SECONDS": "1.2"}
BY_FILE = ("STORE_URL", "BROKER_URL", "AUDIT_KEY")
"""The settings that are secrets: in files, as whoever runs it seriously has them."""


def secret(name: str) -> Sensitive:
    """A secret that a person chose: the canary, and characters that others must escape."""
    return Sensitive(f"{CANARY}-{name}%2F+/&=\"'\\<>{os.urandom(8).hex()}")


def loud_postgresql(directory: Path) -> PrivatePostgresql:
    """A server that logs everything, to be started, whose superuser has a canary for a password."""
    directory.mkdir()
    password_file = directory / "superuser.password"
    password_file.touch(mode=0o600)
    password_file.write_text(f"{CANARY}{os.urandom(12).hex()}")
    return PrivatePostgresql(directory, settings={**LOUD, **QUICK_BUT_KEPT})


def count_statements(server: PrivatePostgresql) -> None:
    with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")


class House(Rig):
    """A rig of which every secret begins with the canary, on servers that are loud. `log_format` is that of all its processes."""

    token = secret("token")
    flower_password = secret("flower")
    entropy = CanaryEntropy()
    program = "tests.canary.program"

    def __init__(self, directory: Path, customers: PrivatePostgresql, store: PrivatePostgresql | None, log_format: str) -> None:
        for server in filter(None, (customers, store)):
            count_statements(server)
        house = directory / "house"
        house.mkdir()
        self.store_server = store
        self.log_format = log_format
        self.orders = Orders(house / "orders")
        self.lost_keys = house / "lost.keys"
        self.traffic = BrokerTraffic(house)
        super().__init__(
            house, [prepared("customers", customers, directory, CanaryEntropy())], None if store is None else store.superuser_url()
        )

    def _start(self) -> None:
        for name in ("orders", "secrets", "tmp"):
            (self.directory / name).mkdir(mode=0o700)
        super()._start()

    def _make_keys(self, path: Path) -> None:
        write_keys(path)
        write_keys(self.lost_keys)

    def _new_broker(self) -> PrivateBroker:
        return PrivateBroker(self.directory / "broker", password=secret("broker"))

    def _start_vercel(self) -> str:
        self.echo = self._running.enter_context(Echo(super()._start_vercel()))
        return self.echo.url

    def _environment(self, data: Path) -> dict[str, str]:
        environment = super()._environment(data)
        environment |= {PREFIX + name: value for name, value in LOUD_SETTINGS.items()}
        environment |= {PREFIX + "LOG_FORMAT": self.log_format, PREFIX + "AUDIT_KEY": secret("audit").reveal()}
        for name in BY_FILE:
            value = environment.pop(PREFIX + name, None)
            if value is not None:
                environment[f"{PREFIX}{name}_FILE"] = str(self._secret_file(name.lower(), value))
        return environment | {
            ORDERS: str(self.directory / "orders"),
            "TMPDIR": str(self.directory / "tmp"),
            "PYTHONFAULTHANDLER": "1",
            "FLOWER_PASSWORD_FILE": str(self._secret_file("flower", self.flower_password.reveal())),
        }

    def _secret_file(self, name: str, value: str) -> Path:
        path = self.directory / "secrets" / name
        path.touch(mode=0o600)
        path.write_text(value)
        return path

    def start_flower(self) -> None:
        """Flower as `make flower` starts it; it listens to the workers from now on."""
        self.flower_port = free_port()
        command = [sys.executable, "-P", "-m", "celery", "-A", "worker.app", "flower", f"--conf={ROOT / 'tools/flowerconfig.py'}"]
        flower = Process("flower", [*command, f"--port={self.flower_port}"], self.environment, self.directory / "flower.log")
        self.keep(flower)

    def start_stranger(self, name: str, environment: Mapping[str, str]) -> Process:
        """A worker that was given other settings in these."""
        ours = self.environment
        self.environment = {**ours, **environment}
        try:
            return self.start_worker(name)
        finally:
            self.environment = ours

    def keep(self, process: Process) -> None:
        """A process that ends with the house."""
        self._running.callback(process.end)
        self.processes.append(process)

    def add_sealed_with_a_lost_key(self) -> Resource:
        """A customer whose login no worker can open."""
        ports, sealer = self.ports, KeyringSealer(load_key_file(self.lost_keys))
        self.ports = replace(ports, sealer=sealer)
        try:
            return self.add()[0]
        finally:
            self.ports = ports

    def mislead(self, resource: Resource) -> None:
        """From now on its template names another host, so that nobody can log in with what it makes."""
        template = SecretTemplate("DATABASE_URL", "postgresql://{username}:{password}@elsewhere.example/{database}")
        requests.revise(resource, replace(resource.spec, secrets=(template,)), "canary", self.ports)

    def listen(self) -> None:
        """Note down whatever passes through the broker, and what Flower hears."""
        self.traffic.listen()
        self._running.callback(self.traffic.stop)
        self.start_flower()

    def said(self, words: str) -> bool:
        """Whether a process has logged these words."""
        return any(words in process.log.read_text(errors="replace") for process in self.processes)

    @contextmanager
    def store_away(self) -> Iterator[None]:
        """The store does not answer: its server is stopped, or its file is locked by somebody."""
        if self.store_server is not None:
            self.store_server.stop()
            try:
                yield
            finally:
                self.store_server.start()
            return
        with sqlite3.connect(self.directory / "data" / "rollover.db", isolation_level=None) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            try:
                yield
            finally:
                connection.execute("ROLLBACK")
        connection.close()

    @contextmanager
    def admin_refused(self) -> Iterator[None]:
        """The server does not take the admin's password any more."""
        server = self.customers[0].postgresql
        with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
            connection.execute("ALTER ROLE rollover_admin NOLOGIN")
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rollover_admin'")
            try:
                yield
            finally:
                connection.execute("ALTER ROLE rollover_admin LOGIN")

    def wait_until_said(self, words: str) -> None:
        assert eventually(lambda: self.said(words), PATIENCE), f"nobody said {words!r}\n{self.last_words()}"


def write_keys(path: Path) -> None:
    """A key file of which every key is written with the canary in front."""
    lines = [f"{use} {_key()}" for use in KeyUse]
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")


def _key() -> str:
    begin = base64.urlsafe_b64decode(CANARY + "xyz")  # whole groups of four characters are whole bytes
    return base64.urlsafe_b64encode(begin + os.urandom(KEY_BYTES - len(begin))).decode().rstrip("=")
