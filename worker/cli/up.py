"""`rollover up`: everything on one machine, with one command."""

import fcntl
import gc
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotation.errors import Conflict, RolloverError, Unavailable
from worker.cli import output, processes, session, store
from worker.queues import Queue

if TYPE_CHECKING:
    from worker.sandbox.broker import PrivateBroker
    from worker.settings import Settings
    from worker.supervisor import Child

URGENT_QUEUES = (Queue.URGENT, Queue.TICK)
"""Of the first worker. Celery serves the queues of a worker in turn, so in a worker with all of them an emergency would wait behind a
backlog of schedules; and the tick, which finds what is due, must never wait behind what it has found. The second worker serves all:
both are of use when the other one has just died."""

PROGRAMS = (
    "worker.tasks",
    "celery.apps.worker",
    "celery.apps.beat",
    "celery.worker.consumer",
    "celery.concurrency.thread",
    "celery.app.routes",
    "celery.backends.base",
    "celery.events.dispatcher",
    "celery.events.receiver",
    "billiard.pool",
)
"""All that the children import; most of it Celery would import in each of them, when it first needs it."""


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
    from worker import lean, logs  # noqa: F401, PLC0415 - imported when it runs, as everything that help does not need
    from worker.supervisor import Supervisor  # noqa: PLC0415

    settings = session.settings()
    logs.configure(settings.log_format, settings.log_level)
    with alone(settings.data_dir) as directory:
        _prepare(settings)
        Supervisor([_broker(settings, directory), _programs(threads)]).run()


def _prepare(settings: "Settings") -> None:
    """The tables brought up to date by a process of its own, so that none that stays has loaded Alembic; meanwhile, the imports.

    Ends this command, with an exit code, where that process has told what is wrong.
    """
    from worker.supervisor import Copy, how_it_ended  # noqa: PLC0415 - as above

    def migrate() -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells how it set itself up
        try:
            store.upgrade(settings)
        except RolloverError as error:
            raise SystemExit(output.tell(error)) from None

    migration = Copy("migrate", migrate)
    migration.start()
    _import_everything()
    status = migration.wait()
    if status < 0:
        raise Unavailable(f"bringing the store's tables up to date was ended by {how_it_ended(status)}: try again")
    if status:
        raise typer.Exit(status)


def _import_everything() -> None:
    """What workers and clock need, for them to be copies of this process. Nothing is connected, and no thread begins."""
    for module in PROGRAMS:
        import_module(module)
    gc.collect()
    gc.freeze()  # the collector would write to what the copies share, and so make it theirs


@contextmanager
def alone(data_dir: Path) -> Iterator[Path]:
    """Hold the data directory for one `rollover up`, and give it a directory of its own to run in.

    Raises `Conflict` when another one holds it. One that was killed holds nothing: the lock is the kernel's.
    """
    directory = data_dir / "run"
    session.make_private(directory)
    with (directory / "up.lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, of this process alone: the copies do not hold it
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


def _broker(settings: "Settings", directory: Path) -> "list[Child]":
    """The broker to be started, if there is none; the workers learn where it is by a file, since others can read an environment."""
    if settings.broker_url is not None:
        return []
    from worker.sandbox.broker import PrivateBroker  # noqa: PLC0415 - as above

    broker = PrivateBroker(directory / "broker")
    broker.start()
    url_file = directory / "broker.url"
    url_file.unlink(missing_ok=True)
    with open(os.open(url_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="ascii") as file:  # noqa: PTH123 - the mode from the first byte on
        file.write(broker.url.reveal())
    os.environ["ROLLOVER_BROKER_URL_FILE"] = str(url_file)  # our copies read their settings from here
    return [EmbeddedBroker(broker)]


def _programs(threads: int | None) -> "Sequence[Child]":
    from worker.supervisor import Copy  # noqa: PLC0415 - as above

    def worker(name: str, queues: Sequence[Queue]) -> None:
        raise SystemExit(processes.run_worker(name, queues, threads=threads))

    return [
        Copy("urgent-worker", lambda: worker("urgent", URGENT_QUEUES)),
        Copy("worker", lambda: worker("all", tuple(Queue))),
        Copy("beat", processes.run_beat),
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
