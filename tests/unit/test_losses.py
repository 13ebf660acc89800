"""A key that is gone for good: what it sealed is gone past, and no application loses its login before its time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rotation import health, losses, requests
from rotation.errors import Conflict, Unavailable
from rotation.states import RotationState, Stage, Trigger
from tests.fakes import sink as answers
from tests.world import World, with_policy

if TYPE_CHECKING:
    from rotation.losses import Loss

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


def lose(world: World, key_id: str = "key-1") -> Loss | None:
    """A new key seals from now on, and the old one is nowhere."""
    world.sealer.add_key("key-2")
    world.sealer.lose_key(key_id)
    return abandon(world, key_id)


def abandon(world: World, key_id: str = "key-1") -> Loss | None:
    return losses.abandon_key(world.resource_id, key_id, "cli:test", "the machine burnt down", world.ports)


def kinds(world: World) -> list[str]:
    return [one.event.kind for one in world.store.events if one.chain == world.resource_id]


def halted(world: World, act: str) -> None:
    """Every rotation stops before this act of the engine."""

    def refuse(name: str, phase: str) -> None:
        if (name, phase) == (act, "before"):
            raise Unavailable("not now")

    world.engine.on_act = refuse


def test_the_current_login_is_replaced_without_its_password() -> None:
    world = World()
    old = world.held_login()
    assert old is not None
    loss = lose(world)
    assert loss is not None
    assert (loss.logins, loss.unprovable, loss.ended_rotation_id) == (1, 1, None)
    assert loss.rotation_id is not None
    assert world.credential(1).sealed_password is None
    world.run()
    assert world.states() == [RotationState.COMPLETED]
    assert world.stages() == [Stage.PREVIOUS, Stage.CURRENT]
    assert world.logs_in(old)
    (request,) = world.store.requests.values()
    assert (request.trigger, request.actor, request.reason) == (Trigger.MANUAL, "cli:test", "the machine burnt down")


def test_a_login_whose_password_is_lost_is_blocked_after_its_grace_and_never_called_retired() -> None:
    world = World()
    old = world.held_login()
    assert old is not None
    lose(world)
    world.run()
    world.run(for_=20 * DAY)
    assert not world.logs_in(old)
    assert world.credential(1).stage is Stage.BLOCKED
    assert "was destroyed" in world.credential(1).problem
    held = world.held_login()
    assert held is not None
    assert world.logs_in(held)


@pytest.mark.parametrize(("act", "state"), [("admit", RotationState.PLANNED), ("check", RotationState.CREATED)])
def test_before_the_offer_the_rotation_fails_and_another_begins(act: str, state: RotationState) -> None:
    world = World()
    world.sealer.add_key("key-2")  # the current login's key stays
    world.rotate()
    halted(world, act)
    world.run()
    assert world.states() == [state]
    world.sealer.add_key("key-3")
    world.sealer.lose_key("key-2")
    loss = abandon(world, "key-2")
    assert loss is not None
    assert (loss.logins, loss.unprovable) == (1, 0)
    world.engine.on_act = lambda _name, _phase: None
    world.run(for_=2 * MINUTE)
    assert world.states() == [RotationState.FAILED, RotationState.COMPLETED]
    assert world.stages() == [Stage.PREVIOUS, Stage.DISCARDED, Stage.CURRENT]
    world.run(for_=2 * DAY)
    assert world.stages() == [Stage.RETIRED, Stage.DISCARDED, Stage.CURRENT]


def test_an_offered_one_is_superseded_because_vercel_may_hold_it() -> None:
    world = World()
    world.sink.answers(answers.LOST_AND_UNKNOWN)
    world.rotate()
    world.sweep()
    assert world.states() == [RotationState.OFFERED]
    loss = lose(world)
    assert loss is not None
    assert (loss.logins, loss.unprovable) == (2, 2)
    assert loss.ended_rotation_id is not None
    assert world.states() == [RotationState.SUPERSEDED, RotationState.REQUESTED]
    assert world.stages() == [Stage.CURRENT, Stage.PREVIOUS]
    assert world.credential(2).grace_ends_at is None
    world.run(for_=timedelta(minutes=20))
    assert world.states() == [RotationState.SUPERSEDED, RotationState.COMPLETED]
    assert world.stages() == [Stage.PREVIOUS, Stage.PREVIOUS, Stage.CURRENT]
    world.run(for_=20 * DAY)
    assert world.stages()[:2] == [Stage.BLOCKED, Stage.BLOCKED]


def test_a_push_of_a_lost_login_becomes_a_rotation() -> None:
    world = World()
    requests.push_again(world.resource_id, "test", "", world.ports)
    loss = lose(world)
    assert loss is not None
    (rotation,) = world.store.rotations.values()
    assert loss.rotation_id == rotation.id
    assert rotation.credential_id is None
    world.run()
    assert world.states() == [RotationState.COMPLETED]
    assert world.stages() == [Stage.PREVIOUS, Stage.CURRENT]


def test_a_push_that_is_under_way_is_gone_past_and_leaves_the_current_login_alone() -> None:
    world = World()
    world.sink.answers(answers.LOST_AND_UNKNOWN)
    requests.push_again(world.resource_id, "test", "", world.ports)
    world.sweep()
    assert world.states() == [RotationState.OFFERED]
    lose(world)
    assert world.states() == [RotationState.SUPERSEDED, RotationState.REQUESTED]
    assert world.stages() == [Stage.CURRENT]
    world.run(for_=timedelta(minutes=20))
    assert world.states() == [RotationState.SUPERSEDED, RotationState.COMPLETED]
    assert world.stages() == [Stage.PREVIOUS, Stage.CURRENT]


def test_a_rotation_that_is_not_lost_replaces_what_is() -> None:
    world = World()
    world.rotate()
    world.sealer.add_key("key-2")
    halted(world, "check")
    world.run()
    world.sealer.lose_key("key-1")
    loss = abandon(world)
    assert loss is not None
    assert (loss.ended_rotation_id, loss.rotation_id) == (None, None)
    world.engine.on_act = lambda _name, _phase: None
    world.run(for_=MINUTE)
    assert world.states() == [RotationState.COMPLETED]


def test_it_is_one_line_of_the_trail_that_says_what_was_lost() -> None:
    world = World()
    lose(world)
    line = world.store.events[-1]
    assert (line.event.kind, line.event.actor, line.event.why) == ("key_abandoned", "cli:test", "the machine burnt down")
    assert dict(line.event.detail)["key"] == "key-1"
    assert dict(line.event.detail)["unprovable"] == 1


def test_doing_it_twice_is_doing_it_once() -> None:
    world = World()
    lose(world)
    before = kinds(world)
    assert abandon(world) is None
    assert kinds(world) == before


def test_another_key_changes_nothing() -> None:
    world = World()
    before = kinds(world)
    assert abandon(world, "key-9") is None
    assert kinds(world) == before


def lose_verifiers(world: World) -> Loss:
    world.sealer.lose_key("verifier-key-1")
    world.sealer.verifier_key_id = "verifier-key-2"
    world.sealer.keys.add("verifier-key-2")
    loss = abandon(world, "verifier-key-1")
    assert loss is not None
    return loss


def test_without_its_verifier_a_login_is_proved_dead_by_its_password() -> None:
    world = World()
    for _ in range(2):
        world.rotate()
        world.run()

    loss = lose_verifiers(world)

    assert (loss.logins, loss.unprovable, loss.rotation_id) == (2, 0, None)
    assert all(one.sealed_verifier is None and one.sealed_password for one in world.store.credentials.values())
    world.run()
    assert world.states() == [RotationState.COMPLETED, RotationState.COMPLETED]
    world.run(for_=2 * DAY)
    assert world.stages() == [Stage.RETIRED, Stage.RETIRED, Stage.CURRENT]
    assert lost_and_healed(world, 3)


def test_without_its_password_a_login_in_grace_is_made_again_from_its_verifier() -> None:
    world = World()
    for _ in range(2):
        world.rotate()
        world.run()

    loss = lose(world)

    assert loss is not None
    assert (loss.logins, loss.unprovable) == (3, 3)
    assert world.credential(2).sealed_verifier is not None
    assert lost_and_healed(world, 2)


def lost_and_healed(world: World, generation: int) -> bool:
    """A login goes on as it was after its server has lost it and the healer has looked."""
    roles, username = world.engine.server("pg-1").roles, world.credential(generation).username
    unwatched = replace(world.ports, store=world.store, engines={"postgresql": world.engine})
    before = roles.pop(username)
    for one in health.look_after("pg-1", unwatched):
        health.heal(one, unwatched)
    return roles.get(username) == before


def test_a_login_that_is_still_to_be_made_needs_its_verifier() -> None:
    world = World()
    halted(world, "admit")
    world.rotate()
    world.run()
    assert world.states() == [RotationState.PLANNED]

    loss = lose_verifiers(world)

    assert (loss.logins, loss.unprovable) == (1, 0)
    assert loss.rotation_id is not None
    world.engine.on_act = lambda _name, _phase: None
    world.run(for_=2 * MINUTE)
    assert world.states() == [RotationState.FAILED, RotationState.COMPLETED]
    assert world.stages() == [Stage.PREVIOUS, Stage.DISCARDED, Stage.CURRENT]


def test_a_paused_resource_is_replaced_once_it_is_resumed() -> None:
    world = World()
    requests.pause(world.resource_id, "test", "", world.ports)
    loss = lose(world)
    assert loss is not None
    assert loss.rotation_id is not None
    requests.resume(world.resource_id, "test", "", world.ports)
    world.run()
    assert world.states() == [RotationState.COMPLETED]


def test_for_a_resource_that_leaves_nothing_is_asked_for() -> None:
    world = World()
    requests.leave(world.resource_id, "test", "", world.ports, ends_in=timedelta(hours=1))
    loss = lose(world)
    assert loss is not None
    assert (loss.rotation_id, loss.unprovable) == (None, 1)
    assert world.states() == []


def test_a_compromised_login_stays_so() -> None:
    world = World(spec=with_policy())
    world.sink.answers(answers.LOST_AND_UNKNOWN)
    world.rotate()
    world.sweep()
    world.rotate(Trigger.EMERGENCY)
    lose(world)
    assert world.credential(1).compromised
    assert world.credential(2).compromised
    with pytest.raises(Conflict):
        requests.extend(world.resource_id, world.credential(2).id, DAY, "test", world.ports)


def test_a_damaged_value_is_no_keys_loss() -> None:
    world = World()
    damaged = replace(world.credential(1), sealed_password=b"damaged", fence=world.credential(1).fence)
    world.store.credentials[damaged.id] = damaged
    assert abandon(world) is None
