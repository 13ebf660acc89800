"""A clock that goes only when a test says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


class FakeClock:
    """Both clocks of a machine, moved by hand: together with `advance`, the wall clock alone with `jump`."""

    def __init__(self, at: datetime = START) -> None:
        self._now = at
        self._monotonic = 1000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, by: timedelta) -> None:
        if by < timedelta(0):
            raise ValueError("time does not go back; `jump` moves the wall clock alone")
        self._now += by
        self._monotonic += by.total_seconds()

    def advance_to(self, at: datetime) -> None:
        """Let time pass until `at`; nothing when that is over already."""
        self.advance(max(at - self._now, timedelta(0)))

    def jump(self, by: timedelta) -> None:
        """Set the wall clock forward or back, as a person or a broken time server does."""
        self._now += by
