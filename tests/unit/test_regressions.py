"""Histories that once broke a promise, each made as short as it goes."""

from __future__ import annotations

from datetime import timedelta

from rotation import driver, lifecycle, requests
from rotation.model import RotationState, Stage, Trigger
from rotation.requests import Reception
from tests.fakes import sink as answers
from tests.world import World, with_policy

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
    world.run(for_=MINUTE)
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
