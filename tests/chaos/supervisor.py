"""What an operator's systemd does: workers and beats that run, and are started again a moment after they ended, for whatever reason."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.rigs import is_ready

if TYPE_CHECKING:
    from tests.chaos.rig import ChaosRig
    from tests.processes import Process

RESTART_SECONDS = 0.1
"""As systemd's RestartSec is by default."""


@dataclass(slots=True)
class Place:
    """A process that shall run. `frozen_until` and `starts_at` are monotonic."""

    process: Process
    frozen_until: float | None = None
    starts_at: float | None = None

    @property
    def is_up(self) -> bool:
        return self.starts_at is None and self.frozen_until is None


class Supervisor:
    """Keeps the processes of a rig running. To be used from one thread."""

    def __init__(self, rig: ChaosRig, *, workers: int = 3, beats: int = 2) -> None:
        self._rig = rig
        started = [rig.start_worker(f"worker{number}") for number in range(workers)]
        started += [rig.start_beat(f"beat{number}") for number in range(beats)]
        self.places = [Place(one) for one in started]
        self.restarts = 0
        self.ended_by_themselves: list[str] = []
        for one in started[:workers]:
            rig.wait(f"{one.name} is ready", lambda one=one: is_ready(one))  # type: ignore[misc]  # mypy cannot type a default of a lambda

    @property
    def up(self) -> list[Place]:
        """Those that run, and are not frozen."""
        return [place for place in self.places if place.is_up]

    def kill(self, place: Place) -> None:
        """SIGKILL."""
        place.process.kill()
        place.frozen_until = None
        place.starts_at = time.monotonic() + RESTART_SECONDS

    def freeze(self, place: Place, seconds: float) -> None:
        """SIGSTOP, for so long."""
        place.process.freeze()
        place.frozen_until = time.monotonic() + seconds

    def look(self) -> None:
        """Start what has ended, and let go on what was frozen for long enough."""
        now = time.monotonic()
        for place in self.places:
            if place.starts_at is None and not place.process.runs:
                self.ended_by_themselves.append(place.process.name)
                self.kill(place)
            if place.starts_at is not None and now >= place.starts_at:
                place.process = self._rig.start_again(place.process)
                place.starts_at = None
                self.restarts += 1
            if place.frozen_until is not None and now >= place.frozen_until:
                place.process.thaw()
                place.frozen_until = None

    def thaw_all(self) -> None:
        for place in self.places:
            if place.frozen_until is not None:
                place.frozen_until = 0.0
        self.look()
