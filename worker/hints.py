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


def send(app: Celery, task: str, queue: Queue, ids: Sequence[str], *, batch: int = 1) -> int:
    """Send the ids, `batch` in a message. Gives how many were sent: fewer than all when the broker does not answer."""
    sent = 0
    for start in range(0, len(ids), batch):
        some = list(ids[start : start + batch])
        try:
            app.send_task(task, args=[some], queue=queue.value, retry=False)
        except (OperationalError, OSError) as error:
            log.warning("broker_unavailable", queue=queue.value, unsent=len(ids) - sent, problem=type(error).__name__)
            return sent
        sent += len(some)
    return sent


def depth(app: Celery, queue: Queue) -> int | None:
    """How many messages wait in a queue; zero when the broker does not know it yet, None when it does not answer."""
    with app.connection_for_read() as connection:
        away: tuple[type[BaseException], ...] = (OperationalError, *connection.connection_errors)
        try:
            channel: Any = connection.default_channel  # the transport's own class; all of them declare queues
            return int(channel.queue_declare(queue=queue.value, passive=True).message_count)
        except connection.channel_errors:
            return 0
        except away as error:
            log.warning("broker_unavailable", queue=queue.value, problem=type(error).__name__)
            return None
