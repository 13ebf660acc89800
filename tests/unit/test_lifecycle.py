"""One rotation from first to last, on fakes."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from datetime import time, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from rotation import driver, lifecycle, requests, retirement
from rotation.errors import Conflict, OutcomeUnknown, Refused, Unavailable
from rotation.model import Event, PushOutcome, Window
from rotation.states import ROTATION_MOVES, STAGE_MOVES, AttemptState, ResourceState, RotationState, Stage, Trigger
from tests.fakes import sink as answers
from tests.world import Killed, World, with_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rotation.cases import Deadline
    from rotation.model import Installation, PushOutcome, RenderedSecret, Resource
    from rotation.requests import Received

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def drawn_moves(docstring: str) -> set[tuple[str, str]]:
    """The arrows of a drawing: chains of `a -> b -> c`, and `a, b -> c`."""
    drawing = docstring.split("```")[1]
    moves = set()
    for line in drawing.splitlines():
        chain = [re.sub(r"\(.*\)", "", part).split(",") for part in line.split("->")]
        for sources, targets in pairwise(chain):
            moves |= {(source.strip(), target.strip()) for source in sources for target in targets}
    return moves


def test_the_drawing_of_a_rotation_shows_the_legal_moves() -> None:
    legal = {(str(one), str(other)) for one, others in ROTATION_MOVES.items() for other in others}
    shortcuts = {("planned", "verified"), ("planned", "offered"), ("created", "offered")}
    assert drawn_moves(lifecycle.__doc__ or "") == legal - shortcuts


def test_the_drawing_of_a_retirement_shows_the_legal_moves() -> None:
    legal = {(str(one), str(other)) for one, others in STAGE_MOVES.items() for other in others}
    made_by_rotations = {("pending", "current"), ("pending", "previous"), ("pending", "discarding"), ("current", "previous")}
    made_by_requests = {("pending", "released"), ("current", "released"), ("previous", "released")}
    assert drawn_moves(retirement.__doc__ or "") == legal - made_by_rotations - made_by_requests


def test_a_rotation_replaces_what_vercel_holds_and_the_old_login_works_until_its_grace_is_over() -> None:
    world = World()
    old = world.held_login()
    assert old is not None
    world.rotate()
    world.run()
    assert world.states() == [RotationState.COMPLETED]
    assert world.stages() == [Stage.PREVIOUS, Stage.CURRENT]
    new = world.held_login()
    assert new is not None
    assert new.username != old.username
    world.run(for_=24 * HOUR - MINUTE)
    assert world.logs_in(old)
    world.run(for_=12 * MINUTE)
    assert not world.logs_in(old)
    assert world.stages() == [Stage.RETIRED, Stage.CURRENT]
    world.check_at_rest()


def test_the_events_of_a_rotation_tell_what_was_decided() -> None:
    world = World()
    world.rotate()
    world.settle()
    kinds = [one.event.kind for one in world.store.events if one.chain == world.resource_id]
    assert kinds == [
        "resource_registered",
        "rotation_requested",
        "rotation_planned",
        "rotation_offered",
        "rotation_completed",
        "credential_blocked",
        "credential_retired",
    ]


def test_an_empty_resource_gets_its_first_credential_on_demand_and_has_no_predecessor() -> None:
    world = World(current=None)
    world.run(for_=60 * 24 * HOUR)
    assert world.states() == []
    world.rotate()
    world.run()
    assert world.stages() == [Stage.CURRENT]
    world.check_at_rest()


def test_the_schedule_rotates_when_the_date_has_come_and_not_before() -> None:
    world = World()
    world.run(for_=29 * 24 * HOUR)
    assert world.states() == []
    world.run(for_=25 * HOUR)
    assert world.states() == [RotationState.COMPLETED]
    [request] = world.store.requests.values()
    assert request.trigger is Trigger.SCHEDULE


def test_a_date_that_was_missed_waits_for_its_window_to_open() -> None:
    world = World(spec=with_policy(window=Window(time(1), time(5))))
    requests.pause(world.resource_id, "test", "", world.ports)
    world.run(for_=40 * 24 * HOUR)
    requests.resume(world.resource_id, "test", "", world.ports)
    world.run(for_=8 * HOUR)
    assert world.states() == []
    world.run(for_=10 * HOUR)
    assert world.states() == [RotationState.COMPLETED]


# -- killed anywhere


def boundaries_of_one_rotation() -> list[str]:
    world = World()
    world.rotate()
    world.settle()
    return list(world.boundaries)


@pytest.mark.parametrize("position", range(len(boundaries_of_one_rotation())))
def test_a_worker_killed_at_any_boundary_is_resumed_and_breaks_nothing(position: int) -> None:
    world = World(kill_at=position)
    with suppress(Killed):
        world.rotate()
    if not world.store.rotations:  # the caller died with it: it was not answered, so it asks again
        world.rotate()
    world.settle()
    world.check_at_rest()
    assert world.states()[0] is RotationState.COMPLETED
    assert world.kill_at is None, "the worker was killed"


def test_the_generated_boundaries_include_every_effect() -> None:
    effects = {name.removeprefix("before ") for name in boundaries_of_one_rotation()}
    assert {"engine.admit", "engine.check", "sink.push", "engine.block", "engine.withdraw", "engine.prove_refused"} <= effects


# -- what an error means before the offer


def test_a_database_that_is_down_delays_the_rotation_and_the_old_login_stays() -> None:
    world = World()
    world.rotate()
    world.engine.server("pg-1").reachable = False
    held = world.sink.held.copy()
    world.store.now()
    for _ in range(5):
        world.clock.advance(10 * MINUTE)
        drive(world)
    assert world.states() == [RotationState.PLANNED]
    world.engine.server("pg-1").reachable = True
    world.run(for_=6 * MINUTE)
    assert world.states() == [RotationState.COMPLETED]
    assert world.sink.held != held


def drive(world: World) -> None:
    """A sweep without the customer's eye: while the database is down nobody can log in at all."""
    check, world.check = world.check, lambda: None  # type: ignore[method-assign]  # for this sweep alone
    world.sweep()
    world.check = check  # type: ignore[method-assign]  # back again


def test_a_refused_create_fails_the_rotation_says_what_to_do_and_is_tried_again_later() -> None:
    world = World()
    refusing(world, "admit", Refused("permission denied", advice="GRANT it"))
    world.rotate()
    world.run()
    [rotation] = world.store.rotations.values()
    assert rotation.state is RotationState.FAILED
    assert "permission denied" in rotation.problem
    assert rotation.advice == "GRANT it"
    schedule = world.store.resources[world.resource_id].schedule
    assert schedule.failures == 1
    assert schedule.next_rotation_at == world.clock.now() + 15 * MINUTE
    world.engine.on_act = lambda _name, _phase: None
    world.settle()
    assert world.states() == [RotationState.FAILED, RotationState.COMPLETED]
    world.check_at_rest()


def refusing(world: World, act: str, error: Exception, phase: str = "before") -> None:
    def on_act(name: str, at: str) -> None:
        if (name, at) == (act, phase):
            raise error

    world.engine.on_act = on_act


def test_a_login_that_stays_refused_while_it_is_verified_is_discarded_and_never_pushed() -> None:
    world = World()
    refusing(world, "check", Refused("login refused"))
    world.rotate()
    world.run(for_=10 * MINUTE)
    assert world.states()[0] is RotationState.FAILED
    assert world.sink.pushes == []
    assert world.stages()[:2] == [Stage.CURRENT, Stage.DISCARDED]


def test_a_login_that_a_pooler_refuses_for_a_moment_is_verified_again() -> None:
    world = World()
    left = [Refused("login refused")] * 3

    def on_act(name: str, at: str) -> None:
        if (name, at) == ("check", "before") and left:
            raise left.pop()

    world.engine.on_act = on_act
    world.rotate()
    world.run(for_=5 * MINUTE)
    assert world.states() == [RotationState.COMPLETED]


def test_a_create_whose_outcome_is_unknown_is_repeated_with_the_same_verifier() -> None:
    world = World()
    left = [OutcomeUnknown("connection lost")]

    def on_act(name: str, at: str) -> None:
        if (name, at) == ("admit", "after") and left:
            raise left.pop()

    world.engine.on_act = on_act
    world.rotate()
    world.run(for_=MINUTE)
    assert world.states() == [RotationState.COMPLETED]
    assert [act for act, _ in world.engine.acts].count("admit") == 2


def test_a_lost_key_holds_the_rotation_without_failing_it() -> None:
    world = World()
    world.rotate()
    refusing(world, "admit", Unavailable("not now"))
    world.run()
    world.engine.on_act = lambda _name, _phase: None
    world.sealer.lose_key("verifier-key-1")
    world.run(for_=2 * HOUR)
    assert world.states() == [RotationState.PLANNED]
    world.sealer.bring_key_back("verifier-key-1")
    world.run(for_=5 * MINUTE)
    assert world.states() == [RotationState.COMPLETED]


# -- what an answer to the push means


def test_an_unknown_answer_is_repeated_with_the_same_values_until_it_is_clean() -> None:
    world = World()
    world.sink.answers(answers.APPLIED_BUT_UNKNOWN, answers.LOST_AND_UNKNOWN)
    world.rotate()
    world.run(for_=MINUTE)
    assert world.states() == [RotationState.COMPLETED]
    assert len({str(push.values) for push in world.sink.pushes}) == 1
    assert [one.state for one in world.store.attempts.values()] == [AttemptState.UNKNOWN, AttemptState.UNKNOWN, AttemptState.APPLIED]


def test_a_refusal_fails_the_rotation_when_every_attempt_is_on_record_as_refused() -> None:
    world = World()
    world.sink.answers(answers.REFUSED)
    world.rotate()
    world.run(for_=2 * MINUTE)
    assert world.states() == [RotationState.FAILED]
    assert world.stages() == [Stage.CURRENT, Stage.DISCARDED]


def test_a_refusal_after_an_unknown_attempt_keeps_the_new_login_because_vercel_may_hold_it() -> None:
    world = World()
    world.sink.answers(answers.APPLIED_BUT_UNKNOWN, answers.REFUSED, answers.REFUSED, answers.REFUSED)
    world.rotate()
    world.run(for_=30 * MINUTE)
    assert world.states() == [RotationState.OFFERED]
    assert world.stages() == [Stage.CURRENT, Stage.PENDING]
    held = world.held_login()
    assert held is not None
    assert held.username == world.credential(2).username
    world.settle()
    assert world.states() == [RotationState.COMPLETED]


def test_a_rotation_whose_values_were_refused_is_superseded_once_the_resource_was_revised() -> None:
    world = World()
    world.sink.answers(answers.APPLIED_BUT_UNKNOWN, answers.REFUSED)
    world.rotate()
    world.run(for_=5 * MINUTE)
    resource = world.store.resources[world.resource_id]
    requests.revise(resource, replace(world.spec, notify=False), "test", world.ports)
    world.run(for_=HOUR)
    assert world.states() == [RotationState.SUPERSEDED, RotationState.COMPLETED]
    assert world.stages() == [Stage.PREVIOUS, Stage.PREVIOUS, Stage.CURRENT]
    assert world.credential(2).grace_ends_at == world.credential(1).grace_ends_at
    world.settle()
    world.check_at_rest()


def test_a_refused_token_parks_the_installation_and_the_rotation_goes_on_where_it_was() -> None:
    world = World()
    world.sink.answers(answers.UNAUTHORIZED)
    world.rotate()
    world.run()
    assert world.store.installations["icfg_1"].parked
    assert world.states() == [RotationState.OFFERED]
    world.run(for_=16 * MINUTE)
    assert world.states() == [RotationState.COMPLETED]
    assert not world.store.installations["icfg_1"].parked


def test_a_parked_installation_holds_a_new_rotation_before_anything_is_made() -> None:
    world = World()
    world.store.park("icfg_1", "401", Event("installation_parked", "test"))
    world.rotate()
    world.run(for_=HOUR)
    assert world.states() == [RotationState.REQUESTED]
    assert world.stages() == [Stage.CURRENT]


def test_one_404_is_not_believed_and_two_with_a_missing_resource_abandon_the_rotation() -> None:
    world = World()
    world.sink.answers(answers.MISSING, answers.MISSING)
    world.sink.exists = False
    world.rotate()
    world.run(for_=10 * MINUTE)
    assert world.states() == [RotationState.OFFERED]
    world.run(for_=10 * MINUTE)
    assert world.states() == [RotationState.ABANDONED]
    assert world.store.resources[world.resource_id].state is ResourceState.LEAVING


def test_a_404_for_a_resource_that_exists_is_only_repeated() -> None:
    world = World()
    world.sink.answers(answers.MISSING, answers.MISSING, answers.MISSING)
    world.rotate()
    world.run(for_=HOUR)
    assert world.states() == [RotationState.COMPLETED]


def test_a_rate_limit_waits_for_the_time_that_the_answer_names() -> None:
    world = World()
    at = world.clock.now() + 3 * MINUTE
    world.sink.answers(answers.limited(at))
    world.rotate()
    world.run(for_=2 * MINUTE)
    assert world.states() == [RotationState.OFFERED]
    world.run(for_=2 * MINUTE)
    assert world.states() == [RotationState.COMPLETED]
    assert world.store.rotations[next(iter(world.store.rotations))].ended_at == at


def test_a_place_in_the_rate_limit_that_lies_ahead_is_kept_and_used() -> None:
    world = World()
    world.limiter.answers.append(world.clock.now() + 5 * MINUTE)
    world.rotate()
    world.run(for_=4 * MINUTE)
    assert world.states() == [RotationState.VERIFIED]
    world.run(for_=2 * MINUTE)
    assert world.states() == [RotationState.COMPLETED]
    assert len(world.limiter.reserved) == 1


# -- settling and supersession


def test_an_acknowledgement_does_not_count_while_an_older_value_is_still_on_its_way() -> None:
    world = World()
    world.sink.answers(answers.ON_ITS_WAY, answers.UNREACHABLE)
    world.rotate()
    world.run()
    world.rotate(Trigger.EMERGENCY)
    world.run(for_=MINUTE)
    assert world.states() == [RotationState.SUPERSEDED, RotationState.OFFERED]
    assert world.stages() == [Stage.CURRENT, Stage.PREVIOUS, Stage.PENDING]
    world.sink.deliver()
    world.check()
    held = world.held_login()
    assert held is not None
    assert held.username == world.credential(2).username
    world.run(for_=10 * MINUTE)
    assert world.states() == [RotationState.SUPERSEDED, RotationState.COMPLETED]
    world.settle()
    world.check_at_rest()


def test_an_emergency_ends_the_old_credential_at_once() -> None:
    world = World()
    old = world.held_login()
    assert old is not None
    world.engine.open_session("pg-1", old.username)
    world.rotate(Trigger.EMERGENCY)
    world.run(for_=timedelta(seconds=2))
    assert world.stages() == [Stage.RETIRED, Stage.CURRENT]
    assert not world.logs_in(old)


def test_an_emergency_in_the_middle_of_a_push_delays_nothing() -> None:
    world = World()
    world.rotate()
    pushed = world.sink.push
    emergencies: list[Received] = []

    def push(
        resource: Resource,
        installation: Installation,
        secrets: Sequence[RenderedSecret],
        may_send: Callable[[], bool],
        deadline: Deadline,
    ) -> PushOutcome:
        outcome = pushed(resource, installation, secrets, may_send, deadline)
        if not emergencies:
            emergencies.append(world.rotate(Trigger.EMERGENCY))
        return outcome

    world.sink.push = push  # type: ignore[method-assign]  # something else happens while the push is under way
    world.run(for_=timedelta(seconds=15))
    assert [one.reception for one in emergencies] == [requests.Reception.FOLLOWS]
    assert world.states() == [RotationState.COMPLETED, RotationState.COMPLETED]
    assert world.stages() == [Stage.RETIRED, Stage.BLOCKED, Stage.CURRENT]
    assert world.credential(2).username not in world.engine.server("pg-1").roles  # that it stays away is proved a little later
    world.run(for_=timedelta(seconds=15))
    assert world.stages() == [Stage.RETIRED, Stage.RETIRED, Stage.CURRENT]


# -- requests that meet


def test_a_request_joins_a_rotation_that_was_not_offered_yet() -> None:
    world = World()
    world.limiter.answers.append(world.clock.now() + 5 * MINUTE)
    first = world.rotate(Trigger.SCHEDULE)
    world.run(for_=MINUTE)
    second = world.rotate(grace=2 * HOUR)
    assert second.reception is requests.Reception.JOINED
    assert second.rotation_id == first.rotation_id
    world.run(for_=10 * MINUTE)
    assert world.states() == [RotationState.COMPLETED]
    current, old = world.credential(2), world.credential(1)
    assert current.current_at is not None
    assert old.grace_ends_at == current.current_at + 2 * HOUR


def test_a_request_at_offered_becomes_one_follow_up() -> None:
    world = World()
    world.sink.answers(*[answers.LOST_AND_UNKNOWN] * 4)
    first = world.rotate()
    world.run()
    second, third = world.rotate(), world.rotate(Trigger.VERCEL, grace=HOUR)
    assert second.reception is requests.Reception.FOLLOWS
    assert third.rotation_id == second.rotation_id != first.rotation_id
    world.run(for_=10 * MINUTE)
    assert world.states() == [RotationState.COMPLETED, RotationState.COMPLETED]
    world.settle()
    world.check_at_rest()


def test_a_schedule_changes_nothing_at_offered() -> None:
    world = World()
    world.sink.answers(answers.LOST_AND_UNKNOWN)
    world.rotate()
    world.run()
    assert world.rotate(Trigger.SCHEDULE).reception is requests.Reception.NOTHING


def test_an_explicit_grace_bounds_older_generations_and_a_schedule_never_shortens_one() -> None:
    world = World(spec=with_policy(grace=24 * HOUR))
    world.rotate()
    world.run()
    promised = world.credential(1).grace_ends_at
    world.rotate(Trigger.SCHEDULE)
    world.run()
    assert world.credential(1).grace_ends_at == promised
    world.rotate(grace=HOUR)
    world.run()
    ends = {world.credential(generation).grace_ends_at for generation in (1, 2, 3)}
    assert ends == {world.clock.now() + HOUR}


# -- retirement


def test_a_credential_that_is_still_used_waits_and_goes_on_when_it_is_quiet() -> None:
    world = World(spec=with_policy(grace=2 * HOUR, quiet=10 * MINUTE))
    old = world.held_login()
    assert old is not None
    world.engine.open_session("pg-1", old.username)
    world.rotate()
    world.run(for_=5 * HOUR)
    assert world.stages()[0] is Stage.PREVIOUS
    assert "still used" in world.credential(1).problem
    world.engine.close_sessions("pg-1", old.username)
    world.run(for_=30 * MINUTE)
    assert world.stages()[0] is Stage.RETIRED


def test_waiting_for_use_ends_at_the_cap() -> None:
    world = World(spec=with_policy(grace=2 * HOUR, quiet=10 * MINUTE, in_use_cap=HOUR))
    old = world.held_login()
    assert old is not None
    world.engine.open_session("pg-1", old.username)
    world.rotate()
    world.run(for_=2 * HOUR + 59 * MINUTE)
    assert world.stages()[0] is Stage.PREVIOUS
    world.run(for_=15 * MINUTE)
    assert world.stages()[0] is Stage.RETIRED


def test_nothing_is_retired_while_the_clocks_disagree() -> None:
    world = World()
    world.rotate()
    world.run(for_=24 * HOUR - MINUTE)
    store_clock = world.clock
    world.store.clock = type(store_clock)(store_clock.now())
    world.store.clock.jump(HOUR)
    for _ in range(5):
        world.sweep()
        world.store.clock.advance(MINUTE)
    assert world.stages()[0] is Stage.PREVIOUS
    assert "clock" in world.credential(1).problem


def test_a_blocked_credential_can_be_given_a_new_end_and_logs_in_again() -> None:
    world = World()
    old = world.held_login()
    assert old is not None
    world.rotate()
    world.run(for_=24 * HOUR + MINUTE)
    assert world.stages()[0] is Stage.BLOCKED
    assert not world.logs_in(old)
    check, world.check = world.check, lambda: None  # type: ignore[method-assign]  # promised now, given a moment later
    requests.extend(world.resource_id, world.credential(1).id, 2 * HOUR, "test", world.ports)
    world.sweep()
    world.check = check  # type: ignore[method-assign]  # back again
    assert world.logs_in(old)
    world.run(for_=119 * MINUTE)
    assert world.logs_in(old)
    world.settle()
    world.check_at_rest()


def test_a_compromised_credential_is_never_extended() -> None:
    world = World()
    rotation_id = world.rotate(Trigger.EMERGENCY).rotation_id
    assert rotation_id is not None
    driver.advance(lifecycle.STORY, rotation_id, world.ports)
    assert world.stages() == [Stage.PREVIOUS, Stage.CURRENT]
    with pytest.raises(Conflict, match="compromised"):
        requests.extend(world.resource_id, world.credential(1).id, HOUR, "test", world.ports)


def test_a_login_that_still_gets_in_is_not_called_retired() -> None:
    world = World()
    world.rotate()
    refusing(world, "prove_refused", Refused("the login can still log in"))
    world.run(for_=26 * HOUR)
    assert world.stages()[0] is Stage.BLOCKED
    assert "still log in" in world.credential(1).problem
    world.engine.on_act = lambda _name, _phase: None
    world.settle()
    world.check_at_rest()


# -- holding back and leaving


def test_a_paused_resource_is_held_where_it_is_and_goes_on_when_it_is_resumed() -> None:
    world = World()
    requests.pause(world.resource_id, "test", "maintenance", world.ports)
    with pytest.raises(Conflict, match="paused"):
        world.rotate()
    world.run(for_=40 * 24 * HOUR)
    assert world.states() == []
    requests.resume(world.resource_id, "test", "", world.ports)
    world.run()
    assert world.states() == [RotationState.COMPLETED]


def test_a_leaving_resource_is_not_pushed_any_more_and_all_its_logins_go() -> None:
    world = World()
    world.sink.answers(*[answers.LOST_AND_UNKNOWN] * 3)
    world.rotate()
    world.run()
    pushes = len(world.sink.pushes)
    requests.leave(world.resource_id, "test", "uninstalled", world.ports, ends_in=24 * HOUR)
    world.sink.held.clear()
    world.run(for_=25 * HOUR)
    assert world.states() == [RotationState.ABANDONED]
    assert world.stages() == [Stage.RETIRED, Stage.RETIRED]
    assert len(world.sink.pushes) == pushes
    assert world.store.resources[world.resource_id].state is ResourceState.GONE


def test_a_resource_that_leaves_can_keep_its_logins_and_then_we_hold_nothing_of_them() -> None:
    world = World()
    old = world.held_login()
    assert old is not None
    world.rotate()
    world.run()
    new = world.held_login()
    assert new is not None
    requests.leave(world.resource_id, "test", "handed over", world.ports, ends_in=None)
    world.run(for_=48 * HOUR)
    assert world.logs_in(old)
    assert world.logs_in(new)
    assert world.stages() == [Stage.RELEASED, Stage.RELEASED]
    assert {one.sealed_password for one in world.store.credentials.values()} == {None}
    assert world.store.resources[world.resource_id].state is ResourceState.GONE


# -- pushing again


def test_the_current_credential_can_be_pushed_again_and_nothing_else_changes() -> None:
    world = World()
    held = world.held_login()
    world.sink.held.clear()
    requests.push_again(world.resource_id, "test", "lost", world.ports)
    world.run(for_=HOUR)
    assert world.states() == [RotationState.COMPLETED]
    assert world.stages() == [Stage.CURRENT]
    assert world.held_login() == held
    world.check_at_rest()


def test_a_push_again_that_is_refused_fails_and_the_credential_stays_current() -> None:
    world = World()
    world.sink.answers(answers.APPLIED_BUT_UNKNOWN, answers.REFUSED)
    requests.push_again(world.resource_id, "test", "", world.ports)
    world.run(for_=HOUR)
    assert world.states() == [RotationState.FAILED]
    assert world.stages() == [Stage.CURRENT]
    world.check_at_rest()


def test_a_rotation_asked_for_while_a_push_again_waits_takes_its_place() -> None:
    world = World()
    first = requests.push_again(world.resource_id, "test", "", world.ports)
    second = world.rotate()
    assert second.rotation_id == first.rotation_id
    world.run()
    assert world.stages() == [Stage.PREVIOUS, Stage.CURRENT]


def test_an_emergency_goes_past_a_push_again_without_touching_the_current_credential_before_its_time() -> None:
    world = World()
    world.sink.answers(answers.ON_ITS_WAY, answers.LOST_AND_UNKNOWN)
    requests.push_again(world.resource_id, "test", "", world.ports)
    world.run()
    assert world.rotate(Trigger.EMERGENCY).reception is requests.Reception.FOLLOWS
    world.run(for_=MINUTE)
    assert world.states()[0] is RotationState.SUPERSEDED
    world.sink.deliver()
    world.check()
    world.run(for_=10 * MINUTE)
    assert world.stages() == [Stage.RETIRED, Stage.CURRENT]
    world.check_at_rest()
