"""The tasks: a few lines each, ids as arguments. Doing one twice, late or never loses nothing; the sweep finds what is due."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import structlog
from celery import signals

from rotation import driver, health, lifecycle, requests, retirement
from rotation.errors import OutcomeUnknown, Refused, Unavailable
from rotation.states import Alarm
from rotation.store.views import LATE
from worker import process
from worker.app import SEAL_AUDIT, TICK, WATCH, app
from worker.hints import MOST_ROWS, depth, send
from worker.process import ports
from worker.queues import Queue
from worker.variables import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from celery.apps.worker import Worker

    from rotation.ports import Store

ADVANCE_ROTATIONS = "rollover.advance_rotations"
ADVANCE_RETIREMENTS = "rollover.advance_retirements"
SAMPLE_USE = "rollover.sample_use"
LOOK_AFTER_LOGINS = "rollover.look_after_logins"
HEAL_LOGINS = "rollover.heal_logins"

OUTSTANDING = 1_000
"""How many rows may wait in one queue: a long backlog is not sent again every tick."""

AT_ONCE = 500
"""How many dates one tick looks at."""

BATCH_SECONDS = 30
"""After this a message of several rows leaves the rest to the sweep: their hints are over by then, and another worker may be free."""

FAILED = 1
"""The exit code of a worker that could not begin."""

CHECKPOINTS = 20
"""How often one task signs, each time a thousand chains at most: a large fleet's minute, well within the task's own."""

log = structlog.get_logger()


@app.task(name=TICK)
def tick() -> None:
    """Ask for what the schedule is due for, and send on what may move and nobody holds. Any number of ticks at once is harmless."""
    try:
        _sweep(ports().store)
    except (Unavailable, OutcomeUnknown) as error:
        log.warning("store_unavailable", problem=str(error))


def _sweep(store: Store) -> None:
    """What waits already goes first, so that a date that cannot be taken (its resource is locked, say) holds nothing up but dates."""
    send(app, ADVANCE_ROTATIONS, Queue.URGENT, store.due_rotations(_room(Queue.URGENT), urgent=True))
    send(app, ADVANCE_RETIREMENTS, Queue.RETIREMENT, store.due_credentials(_room(Queue.RETIREMENT)))
    send(app, SAMPLE_USE, Queue.RETIREMENT, store.due_servers(AT_ONCE))
    send(app, LOOK_AFTER_LOGINS, Queue.RETIREMENT, store.due_looks(AT_ONCE))
    requests.request_due(ports(), AT_ONCE)
    send(app, ADVANCE_ROTATIONS, Queue.SCHEDULED, store.due_rotations(_room(Queue.SCHEDULED), urgent=False))


@app.task(name=ADVANCE_ROTATIONS)
def advance_rotations(ids: list[str]) -> None:
    """Take each rotation as far as it will go now."""
    _each(lambda one: driver.advance(lifecycle.STORY, one, ports()), ids)


@app.task(name=ADVANCE_RETIREMENTS)
def advance_retirements(ids: list[str]) -> None:
    """Take each credential as far towards its end as it will go now."""
    _each(lambda one: driver.advance(retirement.STORY, one, ports()), ids)


@app.task(name=SAMPLE_USE)
def sample_use(names: list[str]) -> None:
    """Look at who is logged in on each server."""
    _each(lambda one: health.sample_use(one, ports()), names)


@app.task(name=LOOK_AFTER_LOGINS)
def look_after_logins(names: list[str]) -> None:
    """Look whether every login on each server is as its row says, and send on those that are not."""
    _each(_look_after, names)


def _look_after(name: str) -> int:
    astray = health.look_after(name, ports())
    return send(app, HEAL_LOGINS, Queue.HEALING, ports().store.hint_astray(astray, _room(Queue.HEALING))) if astray else 0


@app.task(name=HEAL_LOGINS)
def heal_logins(ids: list[str]) -> None:
    """Make each login as its row says."""
    _each(lambda one: health.heal(one, ports()), ids)


@app.task(name=SEAL_AUDIT)
def seal_audit() -> None:
    """Sign what the audit trail has grown by. Where nothing has grown, or another process is at it, there is nothing to do."""
    try:
        for _ in range(CHECKPOINTS):
            if (signed := process.store().checkpoint()) is None:
                return
            # Whoever keeps these lines elsewhere can tell when the store was set back.
            log.info("audit_sealed", number=signed.number, chains=signed.chains, events=signed.events, seal=signed.signature.hex())
    except (Unavailable, OutcomeUnknown) as error:
        log.warning("store_unavailable", problem=str(error))


@app.task(name=WATCH)
def watch() -> None:
    """Tell when work is late: workers are too few, or those of one queue are gone. Where no task is done at all, only the metrics tell."""
    try:
        _tell_late(process.store().views.late())
    except (Unavailable, OutcomeUnknown) as error:
        log.warning("store_unavailable", problem=str(error))


def _tell_late(late: timedelta) -> None:
    if late > LATE:
        log.warning(Alarm.WORK_OVERDUE, alarm=True, seconds=int(late.total_seconds()))


@signals.celeryd_after_setup.connect
def _tell_threads(instance: Worker, **_: object) -> None:
    """How many threads there are may come from an option of the command: what is wired later divides them."""
    os.environ[f"{PREFIX}WORKER_THREADS"] = str(getattr(instance, "concurrency"))  # noqa: B009 - the stubs forget it


@signals.celeryd_after_setup.connect
def _expect_keys(**_: object) -> None:
    """A worker whose keys are not those of its store ends before it takes a message. One whose store is away waits for it."""
    try:
        process.ports()
    except (Unavailable, OutcomeUnknown) as error:
        log.warning("store_unavailable", problem=str(error))
    except Refused as error:
        log.error(Alarm.KEYS_REFUSED, alarm=True, problem=str(error), advice=error.advice)  # noqa: TRY400  # what is wrong, not where
        raise SystemExit(FAILED) from None
    finally:
        process.close()  # a pool of processes is forked from here


@signals.worker_process_shutdown.connect  # of a child of the prefork pool
@signals.worker_shutdown.connect
def _let_go(**_: object) -> None:
    """Leave no connection behind for the servers to find out about."""
    process.close()


def _room(queue: Queue) -> int:
    """How many rows a queue takes now; none while the broker does not answer, as what is sent counts as sent for a while."""
    waiting = depth(app, queue)
    return 0 if waiting is None else max(0, OUTSTANDING - waiting * MOST_ROWS)


def _each(advance: Callable[[str], int], ids: Sequence[str]) -> None:
    """One after the other: a worker has other threads for other messages. A store that does not answer is told once a row: all stay due.

    What else goes wrong with a row is raised when the others had their turn: they would come with the same one in the next message, too.
    """
    until = time.monotonic() + BATCH_SECONDS

    def one(row_id: str) -> None:
        if time.monotonic() > until:
            return
        try:
            advance(row_id)
        except (Unavailable, OutcomeUnknown) as error:
            log.warning("store_unavailable", row=row_id, problem=str(error))

    with ExitStack() as turns:  # it goes on after an error, and raises it at its end
        for row_id in reversed(ids):
            turns.callback(one, row_id)
