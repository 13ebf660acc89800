"""The demo from first to last: `rollover up`, a world for it to work on, and stock taken when nothing moves any more.

Everything is in one temporary directory and in processes that end with this one. The database server, the local Vercel and the customers
are the world (`worker.sandbox.scene`); store, broker, workers and clock are `rollover up` itself, with settings that make it quick.

It begins with what takes longest, `rollover up`; what the world needs is imported and started meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from rotation.errors import RolloverError
from rotation.sensitive import Sensitive
from worker.sandbox.postgresql import PrivatePostgresql, find_binaries
from worker.sandbox.vercel import SandboxVercel
from worker.supervisor import Inbox
from worker.variables import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import timedelta

    from worker.sandbox.scoreboard import Board, Summary

STOP_SECONDS = 20.0
SHOWN_OF_LOG = 800
POSTGRESQL_BIN = "SANDBOX_POSTGRESQL_BIN"

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


class Up:
    """`rollover up` as a child, with our settings and a log file."""

    def __init__(self, directory: Path, vercel_url: str) -> None:
        self._data_dir = directory / "rollover"
        self.environment = _environment(self._data_dir, vercel_url)
        self._log = directory / "rollover.log"
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """In a process group of its own, so that Ctrl-C reaches us alone; it ends with us, however we end."""
        command = ["setpriv", "--pdeathsig=TERM", sys.executable, "-P", "-m", "worker", "up"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        try:
            yield
        finally:
            self._end(self._process)

    @property
    def pid(self) -> int:
        """Its process. Raises `DemoFailed` with its last words when it has ended, or was never started."""
        if self._process is None or self._process.poll() is not None:
            raise DemoFailed(f"`rollover up` does not run: {self._log.read_text(errors='replace').strip()[-SHOWN_OF_LOG:]}")
        return self._process.pid

    def broker_url(self) -> Sensitive | None:
        """Where its broker is, once it has one."""
        try:
            return Sensitive((self._data_dir / "run" / "broker.url").read_text(encoding="ascii"))
        except FileNotFoundError:
            return None

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()  # asked twice, it ends its children by force
            process.wait()


def demonstrate(plan: Plan, show: Callable[[Board], None]) -> Summary:
    """Show the plan until its time is over, or a signal asks for the end; nothing is left running or lying about.

    `show` is called several times a second. Raises `DemoFailed`, and `ServerFailed` where there is no PostgreSQL to be had.
    """
    programs = find_binaries(_postgresql_programs())
    with (
        Inbox() as inbox,
        tempfile.TemporaryDirectory(prefix="rollover-demo-") as place,
        SandboxVercel(per_minute=None) as vercel,
        ExitStack() as world,
    ):
        directory = Path(place)
        up = Up(directory, vercel.url)
        with up.running(), ThreadPoolExecutor(1) as meanwhile:
            meanwhile.submit(import_module, "worker.sandbox.scene")  # as long as the start of a database server
            # It is entered into `world`, because it must outlive `up`.
            server = world.enter_context(PrivatePostgresql(directory / "postgresql", bin_directory=programs, settings=FORGETFUL))
            from worker.sandbox import scene  # noqa: PLC0415 - see above

            stage = scene.set_up(plan, directory, server, vercel.world, up)
            elapsed = scene.play(stage, inbox, show)
        return scene.take_stock(stage, elapsed)


def _postgresql_programs() -> Path | None:
    """The directory of PostgreSQL's programs, where the caller's setting names one."""
    given = os.environ.get(PREFIX + POSTGRESQL_BIN)
    return Path(given) if given else None


def _environment(data_dir: Path, vercel_url: str) -> Mapping[str, str]:
    """Our settings instead of the caller's: a demo must not touch anybody's store."""
    ours = {"DATA_DIR": str(data_dir), "VERCEL_API_URL": vercel_url, **QUICK}
    foreign = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX) or name == PREFIX + POSTGRESQL_BIN}
    return {**foreign, **{PREFIX + name: value for name, value in ours.items()}, "PYTHONPATH": str(Path(__file__).parents[2])}
