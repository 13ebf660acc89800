"""Tells the workers of what was taken in. It holds up no answer, and losing it costs seconds: beat finds what is due."""

from __future__ import annotations

import queue
from threading import Thread
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 1_000
"""So many wait for a broker that does not answer; the others are left for beat."""

log = structlog.get_logger()


class Hinting:
    """One thread that sends, so that a broker that hangs keeps none of those that answer. `hint` sends one; it never fails."""

    def __init__(self, hint: Callable[[str], None]) -> None:
        self._hint = hint
        self._ids: queue.Queue[str] = queue.Queue(MOST)
        Thread(target=self._run, name="hints", daemon=True).start()

    def __call__(self, rotation_id: str) -> None:
        """Send it when its turn comes."""
        try:
            self._ids.put_nowait(rotation_id)
        except queue.Full:
            log.debug("hint_left_for_beat", rotation=rotation_id)

    def _run(self) -> None:
        while True:
            try:
                self._hint(self._ids.get())
            except RuntimeError as error:  # no more threads, say
                log.warning("hint_left_for_beat", problem=str(error))
