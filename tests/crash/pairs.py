"""Two faults in one history, in process and on fakes: every ordered pair of (boundary, position), what happens there drawn by the seed.

The stories, the driver, the requests and the sampling of use are the real ones. The promises are looked at before and after every call.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import random
import signal
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from rotation import driver, health, lifecycle, requests, retirement
from rotation.errors import OutcomeUnknown, RolloverError, Unavailable
from rotation.model import Policy
from rotation.states import RotationState, Trigger
from rotation.store.rules import ENDED_STATES
from tests.crash.boundaries import COMPUTED, LIMITER, Kind, Position, faults_at
from tests.crash.failures import Gives, failure
from tests.crash.faults import Faults
from tests.fakes import sink as answers
from tests.world import SPEC, Killed, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rotation.ports import Ports
    from tests.crash.boundaries import Boundary, Fault

POLICY = Policy(every=timedelta(days=300), grace=timedelta(minutes=30), blocked=timedelta(minutes=1), quiet=timedelta(minutes=1))
DATE_HAS_COME = timedelta(days=301)
AT_ONCE = 100
REST = timedelta(hours=2)
LONGEST_REST = 12
"""So many times as long: what is refused twice waits for a quarter of an hour each time."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One history: the scenario, both faults, and its number."""

    scenario: str
    first: Fault
    second: Fault
    number: int

    def __str__(self) -> str:
        return f"{self.scenario} {self.number}: {self.first}; then {self.second}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a pair: how many of its faults happened, how many of those changed nothing, and the story if a promise was broken."""

    pair: Pair
    happened: int
    in_vain: int
    story: str = ""


class Doubtful(World, Faults):
    """A world in which up to two things go wrong, one after the other, and which otherwise goes its way."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        Faults.__init__(self)
        self.passed: dict[Boundary, None] = {}
        self.told: list[str] = []
        self.still = list(faults)
        self.happened: list[Fault] = []
        self.vain = 0
        self.cut_off: set[str] = set()
        """The ports whose connections are gone, without anybody having noticed."""
        self.watching = False
        World.__init__(self, spec=replace(SPEC, policy=POLICY))
        self.store.terms = replace(self.store.terms, hint=timedelta(seconds=1))
        bare = replace(self.ports, store=self.store, engines={"postgresql": self.engine}, sink=self.sink, terms=self.store.terms)
        self.ports: Ports = self.around(bare)

    # -- what the tasks do

    def sweep(self) -> None:
        """As the tick finds what is due, and as the tasks take it on; each in a worker that may die."""
        store = self.ports.store
        self._each(lifecycle.STORY, lambda: store.due_rotations(AT_ONCE, urgent=True))
        self._each(retirement.STORY, lambda: store.due_credentials(AT_ONCE))
        for name in self._found(lambda: store.due_servers(AT_ONCE)):
            self._alive(lambda name=name: health.sample_use(name, self.ports))  # type: ignore[misc]  # mypy cannot type a default of a lambda
        self._alive(lambda: requests.request_due(self.ports, AT_ONCE))
        self._each(lifecycle.STORY, lambda: store.due_rotations(AT_ONCE, urgent=False))
        self.check()

    def _each(self, story: driver.Story[Any], look: Callable[[], Sequence[str]]) -> None:
        for row_id in self._found(look):
            self._work(story, row_id)

    def _found(self, look: Callable[[], Sequence[str]]) -> Sequence[str]:
        found: list[str] = []
        self._alive(lambda: found.extend(look()))
        return found

    def _alive(self, act: Callable[[], object]) -> None:
        try:
            super()._alive(act)
        except (Unavailable, OutcomeUnknown) as error:  # as the tasks do
            self.told.append(f"  the store did not answer: {error}")

    def _boundary(self, name: str) -> None:
        """The calls are watched here instead."""

    # -- what goes wrong

    def call(self, port: str, method: str, arguments: Sequence[object], act: Callable[[], Any]) -> Any:  # noqa: ANN401 - any call of a port
        if not self.watching:
            return act()
        self.check()
        if port in self.cut_off and (port, method) not in COMPUTED:
            return super().call(port, method, arguments, lambda: self._finds_out(port, method))
        return super().call(port, method, arguments, act)

    def _finds_out(self, port: str, method: str) -> object:
        """The first call over a connection that was cut."""
        self.cut_off.remove(port)
        failed = failure(port, method, Position.BEFORE, Kind.RESET)
        if isinstance(failed, Gives):
            return failed.answer
        assert failed is not None
        raise failed

    def due(self) -> Fault | None:
        return self.still[0] if self.still else None

    def happens(self, fault: Fault) -> bool:
        self.happened.append(self.still.pop(0))
        self.told.append(f"{self.clock.now():%d %H:%M:%S} {fault}")
        return True

    def note(self, boundary: Boundary) -> None:
        self.passed[boundary] = None
        self.told.append(f"{self.clock.now():%d %H:%M:%S} {boundary}")
        self.check()

    def die(self) -> None:
        self.in_vain(len(self.cut_off))  # nobody is left to find out
        self.cut_off.clear()
        raise Killed

    def wait(self) -> None:
        self.clock.advance(self.store.terms.call_deadline)

    def disconnect(self, port: str) -> bool:
        return False  # there are no connections here: the call itself fails

    def afterwards(self, port: str, fault: Fault) -> None:
        if fault.kind is Kind.KILL:
            self.die()
        if port in self.cut_off:
            self.in_vain()
        self.cut_off.add(port)

    def in_vain(self, count: int = 1) -> None:
        self.vain += count


# -- the scenarios


def _schedule(world: Doubtful) -> None:
    world.clock.advance(DATE_HAS_COME)


def _failure(world: Doubtful) -> None:
    world.sink.answers(answers.REFUSED)
    world.rotate()


def _missing(world: Doubtful) -> None:
    world.sink.answers(answers.MISSING)
    world.rotate()


def _emergency(world: Doubtful) -> None:
    """One push without an answer, the next refused, and somebody who cannot wait."""
    world.sink.answers(answers.APPLIED_BUT_UNKNOWN, answers.REFUSED)
    world.rotate()
    world.watching = False
    while len(world.sink.pushes) < 2:
        world.sweep()
        world.clock.advance(timedelta(seconds=1))
    world.watching = True
    world.rotate(Trigger.EMERGENCY)


def _again(world: Doubtful) -> None:
    requests.push_again(world.resource_id, "test", "a test wants it", world.ports)


SCENARIOS: dict[str, Callable[[Doubtful], None]] = {
    "schedule": _schedule,
    "failure": _failure,
    "missing": _missing,
    "emergency": _emergency,
    "again": _again,
}
FAIL = frozenset({"failure"})
"""Those whose rotation may end as failed, whatever else happens."""


def play(scenario: str, faults: Sequence[Fault] = ()) -> Doubtful:
    """One history, from its trigger to rest. Raises `AssertionError` when a promise is broken; what was told is a note on it."""
    world = Doubtful(faults)
    _play(world, scenario)
    return world


def _play(world: Doubtful, scenario: str) -> None:
    try:
        world._alive(lambda: _begun(world, scenario))
        for _ in range(LONGEST_REST):
            world.run(for_=REST)
            if not world.under_way() and world.store.rotations:
                break
        world.watching = False
        world.in_vain(len(world.cut_off))
        world.check_at_rest()
        _assert_grace_was_given(world)
        _assert_recorded_once(world)
        _assert_not_lost(world, scenario)
    except (AssertionError, RolloverError) as error:
        error.add_note("\n".join(world.told))
        raise


def _begun(world: Doubtful, scenario: str) -> None:
    SCENARIOS[scenario](world)
    world.watching = True


def _assert_grace_was_given(world: Doubtful) -> None:
    """I2: what ended had the grace of the policy, whatever its row says; unless somebody named another or could not wait."""
    if any(one.grace is not None or one.trigger is Trigger.EMERGENCY for one in world.store.requests.values()):
        return
    for one in world.store.credentials.values():
        if one.previous_at is not None and one.blocked_at is not None:
            assert one.blocked_at >= one.previous_at + POLICY.grace, f"I2: {one.username} ended before its grace was over"


def _assert_recorded_once(world: Doubtful) -> None:
    """I10: no state of a rotation, and no end of a credential, was told twice."""
    told = Counter(
        (line.event.kind, value)
        for line in world.store.events
        for name, value in line.event.detail
        if line.event.kind.startswith(f"{name}_")
    )
    assert not [each for each, times in told.items() if times > 1], "I10: a move was recorded twice"
    assert {one.state for one in world.store.rotations.values()} <= ENDED_STATES - {RotationState.ABANDONED}, "I4: a rotation has not ended"


def _assert_not_lost(world: Doubtful, scenario: str) -> None:
    """I4: what was asked for was done. That a process died is never a reason for a rotation to fail."""
    if scenario in FAIL or any(fault.kind is not Kind.KILL for fault in world.happened):
        return
    assert RotationState.COMPLETED in world.states(), "I4: no rotation has completed"
    assert RotationState.FAILED not in world.states(), "I4: a rotation failed because its worker died"


# -- the pairs


def faults_of(scenario: str) -> list[list[Fault]]:
    """For every (boundary, position) that a history without faults passes, what can go wrong there and be felt."""
    return [
        [fault for fault in faults_at(boundary) if fault.position is position and (boundary.port, fault.kind) != (LIMITER, Kind.RESET)]
        for boundary in play(scenario).passed
        for position in dict.fromkeys(fault.position for fault in faults_at(boundary))
    ]


def pairs(seed: int) -> Iterator[Pair]:
    """All ordered pairs of points of all scenarios; what happens at each is drawn."""
    numbers = itertools.count()
    for scenario in SCENARIOS:
        for first, second in itertools.product(faults_of(scenario), repeat=2):
            number = next(numbers)
            draw = random.Random(f"{seed}/{number}")  # noqa: S311 - to be played again
            yield Pair(scenario, draw.choice(first), draw.choice(second), number)


def outcomes(chosen: Sequence[Pair], processes: int) -> Iterator[Outcome]:
    """Play them side by side. To be called while the process has one thread."""
    with multiprocessing.get_context("fork").Pool(processes, quiet) as pool:
        yield from pool.imap_unordered(outcome, chosen, chunksize=50)


def quiet() -> None:
    """Nobody reads the log lines of thousands of histories."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def outcome(pair: Pair) -> Outcome:
    """Play a pair."""
    world = Doubtful((pair.first, pair.second))
    story = ""
    try:
        _play(world, pair.scenario)
    except (AssertionError, RolloverError) as error:
        story = "\n".join([str(pair), repr(error), *getattr(error, "__notes__", ())])
    return Outcome(pair, len(world.happened), world.vain, story)
