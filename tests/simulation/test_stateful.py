"""The same promises under Hypothesis, which makes a history that breaks one as short as it goes: one resource, one worker that may die."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rotation import requests
from rotation.errors import Conflict
from rotation.states import ResourceState, Trigger
from tests.fakes import sink as answers
from tests.world import World

ANSWERS = (
    answers.APPLIED,
    answers.APPLIED_BUT_UNKNOWN,
    answers.LOST_AND_UNKNOWN,
    answers.ON_ITS_WAY,
    answers.REFUSED,
    answers.UNREACHABLE,
    answers.CONFLICT,
)
STEPS = [timedelta(seconds=seconds) for seconds in (1, 11, 46, 330, 3_600, 90_000)]
GRACES = (None, timedelta(0), timedelta(minutes=30), timedelta(hours=3))
LONGEST_FLIGHT = timedelta(seconds=300)


class History(RuleBasedStateMachine):
    """What may happen to one resource. `World.check` looks at the promises at every boundary of every port, too."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.latest_push_at = self.world.clock.now()

    @rule(trigger=strategies.sampled_from(sorted(Trigger)), grace=strategies.sampled_from(GRACES))
    def ask(self, trigger: Trigger, grace: timedelta | None) -> None:
        self.world.rotate(trigger, grace=grace)

    @rule()
    def push_again(self) -> None:
        requests.push_again(self.world.resource_id, "test", "", self.world.ports)

    @rule()
    def work(self) -> None:
        self._work()

    @rule(boundary=strategies.integers(0, 40))
    def work_and_die(self, boundary: int) -> None:
        """The worker dies at that boundary, if it comes so far; another may go on when the claim is over."""
        self.world.kill_at = len(self.world.boundaries) + boundary
        self._work()
        self.world.kill_at = None

    @rule(step=strategies.sampled_from(STEPS))
    def time_passes(self, step: timedelta) -> None:
        if self.world.clock.now() + step - self.latest_push_at > LONGEST_FLIGHT:
            self.world.sink.in_flight.clear()  # it has arrived by now, or never does
        self.world.clock.advance(step)

    @rule(coming=strategies.lists(strategies.sampled_from(ANSWERS), max_size=3))
    def answer(self, coming: list[answers.Answer]) -> None:
        self.world.sink.script.clear()
        self.world.sink.answers(*coming)

    @precondition(lambda self: self.world.sink.in_flight)
    @rule()
    def a_late_push_arrives(self) -> None:
        self.world.sink.deliver([self.world.sink.in_flight[0]])

    @precondition(lambda self: self.world.store.resources[self.world.resource_id].state is ResourceState.ACTIVE)
    @rule()
    def pause_and_resume(self) -> None:
        requests.pause(self.world.resource_id, "test", "", self.world.ports)
        self.world.sweep()
        requests.resume(self.world.resource_id, "test", "", self.world.ports)

    @invariant()
    def every_promise_is_kept(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.sink.script.clear()
        self.world.sink.in_flight.clear()
        self.world.settle()
        self.world.check_at_rest()

    def _work(self) -> None:
        pushes = len(self.world.sink.pushes)
        try:
            self.world.sweep()
        except Conflict:
            return
        if len(self.world.sink.pushes) > pushes:
            self.latest_push_at = self.world.clock.now()


TestHistories = History.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=25, deadline=None, derandomize=True)
