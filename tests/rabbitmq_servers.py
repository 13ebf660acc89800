"""A private RabbitMQ for tests, where the system has one: ports, node, cookie and files of its own, gone with its parent."""

from __future__ import annotations

import itertools
import os
import random
import secrets
import shutil
import socket
from pathlib import Path
from typing import Self
from urllib.parse import quote

from rotation.sensitive import Sensitive
from tests.processes import Process, eventually

HOST = "127.0.0.1"
NODE = "tests@localhost"
"""Other nodes of this name are no trouble: none looks for another."""
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""RabbitMQ's own script. What Debian puts on the path becomes the user `rabbitmq` first, whose files are the system's."""
INSTALLED = os.access(PROGRAM, os.X_OK) and shutil.which("erl") is not None
USER = "rollover"
READY = "Server startup complete"
START_SECONDS = 60.0
"""It takes six on a machine that has nothing else to do."""
PORTS = range(20_000, 32_000)
"""Below those that Linux gives to clients: a port is free for seconds before the server takes it, and while that is away."""


class PrivateRabbitmq:
    """A RabbitMQ with one user and no plugin, as a context manager. When it starts again it has its port, its users and its queues."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._password = Sensitive(f"{secrets.token_urlsafe(18)}@/{secrets.token_urlsafe(6)}")
        self._process: Process | None = None
        self._starts = itertools.count(1)
        self.port, self._node_port = free_ports(2)

    def __enter__(self) -> Self:
        self._prepare()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> Sensitive:
        """How to reach it, with the password."""
        return Sensitive(f"amqp://{USER}:{quote(self._password.reveal(), safe='')}@{HOST}:{self.port}//")

    @property
    def secrets(self) -> tuple[str, ...]:
        """The password as a log could show it: as it is, and as it stands in the URL."""
        return (self._password.reveal(), quote(self._password.reveal(), safe=""))

    def start(self) -> None:
        """Start it; it takes connections when this returns."""
        log = self._directory / f"rabbitmq-{next(self._starts)}.log"
        self._process = process = Process("rabbitmq", [str(PROGRAM)], self._environment(), log)
        eventually(lambda: READY in log.read_text(errors="replace") or not process.runs, START_SECONDS)
        if READY not in log.read_text(errors="replace"):
            self.kill()
            raise AssertionError(f"RabbitMQ did not start\n{process.last_words()}")

    def stop(self) -> None:
        """End it in order: it says goodbye to everybody who is connected. Stopped already: a no-op."""
        if self._process is not None:
            self._process.end()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()

    def _prepare(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "plugins").write_text("[].\n")
        settings = {
            "listeners.tcp.1": f"{HOST}:{self.port}",
            "default_user": USER,
            "default_pass": self._password.reveal(),
            "log.file": "false",
            "log.console": "true",
            "log.console.level": "info",
            "disk_free_limit.absolute": "1MB",
        }
        file = self._directory / "rabbitmq.conf"
        file.touch(0o600)
        file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))

    def _environment(self) -> dict[str, str]:
        """Nothing of the system's RabbitMQ, whose own settings these are, and no epmd: nobody looks for this node by its name."""
        alone = f"-sname {NODE} -erl_epmd_port {self._node_port} -kernel inet_dist_use_interface {{127,0,0,1}}"
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C.UTF-8",
            "HOME": str(self._directory),  # where the cookie is
            "ERL_FLAGS": "-start_epmd false",  # for its helpers as well: one that it starts would outlive it
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RUNNING_UNDER_SYSTEMD": "true",  # become the server, with no shell in between
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": alone,
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(self._directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._directory / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._directory / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self._directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._directory),
        }


def free_ports(count: int) -> list[int]:
    """So many ports of this machine's own address that nobody has."""
    free: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does, or its own past would keep it out
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        free.append(port)
        if len(free) == count:
            return free
    raise AssertionError(f"no {count} ports are free on {HOST}")
