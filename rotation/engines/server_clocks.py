"""What is known of the database servers' clocks, by which each judges whether an act of ours comes too late.

A deadline is an instant of our monotonic clock, and a server can compare it with its own clock only through a reading of that. Our clock
stands still with its machine when that is suspended, so that a reading from after a sleep would move the deadline by as long as the
machine slept. Hence the earlier reading is believed where two contradict each other, and the first one of all is compared with what our
wall clock says has passed since this process began.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from rotation.errors import LostClaim

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rotation.cases import Deadline
    from rotation.model import Server
    from rotation.ports import Clock

READING_SECONDS = 30.0
"""How long a reading of a server's clock is believed."""

DRIFT = timedelta(seconds=1)
"""More than two clocks drift apart between two readings: then one of them stood still, as a suspended machine's does, or was set."""


@dataclass(frozen=True, slots=True)
class ClockReading:
    """Between which two instants, by a server's clock, our monotonic clock was zero."""

    earliest: datetime
    latest: datetime
    read_at: float

    def renewed(self, other: ClockReading) -> ClockReading:
        """The narrower of both, as of this one's time; this one when they contradict each other: the earlier reading is the safe one."""
        if other.earliest > self.latest:
            return self
        return ClockReading(max(self.earliest, other.earliest), min(self.latest, other.latest), self.read_at)


class ServerClocks:
    """Every reading of this process, by server."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = self._wall_at_zero()
        self._readings: dict[Server, ClockReading] = {}
        self._known: set[Server] = set()

    def note(self, server: Server, at: datetime, asked_at: float) -> None:
        """The server's clock showed `at` between `asked_at` and now, by our monotonic clock."""
        read_at = self._clock.monotonic()
        reading = ClockReading(at - timedelta(seconds=read_at), at - timedelta(seconds=asked_at), read_at)
        known = self._readings.get(server)
        if known is not None:
            reading = known.renewed(reading)
        elif server not in self._known:
            reading = replace(reading, earliest=reading.earliest - self._slept())
        self._readings[server] = reading
        self._known.add(server)

    def limit(self, server: Server, deadline: Deadline, what: str, read: Callable[[], object]) -> datetime:
        """The deadline by the server's clock, or a little earlier, from a reading that was taken before this act if there is one.

        `read` asks the server for anything, so that its clock is noted. Raises `LostClaim` when there is no time left to `what`.
        """
        self.expect_time(server, deadline, what)
        reading = self._lately(server)
        if reading is None:
            before = self._readings.pop(server, None)
            read()
            reading = self._lately(server)
            if reading is None or (before and reading.earliest > before.latest + DRIFT):
                raise LostClaim(f"{server.name}: time stood still here, so that it may be too late to {what}; nothing was changed")
        return reading.earliest + timedelta(seconds=deadline.at)

    def expect_time(self, server: Server, deadline: Deadline, what: str) -> None:
        """Raises `LostClaim` when there is no time left to begin an act."""
        if deadline.left(self._clock.monotonic()) <= 0:
            raise LostClaim(f"{server.name}: too late to {what}; nothing was changed")

    def _lately(self, server: Server) -> ClockReading | None:
        """What is known of the server's clock; None when it was not read lately."""
        known = self._readings.get(server)
        return known if known and 0 <= self._clock.monotonic() - known.read_at < READING_SECONDS else None

    def _slept(self) -> timedelta:
        """For how long our monotonic clock has stood still since this process began, by our wall clock. One that was set ahead costs a
        claim, no more.
        """
        slept = self._wall_at_zero() - self._began
        return slept if slept > DRIFT else timedelta(0)

    def _wall_at_zero(self) -> datetime:
        return self._clock.now() - timedelta(seconds=self._clock.monotonic())
