"""What a task dashboard hears of the workers: Celery's events, several in a message."""

from __future__ import annotations

import sys
from typing import Any

from celery import bootsteps

FLUSH_SECONDS = 1.0
"""How late a dashboard may see a task. Celery's own way, a message for each turn of its loop, costs as much as the task's message."""


class EventsTogether(bootsteps.StartStopStep):
    """Lets the events of tasks leave when there are many, or once a second."""

    requires = ("celery.worker.consumer.events:Events",)
    _timer: Any = None

    def start(self, parent: Any) -> None:  # noqa: ANN401 - Celery's consumer, whose parts are made at run time
        """With each new connection to the broker, after its dispatcher of events was made."""
        if parent.event_dispatcher is None:
            return
        parent.event_dispatcher.on_send_buffered = None
        parent.event_dispatcher.buffer_limit = sys.maxsize  # a full buffer is sent by whichever task has filled it
        self._timer = parent.timer.call_repeatedly(FLUSH_SECONDS, parent.event_dispatcher.flush)

    def stop(self, parent: Any) -> None:  # noqa: ANN401 - as above
        """Before the connection goes, and also when none came about."""
        if parent.event_dispatcher is not None:
            parent.event_dispatcher.flush()
        if self._timer is not None:
            self._timer.cancel()
