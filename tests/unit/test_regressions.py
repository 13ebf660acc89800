"""Histories that once broke a promise, each made as short as it goes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from rotation import driver, endings, lifecycle, requests
from rotation.model import Event, SecretTemplate
from rotation.requests import Reception
from rotation.states import ResourceState, RotationState, Stage, Trigger
from tests.fakes import sink as answers
from tests.world import World, with_policy

if TYPE_CHECKING:
    from datetime import datetime

    from rotation.model import PushOutcome

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def advance(world: World, received: requests.Received) -> None:
    """This rotation alone."""
    assert received.rotation_id is not None
    driver.advance(lifecycle.STORY, received.rotation_id, world.ports)


def push_again(world: World) -> requests.Received:
    return requests.push_again(world.resource_id, "test", "", world.ports)


# -- pushing again, against everything else


def test_a_request_that_joins_a_push_again_whose_credential_was_replaced_is_not_lost() -> None:
    world = World()
    world.sink.answers(answers.LOST_AND_UNKNOWN)
    first = world.rotate()
    world.run()
    waiting = push_again(world)
    world.clock.advance(2 * SECOND)
    advance(world, first)
    assert world.states() == [RotationState.COMPLETED, RotationState.REQUESTED]
    assert world.rotate(Trigger.VERCEL).rotation_id == waiting.rotation_id
    world.run(for_=10 * MINUTE)
    assert world.states() == [RotationState.COMPLETED, RotationState.COMPLETED]
    assert world.stages() == [Stage.PREVIOUS, Stage.PREVIOUS, Stage.CURRENT]


def test_a_date_that_comes_while_a_push_again_is_under_way_is_not_lost() -> None:
    world = World(spec=with_policy(every=DAY))
    world.run(for_=DAY - MINUTE)
    world.sink.answers(*[answers.LOST_AND_UNKNOWN] * 8)
    push_again(world)
    world.sweep()
    assert world.rotate(Trigger.SCHEDULE).reception is Reception.FOLLOWS
    world.run(for_=HOUR)
    assert world.states() == [RotationState.COMPLETED, RotationState.COMPLETED]
    next_at = world.store.resources[world.resource_id].schedule.next_rotation_at
    assert next_at is not None
    assert next_at > world.clock.now()


def test_a_push_again_that_waited_for_a_rotation_pushes_what_is_current_then_with_the_new_templates() -> None:
    world = World()
    world.sink.answers(answers.LOST_AND_UNKNOWN)
    world.rotate()
    world.run()
    secrets = (*world.spec.secrets, SecretTemplate("PGUSER", "{username}"))
    requests.revise(world.store.resources[world.resource_id], replace(world.spec, secrets=secrets), "test", world.ports)
    push_again(world)
    world.run(for_=10 * MINUTE)
    assert world.states() == [RotationState.COMPLETED, RotationState.COMPLETED]
    assert world.sink.held["icfg_1", "store_42"]["PGUSER"] == world.credential(2).username


def test_a_push_again_behind_a_superseded_rotation_becomes_the_rotation_that_must_follow() -> None:
    world = World()
    world.sink.answers(answers.APPLIED_BUT_UNKNOWN, answers.REFUSED)
    world.rotate()
    world.run(for_=5 * MINUTE)
    push_again(world)
    requests.revise(world.store.resources[world.resource_id], replace(world.spec, notify=False), "test", world.ports)
    world.run(for_=HOUR)
    assert world.states() == [RotationState.SUPERSEDED, RotationState.COMPLETED]
    assert world.stages() == [Stage.PREVIOUS, Stage.PREVIOUS, Stage.CURRENT]
    assert world.store.resources[world.resource_id].schedule.next_rotation_at is not None
    world.settle()
    world.check_at_rest()


# -- resources that leave


def test_nothing_is_made_for_a_follow_up_whose_resource_turned_out_to_be_gone() -> None:
    world = World()
    world.sink.answers(answers.MISSING, answers.MISSING)
    world.sink.exists = False
    world.rotate()
    world.run(for_=10 * MINUTE)
    assert world.rotate().reception is Reception.FOLLOWS
    world.run(for_=HOUR)
    assert world.states() == [RotationState.ABANDONED, RotationState.ABANDONED]
    assert world.stages() == [Stage.PREVIOUS, Stage.PREVIOUS]
    world.sink.held.clear()
    world.run(for_=DAY)
    assert world.store.resources[world.resource_id].state is ResourceState.GONE


def test_a_404_long_after_another_is_looked_at_twice_again_when_something_else_was_answered_meanwhile() -> None:
    world = World()
    world.sink.answers(answers.MISSING, answers.CONFLICT, answers.MISSING)
    world.sink.exists = False
    world.rotate()
    world.run(for_=20 * MINUTE)
    assert world.states() == [RotationState.OFFERED]
    world.run(for_=20 * MINUTE)
    assert world.states() == [RotationState.COMPLETED]


def test_requests_that_join_do_not_cost_a_rotation_its_place_in_the_rate_limit() -> None:
    world = World()
    world.limiter.answers.extend([world.clock.now() + 5 * MINUTE, world.clock.now() + DAY])
    world.rotate()
    world.run(for_=4 * MINUTE)
    world.rotate()
    world.run(for_=2 * MINUTE)
    assert world.states() == [RotationState.COMPLETED]


@pytest.mark.parametrize("another_waits", [False, True])
def test_the_grace_that_was_asked_of_a_superseded_rotation_is_given_by_the_one_that_follows(another_waits: bool) -> None:  # noqa: FBT001  # a case
    world = World()
    world.sink.answers(answers.APPLIED_BUT_UNKNOWN, answers.REFUSED)
    world.rotate(Trigger.VERCEL, grace=48 * HOUR)
    world.run(for_=5 * MINUTE)
    if another_waits:
        push_again(world)
    requests.revise(world.store.resources[world.resource_id], replace(world.spec, notify=False), "test", world.ports)
    world.run(for_=HOUR)
    assert world.states() == [RotationState.SUPERSEDED, RotationState.COMPLETED]
    completed_at = world.credential(3).current_at
    assert completed_at is not None
    assert world.credential(1).grace_ends_at == completed_at + 48 * HOUR


# -- emergencies


def test_emergencies_that_are_repeated_while_nothing_gets_through_pile_up_no_logins() -> None:
    world = World()
    world.sink.otherwise = answers.LOST_AND_UNKNOWN
    world.rotate()
    for _ in range(20):
        world.rotate(Trigger.EMERGENCY)
        world.run(for_=15 * SECOND)
    assert world.stages() == [Stage.CURRENT, Stage.PREVIOUS, Stage.PENDING]
    assert world.states() == [RotationState.SUPERSEDED, RotationState.OFFERED, RotationState.REQUESTED]
    world.sink.otherwise = answers.APPLIED
    world.run(for_=15 * MINUTE)
    assert world.stages() == [*[Stage.RETIRED] * 3, Stage.CURRENT]
    world.check_at_rest()


# -- parked installations


def test_a_time_out_of_the_push_that_looks_whether_the_token_is_taken_again_is_not_the_last_look() -> None:
    world = World()
    world.sink.answers(answers.UNAUTHORIZED, answers.LOST_AND_UNKNOWN)
    world.rotate()
    world.run(for_=HOUR)
    assert world.states() == [RotationState.COMPLETED]
    assert not world.store.installations["icfg_1"].parked


def test_the_first_look_after_a_refused_token_comes_soon_however_many_pushes_were_unanswered_before() -> None:
    world = World()
    world.sink.answers(*[answers.LOST_AND_UNKNOWN] * 6, answers.UNAUTHORIZED)
    world.rotate()
    world.run(for_=HOUR)
    assert world.states() == [RotationState.COMPLETED]


def test_an_emergency_that_goes_past_a_refused_token_looks_whether_it_is_taken_again() -> None:
    world = World()
    world.sink.answers(answers.UNAUTHORIZED)
    world.sink.exists = None
    world.rotate()
    world.run()
    world.rotate(Trigger.EMERGENCY)
    world.run(for_=HOUR)
    assert world.states() == [RotationState.SUPERSEDED, RotationState.COMPLETED]
    assert not world.store.installations["icfg_1"].parked


def test_values_that_are_refused_show_that_the_token_is_taken_again() -> None:
    world = World()
    world.sink.answers(answers.UNAUTHORIZED, answers.REFUSED)
    world.rotate()
    world.run(for_=20 * MINUTE)
    assert world.states() == [RotationState.FAILED]
    assert not world.store.installations["icfg_1"].parked


def test_a_worker_killed_before_it_unparked_leaves_no_installation_parked_for_ever() -> None:
    world = World()
    world.store.park("icfg_1", f"{endings.PARKED_BY_US}: 401", Event("installation_parked", "test"))
    world.sink.exists = None
    world.rotate()
    world.run(for_=HOUR)
    assert world.states() == [RotationState.REQUESTED]
    world.sink.exists = True
    world.run(for_=HOUR)
    assert world.states() == [RotationState.COMPLETED]
    assert not world.store.installations["icfg_1"].parked


def test_what_a_person_parked_stays_parked_until_a_person_says_so() -> None:
    world = World()
    world.rotate()
    world.sink.answers(answers.LOST_AND_UNKNOWN)
    world.run()
    world.store.park("icfg_1", "a person's reason", Event("installation_parked", "test"))
    world.run(for_=DAY)
    assert world.states() == [RotationState.OFFERED]
    assert len(world.sink.pushes) == 1


def test_a_rotation_that_a_parked_installation_held_goes_on_when_it_is_unparked() -> None:
    world = World()
    world.store.park("icfg_1", "a person's reason", Event("installation_parked", "test"))
    world.rotate()
    world.run(for_=HOUR + SECOND)
    world.store.unpark("icfg_1", Event("installation_unparked", "test"))
    world.sweep()
    assert world.states() == [RotationState.COMPLETED]


# -- keys


def test_a_push_again_whose_password_cannot_be_opened_stands_in_nobodys_way() -> None:
    world = World()
    world.sealer.lose_key("key-1")
    push_again(world)
    world.sweep()
    assert world.states() == [RotationState.FAILED]
    world.sealer.add_key("key-2")
    world.rotate()
    world.run(for_=MINUTE)
    assert world.states() == [RotationState.FAILED, RotationState.COMPLETED]


# -- what people do in the middle of a step


def test_a_rotation_that_is_under_way_is_not_offered_once_its_resource_is_paused() -> None:
    world = World()
    world.rotate()
    states: list[RotationState] = []
    reserve = world.limiter.reserve

    def paused(scope: str, *, urgent: bool) -> datetime | None:
        requests.pause(world.resource_id, "test", "", world.ports)
        states.extend(world.states())
        return reserve(scope, urgent=urgent)

    world.limiter.reserve = paused  # type: ignore[method-assign]  # a person is quicker than the step
    world.sweep()
    assert states == world.states() == [RotationState.PLANNED]


def test_a_schedule_that_was_given_in_the_middle_of_a_rotation_is_kept_by_its_end() -> None:
    world = World(spec=with_policy(every=None))
    world.rotate()
    push = world.sink.push

    def revised(*args: Any, **kwargs: Any) -> PushOutcome:  # noqa: ANN401  # as the sink takes them
        world.sink.push = push  # type: ignore[method-assign]  # once
        spec = replace(world.spec, policy=replace(world.spec.policy, every=DAY))
        requests.revise(world.store.resources[world.resource_id], spec, "test", world.ports)
        return push(*args, **kwargs)

    world.sink.push = revised  # type: ignore[method-assign]  # a person is quicker than the answer
    world.run(for_=HOUR)
    assert world.states() == [RotationState.COMPLETED]
    assert world.store.resources[world.resource_id].schedule.next_rotation_at is not None


def test_the_date_that_the_end_of_a_rotation_sets_is_not_overwritten_by_a_revision_that_began_before() -> None:
    world = World()
    first = world.rotate()
    amend = world.store.amend

    def ended(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # as the store takes and gives them
        world.store.amend = amend  # type: ignore[method-assign]  # once
        computed = amend(*args, **kwargs)
        advance(world, first)
        return computed

    world.store.amend = ended  # type: ignore[method-assign]  # a worker is quicker than the second half of the revision
    spec = replace(world.spec, policy=replace(world.spec.policy, every=DAY))
    requests.revise(world.store.resources[world.resource_id], spec, "test", world.ports)
    assert world.states() == [RotationState.COMPLETED]
    schedule = world.store.resources[world.resource_id].schedule
    assert schedule.completed_at == world.clock.now()
    assert schedule.next_rotation_at == world.clock.now() + DAY


# -- what a person is told


def test_a_rotation_that_fails_raises_an_alarm() -> None:
    world = World()
    world.sink.answers(answers.REFUSED)
    world.rotate()
    with capture_logs() as lines:
        world.run()
    [failed] = [line for line in lines if line["event"] == "rotation_failed"]
    assert failed["alarm"] is True
    assert failed["log_level"] == "warning"


def test_what_must_follow_a_superseded_rotation_waits_for_its_key() -> None:
    world = World()
    world.sink.answers(answers.APPLIED_BUT_UNKNOWN, answers.REFUSED)
    world.rotate()
    world.run(for_=5 * MINUTE)
    push_again(world)
    requests.revise(world.store.resources[world.resource_id], replace(world.spec, notify=False), "test", world.ports)
    world.clock.advance(16 * MINUTE)
    first, second = world.store.rotations.values()
    driver.advance(lifecycle.STORY, first.id, world.ports)
    world.sealer.lose_key("key-1")
    driver.advance(lifecycle.STORY, second.id, world.ports)
    assert world.states() == [RotationState.SUPERSEDED, RotationState.REQUESTED]
    world.sealer.bring_key_back("key-1")
    world.settle()
    world.check_at_rest()
