"""Histories of old credentials that once broke a promise, each made as short as it goes."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rotation import driver, health, lifecycle, requests, retirement
from rotation.errors import Conflict
from rotation.states import Alarm, ResourceState, Stage, Trigger
from tests.fakes.clock import FakeClock
from tests.world import Killed, World, with_policy

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@contextmanager
def unwatched(world: World) -> Iterator[None]:
    """Without the customer's eye: what is promised by a person is kept by a worker a moment later."""
    check, world.check = world.check, lambda: None  # type: ignore[method-assign]  # until the block ends
    yield
    world.check = check  # type: ignore[method-assign]  # back again


def test_a_login_that_is_just_being_removed_is_given_no_new_end() -> None:
    world = World()
    world.rotate()
    world.run(for_=DAY + 5 * MINUTE)
    refused: list[str] = []

    def on_act(name: str, phase: str) -> None:
        if (name, phase) == ("withdraw", "before"):
            with pytest.raises(Conflict, match="being removed") as conflict:
                requests.extend(world.resource_id, world.credential(1).id, HOUR, "test", world.ports)
            refused.append(str(conflict.value))

    world.engine.on_act = on_act
    world.run(for_=HOUR)
    assert len(refused) == 1
    assert world.stages() == [Stage.RETIRED, Stage.CURRENT]


def test_a_login_that_a_worker_removed_before_the_pause_is_given_no_new_end() -> None:
    world = World()
    world.rotate()
    world.run(for_=DAY + 5 * MINUTE)
    world.clock.advance(10 * MINUTE)

    def die(name: str, phase: str) -> None:
        if (name, phase) == ("withdraw", "after"):
            raise Killed

    world.engine.on_act = die
    world.sweep()
    world.engine.on_act = lambda _name, _phase: None
    requests.pause(world.resource_id, "test", "", world.ports)
    for _ in range(3):
        with pytest.raises(Conflict, match="being removed"):
            requests.extend(world.resource_id, world.credential(1).id, HOUR, "test", world.ports)
        world.clock.advance(MINUTE)
        world.sweep()
    requests.resume(world.resource_id, "test", "", world.ports)
    world.settle()
    world.check_at_rest()


@pytest.mark.parametrize("leaves", [False, True])
def test_a_login_that_was_blocked_before_the_pause_ends_after_it(leaves: bool) -> None:  # noqa: FBT001  # a case
    world = World()
    world.rotate()
    world.run(for_=DAY + MINUTE)
    requests.pause(world.resource_id, "test", "", world.ports)
    world.run(for_=HOUR)
    assert world.stages() == [Stage.BLOCKED, Stage.CURRENT]
    if leaves:
        requests.leave(world.resource_id, "test", "", world.ports, ends_in=DAY)
    else:
        requests.resume(world.resource_id, "test", "", world.ports)
    world.sweep()
    assert world.stages()[0] is Stage.RETIRED


def test_a_blocked_login_of_a_paused_resource_can_be_given_a_new_end_and_is_let_in_meanwhile() -> None:
    world = World()
    old = world.held_login()
    assert old is not None
    world.rotate()
    world.run(for_=DAY + MINUTE)
    requests.pause(world.resource_id, "test", "somebody uses it", world.ports)
    world.clock.advance(HOUR)
    with unwatched(world):
        requests.extend(world.resource_id, world.credential(1).id, HOUR, "test", world.ports)
        [due] = world.store.due_credentials(10)
        driver.advance(retirement.STORY, due, world.ports)
    assert world.logs_in(old)


def test_a_login_with_a_new_end_that_somebody_removed_by_hand_is_over_at_that_end() -> None:
    world = World()
    world.rotate()
    world.run(for_=DAY + MINUTE)
    with unwatched(world):
        requests.extend(world.resource_id, world.credential(1).id, HOUR, "test", world.ports)
        del world.engine.server("pg-1").roles["orders_app"]
        world.run(for_=2 * HOUR)
    assert world.stages() == [Stage.RETIRED, Stage.CURRENT]


def test_a_login_that_is_to_be_let_in_again_does_not_wait_for_the_end_that_a_rotation_gives_it() -> None:
    world = World()
    old = world.held_login()
    assert old is not None
    world.rotate()
    world.run(for_=DAY + MINUTE)
    with unwatched(world):
        requests.extend(world.resource_id, world.credential(1).id, DAY, "test", world.ports)
        rotation_id = world.rotate(grace=HOUR).rotation_id
        assert rotation_id is not None
        driver.advance(lifecycle.STORY, rotation_id, world.ports)
        assert world.credential(1).grace_ends_at == world.clock.now() + HOUR
        world.sweep()
    assert world.logs_in(old)


def test_two_logins_of_a_leaving_resource_that_end_at_the_same_moment_take_it_with_them() -> None:
    world = World()
    world.rotate()
    world.run()
    requests.leave(world.resource_id, "test", "uninstalled", world.ports, ends_in=timedelta(0))
    world.sink.held.clear()
    others = [world.credential(2).id]

    def on_act(name: str, phase: str) -> None:
        if (name, phase) == ("prove_refused", "after") and others:
            driver.advance(retirement.STORY, others.pop(), world.ports)

    world.engine.on_act = on_act
    world.run(for_=HOUR)
    assert world.stages() == [Stage.RETIRED, Stage.RETIRED]
    assert world.store.resources[world.resource_id].state is ResourceState.GONE


def test_clocks_that_disagree_hold_up_no_emergency() -> None:
    world = World()
    world.store.clock = FakeClock(world.clock.now())
    world.store.clock.jump(5 * MINUTE)
    world.rotate(Trigger.EMERGENCY)
    with unwatched(world):  # who goes by the other clock
        world.sweep()
    assert world.stages() == [Stage.RETIRED, Stage.CURRENT]


def sampled(world: World, *, for_: timedelta) -> None:
    """The sessions are looked at every minute, and what is due is done."""
    until = world.clock.now() + for_
    while world.clock.now() < until:
        health.sample_use("pg-1", world.ports)
        world.sweep()
        world.clock.advance(MINUTE)


def used_now_and_then(world: World) -> None:
    """A client that keeps no session open between its requests."""
    world.engine.open_session("pg-1", "orders_app")
    health.sample_use("pg-1", world.ports)
    world.engine.close_sessions("pg-1", "orders_app")


def test_a_time_in_which_nobody_looked_is_no_quiet_time() -> None:
    world = World()
    world.rotate()
    sampled(world, for_=17 * HOUR)
    used_now_and_then(world)
    world.clock.advance(7 * HOUR + MINUTE)  # every worker is down

    sampled(world, for_=5 * HOUR)
    assert world.stages() == [Stage.PREVIOUS, Stage.CURRENT]
    assert "nobody looked" in world.credential(1).problem

    used_now_and_then(world)
    sampled(world, for_=5 * HOUR)
    assert "still used" in world.credential(1).problem
    sampled(world, for_=HOUR + 15 * MINUTE)
    assert world.stages() == [Stage.RETIRED, Stage.CURRENT]


def test_who_looks_all_the_time_ends_an_unused_login_on_the_minute() -> None:
    world = World()
    world.rotate()
    sampled(world, for_=DAY + MINUTE)
    assert world.stages() == [Stage.BLOCKED, Stage.CURRENT]


def test_a_gap_holds_an_unused_login_up_no_longer_than_its_cap() -> None:
    world = World(spec=with_policy(in_use_cap=HOUR))
    world.rotate()
    sampled(world, for_=17 * HOUR)
    world.clock.advance(7 * HOUR)
    sampled(world, for_=HOUR + 2 * MINUTE)
    assert world.stages() == [Stage.BLOCKED, Stage.CURRENT]


def test_a_retirement_that_waits_looks_itself() -> None:
    world = World()
    world.rotate()
    sampled(world, for_=17 * HOUR)
    world.run(for_=12 * HOUR)
    assert world.stages() == [Stage.PREVIOUS, Stage.CURRENT]
    world.run(for_=HOUR + 15 * MINUTE)
    assert world.stages() == [Stage.RETIRED, Stage.CURRENT]


def test_a_login_with_a_new_end_that_a_slower_worker_still_blocks_is_let_in_once_more() -> None:
    world = World()
    world.rotate()
    world.run(for_=DAY - MINUTE)
    old, slower = world.credential(1), True

    def on_act(name: str, phase: str) -> None:
        nonlocal slower
        if slower and (name, phase) == ("block", "before"):
            slower = False
            requests.extend(world.resource_id, old.id, HOUR, "test", world.ports)
            driver.advance(retirement.STORY, old.id, world.ports)
            assert world.engine.acts[-1][0] == "unblock"

    world.engine.on_act = on_act
    with unwatched(world):
        world.run(for_=MINUTE + world.ports.terms.claim)
    assert not slower
    world.run(for_=30 * MINUTE)
    assert world.credential(1).stage is Stage.PREVIOUS
    assert world.engine.servers["pg-1"].roles[old.username].can_log_in


def test_a_login_that_a_slow_server_makes_after_its_removal_is_gone_when_it_is_called_retired() -> None:
    world = World()
    world.rotate()
    world.run(for_=timedelta(seconds=1))
    short_lived = world.credential(2)
    made = world.engine.server("pg-1").roles[short_lived.username]
    world.rotate(Trigger.EMERGENCY)
    world.run(for_=timedelta(seconds=1))
    assert short_lived.username not in world.engine.server("pg-1").roles  # an emergency does not wait to end sessions

    world.engine.server("pg-1").roles[short_lived.username] = made  # the message of a try whose answer was lost arrives
    world.run(for_=world.ports.terms.call_deadline)

    assert world.credential(2).stage is Stage.RETIRED
    assert short_lived.username not in world.engine.server("pg-1").roles


def test_a_login_of_somebody_else_that_has_taken_the_name_of_one_of_ours_is_not_blocked() -> None:
    world = World()
    world.rotate()
    world.run(for_=HOUR)
    world.rotate()
    world.run(for_=HOUR)
    ours = world.credential(2)
    del world.engine.server("pg-1").roles[ours.username]
    world.engine.add_login("pg-1", ours.username, "a stranger's")

    with unwatched(world):
        world.run(for_=DAY)

    assert (world.credential(2).stage, world.credential(2).alarm) == (Stage.PREVIOUS, Alarm.RETIREMENT_STUCK)
    assert world.engine.logs_in(ours.username, "a stranger's")
