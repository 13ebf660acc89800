"""`rollover up`: everything on one machine, with one command."""

import fcntl
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotation.errors import Conflict
from worker.cli import session, store

if TYPE_CHECKING:
    from worker.sandbox.broker import PrivateBroker
    from worker.settings import Settings
    from worker.supervisor import Child

URGENT_QUEUES = "urgent,tick"
"""Of the first worker. Celery serves the queues of a worker in turn, so in a worker with all of them an emergency would wait behind a
backlog of schedules; and the tick, which finds what is due, must never wait behind what it has found. The second worker serves all:
both are of use when the other one has just died."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(up)


def up(
    *,
    threads: Annotated[int | None, typer.Option(min=1, max=1_000, help="How many rows each worker carries on at once.")] = None,
) -> None:
    """Run everything on this machine.

    It updates the store's tables, starts a broker unless ROLLOVER_BROKER_URL names one, two workers and the clock. What dies is started
    again. Ctrl-C ends it all: steps in hand are ended and recorded first; a second one does not wait.
    """
    from worker import logs  # noqa: PLC0415 - imported when it runs, as everything that help does not need
    from worker.supervisor import Supervisor  # noqa: PLC0415

    settings = session.settings()
    logs.configure(settings.log_format, settings.log_level)
    with alone(settings.data_dir) as directory:
        logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells how it set itself up
        store.upgrade(settings)
        broker, variables = _broker(settings, directory)
        environment = {**os.environ, **variables, "PYTHONPATH": str(Path(__file__).parents[2])}
        Supervisor([broker, _programs(environment, threads)]).run()


@contextmanager
def alone(data_dir: Path) -> Iterator[Path]:
    """Hold the data directory for one `rollover up`, and give it a directory of its own to run in.

    Raises `Conflict` when another one holds it. One that was killed holds nothing: the lock is the kernel's.
    """
    directory = data_dir / "run"
    session.make_private(directory)
    with (directory / "up.lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Conflict(
                f"another `rollover up` (process {file.read().strip() or 'unknown'}) uses {data_dir}: "
                "end that one, or give this one a ROLLOVER_DATA_DIR of its own"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield directory


def _broker(settings: "Settings", directory: Path) -> "tuple[list[Child], dict[str, str]]":
    """The broker to be started, if there is none, and how the workers reach it: by a file, since others can read an environment."""
    if settings.broker_url is not None:
        return [], {}
    from worker.sandbox.broker import PrivateBroker  # noqa: PLC0415 - as above

    broker = PrivateBroker(directory / "broker")
    broker.start()
    url_file = directory / "broker.url"
    url_file.unlink(missing_ok=True)
    with open(os.open(url_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="ascii") as file:  # noqa: PTH123 - the mode from the first byte on
        file.write(broker.url.reveal())
    return [EmbeddedBroker(broker)], {"ROLLOVER_BROKER_URL_FILE": str(url_file)}


def _programs(environment: Mapping[str, str], threads: int | None) -> "list[Child]":
    from worker.supervisor import Program  # noqa: PLC0415 - as above

    # -P keeps what lies in the present directory from being imported in our packages' stead.
    command = [sys.executable, "-P", "-m", "worker"]
    dies = ["--dies-with", str(os.getpid())]
    at_once = [] if threads is None else ["--threads", str(threads)]
    return [
        Program("urgent-worker", [*command, "worker", "--name", "urgent", "--queues", URGENT_QUEUES, *at_once, *dies], environment),
        Program("worker", [*command, "worker", "--name", "all", *at_once, *dies], environment),
        Program("beat", [*command, "beat", *dies], environment),
    ]


class EmbeddedBroker:
    """The private broker as a child: started again, it has the same port and password."""

    name = "broker"

    def __init__(self, broker: "PrivateBroker") -> None:
        self._broker = broker
        self._pid: int | None = None

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self._pid

    def start(self) -> None:
        """Start it, where it does not run yet; it answers when this returns."""
        self._broker.start()
        self._pid = self._broker.pid

    def ended(self) -> int | None:
        """How it ended, left for the broker itself to reap."""
        if self._pid is None:
            return 0
        found = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        self._pid = None
        return -found.si_status if found.si_code != os.CLD_EXITED else found.si_status

    def signal(self, number: signal.Signals) -> None:
        """A frozen one is thawed first: it could not end."""
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGCONT)
                os.kill(self._pid, number)
