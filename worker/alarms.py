"""Alarms of what has no row of its own: a server, Vercel. Each stands in the store, so that any process can count it, and is told once.

One that is over is taken back by the process that knows; should that have died, it falls by itself when nobody has raised it for a while.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from rotation.errors import OutcomeUnknown, Unavailable

if TYPE_CHECKING:
    from rotation.ports import Clock, Store

WRITTEN_EVERY = timedelta(seconds=30)
"""A process writes an alarm down no more often than this, however many calls find it."""

log = structlog.get_logger()


class StandingAlarms:
    """What this process raises and takes back. Safe for any number of threads; a store that does not answer holds nobody up."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._written: dict[tuple[str, str], float] = {}

    def raised(self, alarm: str, subject: str, *, problem: str, advice: str = "") -> None:
        """The alarm stands for this subject now, and a line tells it where that is news to all processes."""
        now = self._clock.monotonic()
        with self._lock:
            written = self._written.get((alarm, subject))
            if written is not None and now - written < WRITTEN_EVERY.total_seconds():
                return
            self._written[alarm, subject] = now
        try:
            news = self._store.raise_alarm(alarm, subject, problem)
        except (Unavailable, OutcomeUnknown):
            news = True
        if news:
            log.warning(alarm, alarm=True, subject=subject, problem=problem, advice=advice)

    def over(self, alarm: str, subject: str) -> None:
        """The alarm stands no more, if it was this process that raised it."""
        if not self._written:  # as it nearly always is
            return
        with self._lock:
            if self._written.pop((alarm, subject), None) is None:
                return
        try:
            self._store.end_alarm(alarm, subject)
        except (Unavailable, OutcomeUnknown):
            return  # it falls by itself
        log.info("alarm_ended", name=alarm, subject=subject)
