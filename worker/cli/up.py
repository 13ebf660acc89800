"""`rollover up`: everything on one machine, with one command."""

import fcntl
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotation.errors import Conflict
from worker.cli import output, session, store
from worker.queues import Queue

if TYPE_CHECKING:
    from worker.settings import Settings
    from worker.supervisor import Program

URGENT_QUEUES = f"{Queue.URGENT.short},{Queue.TICK.short}"
"""Of the first worker. Celery serves the queues of a worker in turn, so in a worker with all of them an emergency would wait behind a
backlog of schedules; and the tick, which finds what is due, must never wait behind what it has found."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(up)


def up(
    *,
    threads: Annotated[int | None, typer.Option(min=1, max=1_000, help="How many rows each worker carries on at once.")] = None,
) -> None:
    """Run everything on this machine: migrate, a broker unless ROLLOVER_BROKER_URL names one, two workers, the clock.

    What dies is started again. Ctrl-C ends it all: work in hand is ended and recorded first.
    """
    from worker import logs  # noqa: PLC0415 - imported when it runs, as everything that help does not need
    from worker.supervisor import Supervisor  # noqa: PLC0415

    settings = session.settings()
    logs.configure(settings.log_format, settings.log_level)
    with alone(settings.data_dir):
        store.upgrade()
        broker, variables = _broker(settings)
        environment = {**os.environ, **variables, "PYTHONPATH": _packages()}
        Supervisor([broker, _programs(environment, threads)]).run()
    output.done("everything has ended")


@contextmanager
def alone(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for one `rollover up`. Raises `Conflict` when another holds it; a killed one holds nothing."""
    session.make_private(data_dir)
    with (data_dir / "up.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Conflict(
                f"another `rollover up` (process {file.read().strip() or 'unknown'}) uses {data_dir}: "
                "end that one, or give this one its own ROLLOVER_DATA_DIR"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _programs(environment: Mapping[str, str], threads: int | None) -> "list[Program]":
    from worker.supervisor import Program  # noqa: PLC0415

    # -P keeps what lies in the present directory from being imported in our packages' stead.
    command = [sys.executable, "-P", "-m", "worker"]
    dies = ["--dies-with", str(os.getpid())]
    at_once = [] if threads is None else ["--threads", str(threads)]
    return [
        Program("urgent-worker", [*command, "worker", "--name", "urgent", "--queues", URGENT_QUEUES, *at_once, *dies], environment),
        Program("worker", [*command, "worker", "--name", "all", *at_once, *dies], environment),
        Program("beat", [*command, "beat", *dies], environment),
    ]


def _packages() -> str:
    return str(Path(__file__).parents[2])
