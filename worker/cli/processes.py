"""`rollover worker` and `rollover beat`: Celery in this process, as `celery -A worker.app worker` and `beat` would run it."""

import socket
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import session
from worker.queues import Queue

if TYPE_CHECKING:
    from celery import Celery

NAMES = {queue.value.partition(".")[2]: queue for queue in Queue}
"""The queues as people call them."""


class Pool(StrEnum):
    """How a worker carries on several tasks at once."""

    THREADS = "threads"
    PREFORK = "prefork"
    SOLO = "solo"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(worker)
    app.command()(beat)


def queues_named(text: str) -> tuple[Queue, ...]:
    """The queues of a list such as `urgent,tick`. Raises Typer's `BadParameter` for an unknown one."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise typer.BadParameter(f"unknown: {', '.join(unknown) or 'an empty name'}; there are {', '.join(NAMES)}")
    return tuple(dict.fromkeys(NAMES[name] for name in names))


def worker(
    *,
    queues: Annotated[
        str, typer.Option(help="Only these, e.g. urgent,tick. A worker serves its queues in turn, so what is urgent wants one of its own.")
    ] = ",".join(NAMES),
    threads: Annotated[int | None, typer.Option(min=1, max=1_000, help="How many rows at once. Default: ROLLOVER_WORKER_THREADS.")] = None,
    pool: Annotated[Pool, typer.Option(help="Threads are right for almost all: a rotation is mostly waiting.")] = Pool.THREADS,
    name: Annotated[str, typer.Option(help="This worker's name; several on one machine need different ones.")] = "celery",
) -> None:
    """Run a worker.

    It carries rotations and retirements on. SIGTERM lets every step end and be recorded.
    """
    raise typer.Exit(run_worker(name, queues_named(queues), threads=threads, pool=pool))


def beat() -> None:
    """Run the clock.

    It asks for what is due every few seconds. Several at once do no harm.
    """
    run_beat()


def run_worker(name: str, queues: Sequence[Queue], *, threads: int | None = None, pool: Pool = Pool.THREADS) -> int:
    """Be a worker until somebody ends it; gives the exit code. Raises `Invalid` when a setting is wrong."""
    running = _application().Worker(
        hostname=f"{name}@{socket.gethostname()}",
        pool_cls=pool.value,
        concurrency=threads,
        queues=[queue.value for queue in queues],
        quiet=True,
    )
    running.start()
    return running.exitcode or 0


def run_beat() -> None:
    """Be the clock until somebody ends it. Raises `Invalid` when a setting is wrong."""
    application = _application()
    application.conf.include = ()  # it sends the tasks by name, and runs none
    application.Beat(quiet=True).run()


def _application() -> "Celery":
    """The configured Celery application. Raises `Invalid` when a setting is wrong, before Celery says anything."""
    from worker.app import app, celery_settings  # noqa: PLC0415 - Celery is not for help

    celery_settings(session.settings())
    app.set_current()
    app.conf.broker_url  # noqa: B018 - configured by its first use
    return app
