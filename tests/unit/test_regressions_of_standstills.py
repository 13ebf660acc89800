"""Histories of wrong clocks, machines that stood still and servers that forgot, which once broke a promise."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from rotation import driver, lifecycle, requests
from rotation.errors import LostClaim, Unavailable
from rotation.states import AttemptState, ResourceState, RotationState, Stage, Trigger
from tests.fakes import sink as answers
from tests.fakes.clock import FakeClock
from tests.world import World, with_policy

if TYPE_CHECKING:
    from datetime import datetime

    from rotation.model import PushOutcome

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def go_on(world: World, rotation_id: str | None) -> None:
    assert rotation_id is not None
    driver.advance(lifecycle.STORY, rotation_id, world.ports)


def with_a_clock_of_its_own(world: World, *, ahead: timedelta) -> FakeClock:
    """The store's clock, which is wrong by that."""
    clock = FakeClock(world.clock.now())
    clock.jump(ahead)
    world.store.clock = clock
    return clock


def test_no_grace_begins_by_a_clock_that_is_behind() -> None:
    world = World()
    with_a_clock_of_its_own(world, ahead=-5 * MINUTE)
    rotation_id = world.rotate().rotation_id
    go_on(world, rotation_id)
    assert (world.states(), world.sink.pushes) == ([RotationState.OFFERED], [])
    (attempt,) = world.store.attempts.values()
    assert attempt.state is AttemptState.NOT_APPLIED
    world.store.clock = world.clock
    world.clock.advance(MINUTE)
    go_on(world, rotation_id)
    assert world.states() == [RotationState.COMPLETED]
    assert world.credential(1).grace_ends_at == world.clock.now() + world.spec.policy.grace


def test_while_clocks_disagree_no_attempt_after_another_is_opened_in_vain() -> None:
    world = World()
    clock = with_a_clock_of_its_own(world, ahead=-5 * MINUTE)
    rotation_id = world.rotate().rotation_id
    for _ in range(4):
        go_on(world, rotation_id)
        clock.advance(MINUTE)
        world.clock.advance(MINUTE)
    assert len(world.store.attempts) == 1


def test_an_emergency_waits_for_the_clocks_when_another_value_may_be_on_its_way() -> None:
    world = World()
    world.sink.answers(answers.ON_ITS_WAY)
    go_on(world, requests.push_again(world.resource_id, "test", "", world.ports).rotation_id)
    emergency = world.rotate(Trigger.EMERGENCY).rotation_id
    world.clock.advance(MINUTE)
    with_a_clock_of_its_own(world, ahead=HOUR)  # by which that push has expired
    go_on(world, emergency)
    assert world.stages() == [Stage.CURRENT, Stage.PENDING]
    world.sink.deliver()
    world.check()


def test_the_last_login_that_is_just_being_removed_takes_a_resource_that_leaves_with_it() -> None:
    world = World()
    world.rotate()
    world.run(for_=DAY + 5 * MINUTE)
    assert world.credential(1).stage is Stage.BLOCKED
    left: list[bool] = []

    def on_act(name: str, phase: str) -> None:
        if (name, phase) == ("prove_refused", "after") and not left:
            left.append(True)
            world.sink.held.clear()
            requests.leave(world.resource_id, "test", "uninstalled", world.ports, ends_in=None)

    world.engine.on_act = on_act
    world.run(for_=HOUR)
    assert world.stages() == [Stage.RETIRED, Stage.RELEASED]
    assert world.store.resources[world.resource_id].state is ResourceState.GONE


def test_what_went_past_another_completes_although_the_server_forgot_its_login() -> None:
    world = World()
    world.sink.answers(answers.LOST_AND_UNKNOWN)
    world.rotate()
    world.run()
    world.clock.advance(MINUTE)
    emergency = world.rotate(Trigger.EMERGENCY).rotation_id
    lost: list[str] = []

    def on_act(name: str, phase: str) -> None:
        if (name, phase) == ("check", "before") and not lost:
            lost.append(world.credential(3).username)
            del world.engine.server("pg-1").roles[lost[0]]

    world.engine.on_act = on_act
    go_on(world, emergency)
    assert lost
    world.run(for_=HOUR)
    assert world.states() == [RotationState.SUPERSEDED, RotationState.COMPLETED]


def test_a_login_that_was_proved_long_ago_is_proved_again_before_it_is_offered() -> None:
    world = World()
    world.limiter.answers.append(world.clock.now() + HOUR)
    world.rotate()
    world.run()
    assert world.states() == [RotationState.VERIFIED]
    world.engine.server("pg-1").roles.pop(world.credential(2).username)
    world.run(for_=2 * HOUR)
    assert world.states() == [RotationState.COMPLETED]


def test_vercel_has_said_twice_that_a_resource_is_gone_when_it_was_asked_twice_a_quarter_of_an_hour_apart() -> None:
    world = World()
    world.sink.otherwise, world.sink.exists = answers.MISSING, False
    world.rotate()
    stops = [16 * MINUTE]
    resource_exists = world.sink.resource_exists

    class Slow:
        """The worker stands still before it asks for the first time."""

        render, push, pause = world.sink.render, world.sink.push, world.sink.pause

        def resource_exists(self, *arguments: object) -> bool | None:
            world.clock.advance(stops.pop() if stops else timedelta(0))
            return resource_exists(*arguments)  # type: ignore[arg-type]

    world.ports = replace(world.ports, sink=Slow())
    world.sweep()
    world.clock.advance(MINUTE)
    world.sweep()
    assert world.states() == [RotationState.OFFERED]
    world.run(for_=15 * MINUTE)
    assert world.states() == [RotationState.ABANDONED]


def test_a_grace_begins_at_the_answer_also_on_a_machine_that_was_suspended_while_it_waited() -> None:
    world = World(spec=with_policy(grace=HOUR))

    class Suspended(FakeClock):
        """Time passes, and the monotonic clock has not noticed."""

        def monotonic(self) -> float:
            return 1000.0

    world.ports = replace(world.ports, clock=Suspended(world.clock.now()))
    push = world.sink.push

    class Slow:
        render, resource_exists, pause = world.sink.render, world.sink.resource_exists, world.sink.pause

        def push(self, *arguments: object) -> object:
            outcome = push(*arguments)  # type: ignore[arg-type]
            world.clock.advance(10 * MINUTE)
            world.ports.clock.advance(10 * MINUTE)  # type: ignore[attr-defined]
            return outcome

    world.ports = replace(world.ports, sink=Slow())  # type: ignore[arg-type]
    go_on(world, world.rotate().rotation_id)
    assert world.states() == [RotationState.COMPLETED]
    assert world.credential(1).grace_ends_at == world.clock.now() + HOUR


def test_the_end_that_a_leaving_customer_was_told_does_not_come_early_by_a_clock_for_a_compromised_login_either() -> None:
    world = World()
    world.rotate(Trigger.EMERGENCY)
    world.sink.held.clear()
    requests.leave(world.resource_id, "test", "uninstalled", world.ports, ends_in=HOUR)
    with_a_clock_of_its_own(world, ahead=3 * HOUR)
    world.sweep()
    assert world.credential(1).stage is Stage.PREVIOUS
    world.store.clock = world.clock
    world.run(for_=4 * HOUR)
    assert world.credential(1).stage is Stage.RETIRED


def test_an_answer_that_nobody_could_date_is_not_lost_behind_the_answer_to_another_push() -> None:
    world = World()
    with_a_clock_of_its_own(world, ahead=timedelta(0))
    world.sink.answers(answers.UNREACHABLE)
    rotation_id = world.rotate().rotation_id
    go_on(world, rotation_id)
    world.clock.advance(MINUTE)
    world.store.clock.advance(MINUTE)
    case = world.store.claim_rotation(rotation_id or "")
    assert case is not None

    class Suspended:
        """The machine is suspended during the push, and the store does not tell the time after it."""

        render, pause, resource_exists = world.sink.render, world.sink.pause, world.sink.resource_exists

        def push(self, *arguments: object) -> PushOutcome:
            world.clock.jump(MINUTE)
            world.store.now = silent  # type: ignore[method-assign]  # for the rest of the test
            return world.sink.push(*arguments)  # type: ignore[arg-type]  # those of the port

    def silent() -> datetime:
        raise Unavailable("the store does not answer")

    world.store.may_send = lambda *_: True  # type: ignore[method-assign]  # the same
    decision = lifecycle.STEPS[RotationState.OFFERED](case, replace(world.ports, store=world.store, sink=Suspended()))
    assert decision.attempt is not None
    assert decision.attempt.state is AttemptState.UNKNOWN


def too_late_once(world: World, act: str) -> None:
    """The next such act refuses itself, as on a machine that slept since it last read its server's clock."""

    def on_act(name: str, phase: str) -> None:
        if (name, phase) == (act, "before"):
            world.engine.on_act = lambda _name, _phase: None
            raise LostClaim("time stood still here")

    world.engine.on_act = on_act


def test_a_row_whose_act_came_too_late_does_not_wait_for_the_end_of_its_claim() -> None:
    world = World()
    too_late_once(world, "admit")
    rotation_id = world.rotate().rotation_id
    go_on(world, rotation_id)
    assert world.states() == [RotationState.PLANNED]
    world.clock.advance(driver.LOOKS_AGAIN_AFTER)
    go_on(world, rotation_id)
    assert world.states() == [RotationState.COMPLETED]


def test_an_act_that_came_too_late_for_its_claim_leaves_the_row_to_who_holds_it() -> None:
    world = World()
    rotation_id = world.rotate().rotation_id
    assert rotation_id is not None

    def on_act(name: str, phase: str) -> None:
        if (name, phase) == ("admit", "before"):
            world.engine.on_act = lambda _name, _phase: None
            world.clock.advance(world.ports.terms.claim)
            assert world.store.claim_rotation(rotation_id) is not None

    world.engine.on_act = on_act
    go_on(world, rotation_id)
    rotation = world.store.rotations[rotation_id]
    assert (rotation.state, rotation.tries, rotation.problem) == (RotationState.PLANNED, 0, "")
