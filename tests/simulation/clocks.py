"""Time in a simulated world: one true time, and clocks that may show another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


class TrueTime:
    """What time it really is, in seconds since the beginning. Nobody in the world can read it; it never goes back."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._now = START

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        if seconds > 0:
            self.seconds += seconds
            self._now = START + timedelta(seconds=self.seconds)

    def advance_to(self, at: datetime) -> None:
        self.advance((at - self._now).total_seconds())


class SimulatedClock:
    """A machine's clocks: the wall clock is `ahead` of true time by so many seconds, the monotonic one stands still while suspended."""

    def __init__(self, time: TrueTime) -> None:
        self._time = time
        self.ahead = 0.0
        self._missed = 0.0
        self._suspended_at = self._suspended_until = 0.0

    def now(self) -> datetime:
        now = self._time.now()
        return now + timedelta(seconds=self.ahead) if self.ahead else now

    def monotonic(self) -> float:
        return self._time.seconds - self.missed

    @property
    def missed(self) -> float:
        """How many seconds the monotonic clock has stood still so far."""
        return self._missed + max(min(self._time.seconds, self._suspended_until) - self._suspended_at, 0.0)

    def suspend(self, until: float) -> None:
        """The monotonic clock stands still from now until then."""
        until = max(until, self._suspended_until)
        self._missed = self.missed
        self._suspended_at, self._suspended_until = self._time.seconds, until

    def resume(self) -> None:
        """It goes on now."""
        self._missed = self.missed
        self._suspended_at = self._suspended_until = self._time.seconds
