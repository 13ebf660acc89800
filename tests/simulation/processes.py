"""Several processes in one thread, which take turns at the boundaries of their ports and nowhere else, so that a seed is one history."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from greenlet import getcurrent, greenlet

from rotation.cases import Deadline
from rotation.errors import OutcomeUnknown, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rotation.cases import Claim
    from tests.simulation.clocks import SimulatedClock, TrueTime


class Killed(BaseException):
    """The process died here."""


class Machine:
    """Where processes run: its clocks, and whether it stands still. One that is stopped goes on at `stopped_until`."""

    def __init__(self, name: str, clock: SimulatedClock) -> None:
        self.name = name
        self.clock = clock
        self.stopped_until = 0.0

    def stop(self, until: float, *, suspends: bool) -> None:
        """It stands still until then; `suspends`: so does its monotonic clock."""
        self.stopped_until = max(self.stopped_until, until)
        if suspends:
            self.clock.suspend(until)

    def start_again(self) -> None:
        """It stands still no more."""
        self.stopped_until = 0.0
        self.clock.resume()

    def own(self, claim: Claim) -> Claim:
        """A claim as the machine knows it: until when it holds, by its own monotonic clock."""
        return replace(claim, deadline=Deadline(claim.deadline.at - self.clock.missed))


@dataclass(slots=True, eq=False)
class Process:
    """One thing that a machine has in hand."""

    machine: Machine
    what: str
    turn: greenlet
    wakes_at: float = 0.0
    at: str = ""
    """The boundary that it crossed last."""
    answered_at: float = 0.0
    """When Vercel answered it last."""


class Processes:
    """What runs, and whose turn it is. `ended(process, error)` hears how each one ended that was not done."""

    def __init__(self, time: TrueTime, ended: Callable[[Process, BaseException], None]) -> None:
        self._time = time
        self._ended = ended
        self._hub = getcurrent()
        self.running: list[Process] = []
        self.turn: Process | None = None
        """Who has the turn; None while nobody has, as when the world is made."""

    def start(self, machine: Machine, what: str, act: Callable[[], object]) -> None:
        """Begin it; it runs until it gives way for the first time."""
        process = Process(machine, what, greenlet(self._run))
        self.running.append(process)
        self.go_on(process, process, act)

    def go_on(self, process: Process, *beginning: object) -> None:
        """It has the turn until it gives way or ends. Raises what no process of ours may end with."""
        self.turn = process
        try:
            process.turn.switch(*beginning)
        finally:
            self.turn = None

    def _run(self, process: Process, act: Callable[[], object]) -> None:
        try:
            act()
        except (Killed, Unavailable, OutcomeUnknown) as error:
            self._ended(process, error)
        finally:
            self.running.remove(process)

    def give_way(self, process: Process, *, seconds: float = 0.0) -> None:
        """The process that has the turn lets others go on, and comes back no sooner than after so long."""
        process.wakes_at = self._time.seconds + seconds
        self._hub.switch()

    def ready(self) -> list[Process]:
        """Those that could go on now."""
        now = self._time.seconds
        return [one for one in self.running if one.wakes_at <= now and one.machine.stopped_until <= now]

    def hands(self, machine: Machine) -> int:
        """How much the machine has in hand."""
        return sum(one.machine is machine for one in self.running)

    def next_at(self) -> float:
        """When the first of those that stand still goes on."""
        return min(max(one.wakes_at, one.machine.stopped_until) for one in self.running)

    def kill(self, machine: Machine) -> int:
        """The machine's processes die where they stand. Gives how many."""
        dying = [one for one in self.running if one.machine is machine]
        for process in dying:
            process.turn.throw(Killed(machine.name))
        return len(dying)
