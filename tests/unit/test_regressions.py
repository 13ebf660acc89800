"""Histories that once broke a promise, each made as short as it goes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from rotation import driver, lifecycle, requests
from rotation.model import ResourceState, RotationState, SecretTemplate, Stage, Trigger
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
