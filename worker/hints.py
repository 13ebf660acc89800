"""Hints to the workers: "go on with these rows". Losing one is harmless, so sending never holds anybody up and never fails loudly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from kombu.exceptions import OperationalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

    from worker.queues import Queue

log = structlog.get_logger()

MOST_ROWS = 8
"""In one message, which costs as much as a fifth of a rotation."""

SPREAD = 8
"""A message holds at most this part of the rows that are still to be sent: the last go one by one, so that all workers end together."""


def send(app: Celery, task: str, queue: Queue, ids: Sequence[str]) -> int:
    """Send the ids, several in a message where there are many. Gives how many were sent: fewer than all when the broker does not answer."""
    sent = 0
    while sent < len(ids):
        rows = min(MOST_ROWS, max(1, (len(ids) - sent) // SPREAD))
        some = list(ids[sent : sent + rows])
        try:
            app.send_task(task, args=[some], queue=queue.value, retry=False)
        except (OperationalError, OSError) as error:
            log.warning("broker_unavailable", queue=queue.value, unsent=len(ids) - sent, problem=type(error).__name__)
            return sent
        sent += len(some)
    return sent


def depth(app: Celery, queue: Queue) -> int | None:
    """How many messages wait in a queue; None when the broker does not answer."""
    connection: Any  # the stubs take it for a producer
    with app.pool.acquire(block=True) as connection:
        away: tuple[type[BaseException], ...] = (OperationalError, *connection.connection_errors, *connection.channel_errors)
        try:
            # As the workers declare it: who asks first may be earlier than they.
            return int(connection.default_channel.queue_declare(queue=queue.value, durable=True, auto_delete=False).message_count)
        except away as error:
            connection.close()  # it is opened anew by its next use
            log.warning("broker_unavailable", queue=queue.value, problem=type(error).__name__)
            return None
