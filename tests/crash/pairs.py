"""Two faults in one history, in process and on fakes: every ordered pair of (boundary, position), what happens there drawn by the seed.

The stories, the driver, the requests and the sampling of use are the real ones. The promises are looked at before and after every call.
"""

from __future__ import annotations

import logging
import multiprocessing
import random
import signal
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from rotation import driver, health, lifecycle, requests, retirement
from rotation.errors import OutcomeUnknown, RolloverError, Unavailable
from rotation.model import Policy
from rotation.states import RotationState, Trigger
from rotation.store.rules import ENDED_STATES
from tests.crash.boundaries import ENGINE, LIMITER, SEALER, SINK, STORE, Boundary, Kind, Position, faults_at
from tests.crash.failures import Gives, failure
from tests.crash.hands import Hands
from tests.fakes import sink as answers
from tests.world import SPEC, Killed, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rotation.ports import Ports

POLICY = Policy(every=timedelta(days=300), grace=timedelta(minutes=30), blocked=timedelta(minutes=1), quiet=timedelta(minutes=1))
DATE_HAS_COME = timedelta(days=301)
AT_ONCE = 100
REST = timedelta(hours=2)
LONGEST_REST = 12
"""So many times as long: what is refused twice waits for a quarter of an hour each time."""


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """Where one of two faults happens."""

    boundary: Boundary
    position: Position

    def __str__(self) -> str:
        return f"{self.position} {self.boundary}"


@dataclass(frozen=True, slots=True)
class Pair:
    """One history: the scenario, both points, and the number that draws what happens at them."""

    scenario: str
    first: Point
    second: Point
    number: int

    def __str__(self) -> str:
        return f"{self.scenario} {self.number}: {self.first}; then {self.second}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a pair: how many of its faults happened, and the story if a promise was broken."""

    pair: Pair
    happened: int
    story: str = ""


class Doubtful(World):
    """A world in which up to two things go wrong, one after the other, and which otherwise goes its way."""

    def __init__(self, points: Sequence[Point] = (), seed: str = "") -> None:
        self.passed: dict[Boundary, None] = {}
        self.told: list[str] = []
        self.still = list(points)
        self.happened = 0
        self.draw = random.Random(seed)  # noqa: S311 - to be played again
        self.next_fails: dict[str, Kind] = {}
        self.hands = Hands()
        self.watching = False
        super().__init__(spec=replace(SPEC, policy=POLICY))
        self.store.terms = replace(self.store.terms, hint=timedelta(seconds=1))
        self.ports: Ports = replace(
            self.ports,
            store=_Watched(STORE, self.store, self),
            engines={"postgresql": _Watched(ENGINE, self.engine, self)},
            sink=_Watched(SINK, self.sink, self),
            sealer=_Watched(SEALER, self.sealer, self),
            limiter=_Watched(LIMITER, self.limiter, self),
            terms=self.store.terms,
        )

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
        boundary = self.hands.before(port, method, arguments)
        point = self.still[0] if self.still else None
        if point is not None and point.position is Position.BEFORE and boundary.may_become(point.boundary):
            return self._failed(port, method, Position.BEFORE, self._happens(boundary), act)
        if port in self.next_fails:
            return self._failed(port, method, Position.BEFORE, self.next_fails.pop(port), act)
        result = act()
        boundary = self.hands.after(boundary, method, result)
        self.passed[boundary] = None
        self.told.append(f"{self.clock.now():%d %H:%M:%S} {boundary}")
        self.check()
        if point is not None and point.position is not Position.BEFORE and boundary == point.boundary:
            kind = self._happens(boundary)
            if point.position is Position.LOST or kind is Kind.KILL:
                return self._failed(port, method, Position.LOST, kind, lambda: result)
            self.next_fails[port] = kind
        return result

    def _happens(self, boundary: Boundary) -> Kind:
        """The next fault is here and now."""
        point = self.still.pop(0)
        kind = self.draw.choice([one.kind for one in faults_at(point.boundary) if one.position is point.position])
        self.happened += 1
        self.told.append(f"{self.clock.now():%d %H:%M:%S} {kind} {point.position} {boundary}")
        return kind

    def _failed(self, port: str, method: str, position: Position, kind: Kind, act: Callable[[], Any]) -> Any:  # noqa: ANN401 - as above
        if kind is Kind.KILL:
            self.next_fails.clear()
            raise Killed(port)
        if kind is Kind.TIMEOUT:
            self.clock.advance(self.store.terms.call_deadline)
        failed = failure(port, method, position, kind)
        if failed is None:
            return act()
        if isinstance(failed, Gives):
            return failed.answer
        raise failed


class _Watched:
    def __init__(self, port: str, real: object, world: Doubtful) -> None:
        self._port = port
        self._real = real
        self._world = world

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - it stands for every method of the port
        member = getattr(self._real, name)
        if not callable(member) or name == "now":
            return member

        def call(*arguments: object, **named: object) -> object:
            return self._world.call(self._port, name, arguments, lambda: member(*arguments, **named))

        return call


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


def play(scenario: str, points: Sequence[Point] = (), seed: str = "") -> Doubtful:
    """One history, from its trigger to rest. Raises `AssertionError` when a promise is broken; what was told is a note on it."""
    world = Doubtful(points, seed)
    try:
        world._alive(lambda: _begun(world, scenario))
        for _ in range(LONGEST_REST):
            world.run(for_=REST)
            if not world.under_way() and world.store.rotations:
                break
        world.watching = False
        world.check_at_rest()
        _assert_recorded_once(world)
    except (AssertionError, RolloverError) as error:
        error.add_note("\n".join(world.told))
        raise
    return world


def _begun(world: Doubtful, scenario: str) -> None:
    SCENARIOS[scenario](world)
    world.watching = True


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


# -- the pairs


def points_of(scenario: str) -> list[Point]:
    """Every (boundary, position) that a history without faults passes."""
    return [
        Point(boundary, position)
        for boundary in play(scenario).passed
        for position in dict.fromkeys(fault.position for fault in faults_at(boundary))
    ]


def pairs() -> Iterator[Pair]:
    """All ordered pairs of all scenarios."""
    number = 0
    for scenario in SCENARIOS:
        points = points_of(scenario)
        for first in points:
            for second in points:
                yield Pair(scenario, first, second, number)
                number += 1


def outcomes(chosen: Sequence[Pair], seed: int, processes: int) -> Iterator[Outcome]:
    """Play them side by side. To be called while the process has one thread."""
    with multiprocessing.get_context("fork").Pool(processes, quiet) as pool:
        yield from pool.imap_unordered(partial(outcome, seed=seed), chosen, chunksize=50)


def quiet() -> None:
    """Nobody reads the log lines of thousands of histories."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def outcome(pair: Pair, seed: int) -> Outcome:
    """Play a pair."""
    try:
        world = play(pair.scenario, (pair.first, pair.second), f"{seed}/{pair.number}")
    except (AssertionError, RolloverError) as error:
        return Outcome(pair, 2, "\n".join([str(pair), repr(error), *getattr(error, "__notes__", ())]))
    return Outcome(pair, world.happened)
