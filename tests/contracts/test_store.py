"""What every store does with a row, the one in memory as the real ones: claims, fences, moves, waits, and who wins a race."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rotation.cases import Move, Wait
from rotation.errors import Conflict, IllegalMove, LostClaim, NotFound
from rotation.model import Schedule
from rotation.states import AttemptState, RotationState, Stage, Trigger
from tests.store_benches import DAY, MINUTE, begin, complete, register
from tests.store_samples import (
    INSTALLATION,
    SERVER,
    TERMS,
    ask,
    blocked,
    completed,
    credential,
    event,
    failed,
    offered,
    planned,
    present,
    retired,
    session,
    spec,
    verified,
)

if TYPE_CHECKING:
    from rotation.cases import ResourceCase
    from rotation.model import Resource
    from tests.store_benches import Bench


# A rotation from first to last


def test_a_rotation_goes_from_request_to_completion(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    assert bench.store.may_send(case.claim, case.attempts[0])
    assert bench.store.record_rotation(case, completed(case)) is None
    rotation = bench.rotation(case.rotation.id)
    assert rotation.state is RotationState.COMPLETED
    assert bench.credential(present(rotation.credential_id)).stage is Stage.CURRENT
    assert bench.credential(present(case.current).id).stage is Stage.PREVIOUS
    assert bench.kinds(resource.id) == [
        "resource_registered",
        "rotation_requested",
        "rotation_planned",
        "rotation_verified",
        "rotation_offered",
        "rotation_completed",
    ]
    assert bench.about(resource.id)[-1] == (rotation.id, rotation.credential_id)
    schedule = bench.store.resource(resource.id).schedule
    assert schedule.next_rotation_at == case.now + timedelta(days=30)
    assert schedule.completed_at == case.now


def test_a_case_shows_all_that_a_step_may_look_at(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    assert case.resource.name == "icfg_1/store_1"
    assert case.resource.spec == spec()
    assert case.resource.server == SERVER
    assert case.present_policy == spec().policy
    assert case.installation == INSTALLATION
    assert [one.trigger for one in case.requests] == [Trigger.MANUAL]
    assert [one.generation for one in case.credentials] == [1, 2]
    assert present(case.current).generation == 1
    assert case.credential.generation == 2
    assert case.generations == 2
    assert [one.number for one in case.attempts] == [1]
    assert case.rotation.requested_at == case.requests[0].received_at


def test_times_come_back_aware_and_to_the_microsecond(bench: Bench, resource: Resource) -> None:
    at = bench.store.now().replace(microsecond=123_457)
    case = begin(bench, resource)
    bench.store.record_rotation(case, Wait(at + DAY))
    assert bench.rotation(case.rotation.id).due_at == at + DAY
    assert present(bench.rotation(case.rotation.id).due_at).utcoffset() == timedelta(0)


def test_a_rotation_keeps_the_revision_with_which_it_began(bench: Bench, resource: Resource) -> None:
    rotation_id = bench.store.amend(resource.id, ask)
    revised = bench.store.revise(resource.id, spec(grace=MINUTE), resource.schedule, event("resource_revised"))
    assert (revised.revision, revised.spec.policy.grace) == (2, MINUTE)
    case = present(bench.store.claim_rotation(rotation_id))
    assert (case.resource.revision, case.resource.spec.policy.grace) == (2, MINUTE)
    bench.store.record_rotation(case, planned(case))
    bench.store.revise(resource.id, spec(grace=2 * MINUTE), resource.schedule, event("resource_revised"))
    bench.advance(MINUTE)
    case = present(bench.store.claim_rotation(rotation_id))
    assert (case.resource.revision, case.resource.spec.policy.grace) == (3, MINUTE)
    assert case.present_policy.grace == 2 * MINUTE


# Claims and fences


def test_a_row_is_held_by_one_at_a_time(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource)
    assert bench.store.claim_rotation(case.rotation.id) is None


def test_a_claim_ends_by_itself_and_the_next_has_a_higher_fence(bench: Bench, resource: Resource) -> None:
    first = begin(bench, resource)
    bench.advance(MINUTE)
    second = present(bench.store.claim_rotation(first.rotation.id))
    assert second.claim.fence > first.claim.fence
    with pytest.raises(LostClaim):
        bench.store.record_rotation(first, planned(first))
    with pytest.raises(LostClaim):
        bench.store.record_rotation(first, Wait(None))
    with pytest.raises(LostClaim):
        bench.store.open_attempt(first, TERMS)
    assert present(bench.store.record_rotation(second, planned(second))).rotation.state is RotationState.PLANNED


def test_another_row_that_its_holder_has_ended_meanwhile_is_not_written(bench: Bench, resource: Resource) -> None:
    ahead = begin(bench, resource, "planned", "verified", "offered")
    case = present(bench.store.claim_rotation(bench.store.amend(resource.id, ask)))
    assert present(case.ahead).fence == ahead.claim.fence
    assert bench.store.record_rotation(ahead, completed(ahead)) is None
    passed = replace(present(case.ahead), state=RotationState.SUPERSEDED, ended_at=case.now, due_at=None)
    with pytest.raises(LostClaim):
        bench.store.record_rotation(case, Move(event("rotation_superseded"), rotation=case.rotation, superseded=passed))
    assert bench.rotation(ahead.rotation.id).state is RotationState.COMPLETED


def test_a_claim_is_over_for_its_worker_before_it_is_over_for_the_store(bench: Bench, resource: Resource) -> None:
    store = bench.store
    rotation_id = store.amend(resource.id, ask)
    before = store.clock.monotonic()
    claim = present(store.claim_rotation(rotation_id)).claim
    assert claim.deadline.at == before + store.terms.claim.total_seconds()


def test_every_record_renews_the_claim(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource)
    bench.advance(timedelta(seconds=40))
    case = present(bench.store.record_rotation(case, planned(case)))
    bench.advance(timedelta(seconds=40))
    assert bench.store.claim_rotation(case.rotation.id) is None
    assert present(bench.store.record_rotation(case, verified(case))).claim.fence == case.claim.fence


def test_a_row_that_is_not_due_ended_or_unknown_cannot_be_claimed(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource)
    assert bench.store.record_rotation(case, Wait(bench.store.now() + MINUTE)) is None
    assert bench.store.claim_rotation(case.rotation.id) is None
    bench.advance(MINUTE)
    case = present(bench.store.claim_rotation(case.rotation.id))
    assert bench.store.record_rotation(case, Wait(None)) is None
    assert bench.store.claim_rotation(case.rotation.id) is None
    assert bench.store.claim_rotation("rot_unknown") is None
    assert bench.store.claim_credential("cred_unknown") is None


def test_the_same_decision_cannot_be_recorded_twice(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource)
    bench.store.record_rotation(case, planned(case))
    with pytest.raises(LostClaim):
        bench.store.record_rotation(case, planned(case))
    assert bench.kinds(resource.id).count("rotation_planned") == 1


def test_a_completion_is_not_stopped_by_a_worker_that_only_claimed_an_old_credential(bench: Bench, resource: Resource) -> None:
    complete(bench, resource)
    bench.advance(2 * DAY)
    case = begin(bench, resource, "planned", "verified", "offered")
    (old,) = bench.store.due_credentials(10)
    retiring = present(bench.store.claim_credential(old))
    ended = replace(next(one for one in case.credentials if one.id == old), grace_ends_at=case.now, due_at=case.now)
    move = completed(case)
    assert bench.store.record_rotation(case, replace(move, credentials=(*move.credentials, ended))) is None
    with pytest.raises(LostClaim):
        bench.store.record_credential(retiring, blocked(retiring))


def test_a_move_that_changes_another_row_takes_the_claim_of_its_worker(bench: Bench, resource: Resource) -> None:
    complete(bench, resource)
    bench.advance(2 * DAY)
    (old,) = bench.store.due_credentials(10)
    retiring = present(bench.store.claim_credential(old))

    def extend(case: ResourceCase) -> tuple[Move, None]:
        row = next(one for one in case.credentials if one.id == old)
        return Move(event("grace_extended"), credentials=(replace(row, due_at=case.now + DAY, grace_ends_at=case.now + DAY),)), None

    bench.store.amend(resource.id, extend)
    with pytest.raises(LostClaim):
        bench.store.record_credential(retiring, blocked(retiring))
    assert bench.credential(old).stage is Stage.PREVIOUS


def test_a_move_is_refused_when_another_of_its_rows_has_changed_since(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")

    def mark(known: ResourceCase) -> tuple[Move, None]:
        current = next(one for one in known.credentials if one.stage is Stage.CURRENT)
        return Move(event("credential_compromised"), credentials=(replace(current, compromised=True),)), None

    bench.store.amend(resource.id, mark)
    with pytest.raises(LostClaim):
        bench.store.record_rotation(case, completed(case))
    assert bench.rotation(case.rotation.id).state is RotationState.OFFERED
    assert bench.attempts(case.rotation.id)[0].state is AttemptState.OPEN
    assert bench.kinds(resource.id)[-1] == "credential_compromised"


# Moves and waits


def test_a_wait_frees_the_claim_counts_setbacks_and_writes_no_event(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource)
    known = bench.kinds(resource.id)
    at = bench.store.now() + DAY
    assert bench.store.record_rotation(case, Wait(at, "down", "wait", setback=True, reserved_at=at, missing_since=at)) is None
    row = bench.rotation(case.rotation.id)
    assert (row.tries, row.problem, row.advice, row.reserved_at, row.missing_since) == (1, "down", "wait", at, at)
    assert bench.kinds(resource.id) == known
    bench.advance(DAY)
    case = present(bench.store.claim_rotation(row.id))
    bench.store.record_rotation(case, Wait(at + DAY))
    row = bench.rotation(row.id)
    assert (row.tries, row.problem) == (1, "")
    assert row.reserved_at is not None
    assert row.missing_since is not None


def test_a_wait_until_now_goes_on_at_once(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource)
    fresh_case = present(bench.store.record_rotation(case, Wait(case.now, "again", setback=True)))
    assert fresh_case.rotation.tries == 1


def test_an_illegal_move_is_refused_and_writes_nothing(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource)
    skips = Move(event("rotation_completed"), rotation=replace(case.rotation, state=RotationState.COMPLETED))
    revives = Move(event("x"), credentials=(replace(present(case.current), stage=Stage.PENDING),))
    for move in (skips, revives):
        with pytest.raises(IllegalMove):
            bench.store.record_rotation(case, move)
    assert bench.kinds(resource.id)[-1] == "rotation_requested"
    assert present(bench.store.record_rotation(case, planned(case))).rotation.state is RotationState.PLANNED


def test_what_has_ended_is_never_written_again(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned")
    assert bench.store.record_rotation(case, failed(case)) is None
    ended = bench.rotation(case.rotation.id)
    with pytest.raises(IllegalMove):
        bench.store.amend(resource.id, lambda _: (Move(event("x"), rotation=ended), None))


def test_a_move_touches_only_its_own_resource(bench: Bench, resource: Resource) -> None:
    other = register(bench, "store_2")
    theirs = begin(bench, other, "planned")
    mine = begin(bench, resource)
    for move in (
        Move(event("x"), rotation=theirs.rotation),
        Move(event("x"), credentials=(present(theirs.current),)),
        Move(event("x"), new_credential=credential(other.id, 9, Stage.PENDING, mine.now)),
    ):
        with pytest.raises(IllegalMove):
            bench.store.record_rotation(mine, move)


def test_urgency_only_rises_and_use_is_written_by_sampling_alone(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource)

    def hurry(known: ResourceCase) -> tuple[Move, None]:
        return Move(event("rotation_hurried"), rotation=replace(present(known.requested_rotation), urgent=True)), None

    bench.store.amend(resource.id, hurry)
    case = present(bench.store.claim_rotation(case.rotation.id))
    calm = planned(replace(case, rotation=replace(case.rotation, urgent=False)))
    case = present(bench.store.record_rotation(case, calm))
    assert case.rotation.urgent
    bench.store.see(SERVER, [session(present(case.current).username)])
    case = present(bench.store.record_rotation(case, verified(case)))
    changed = replace(present(case.current), last_seen_at=None)
    bench.store.record_rotation(case, Move(event("x"), credentials=(changed,)))
    assert bench.credential(changed.id).last_seen_at is not None


def test_a_failed_plan_leaves_a_login_to_discard(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned")
    new = present(case.rotation.credential_id)
    assert bench.store.record_rotation(case, failed(case)) is None
    assert bench.store.due_credentials(10) == (new,)
    discarding = present(bench.store.claim_credential(new))
    assert discarding.credential.stage is Stage.DISCARDING
    done = replace(discarding.credential, stage=Stage.DISCARDED, due_at=None, sealed_password=None)
    assert bench.store.record_credential(discarding, Move(event("credential_discarded"), credentials=(done,))) is None
    assert bench.credential(new).stage is Stage.DISCARDED
    assert bench.store.resource(resource.id).schedule.failures == 1
    assert begin(bench, resource).generations == 2


def test_a_credential_goes_from_grace_to_gone(bench: Bench, resource: Resource) -> None:
    complete(bench, resource)
    assert bench.store.due_credentials(10) == ()
    bench.advance(2 * DAY)
    (old,) = bench.store.due_credentials(10)
    case = present(bench.store.claim_credential(old))
    assert [one.generation for one in case.credentials] == [1, 2]
    case = present(bench.store.record_credential(case, blocked(case)))
    assert bench.store.record_credential(case, Wait(case.now + MINUTE, "down", setback=True)) is None
    assert bench.credential(old).tries == 1
    bench.advance(MINUTE)
    case = present(bench.store.claim_credential(old))
    assert bench.store.record_credential(case, retired(case)) is None
    row = bench.credential(old)
    assert (row.stage, row.sealed_password, row.sealed_verifier) == (Stage.RETIRED, None, None)
    assert bench.about(resource.id)[-1] == (None, old)


def test_a_superseded_rotation_makes_room_for_the_urgent_one(bench: Bench, resource: Resource) -> None:
    slow = begin(bench, resource, "planned", "verified", "offered")
    assert bench.store.record_rotation(slow, Wait(slow.now + DAY)) is None
    behind = bench.store.amend(resource.id, ask)
    case = present(bench.store.claim_rotation(behind))
    assert present(case.ahead).id == slow.rotation.id
    held_back = replace(present(case.ahead), state=RotationState.SUPERSEDED, ended_at=case.now, due_at=None)
    given = next(one for one in case.credentials if one.id == held_back.credential_id)
    move = replace(planned(case), superseded=held_back, credentials=(replace(given, stage=Stage.PREVIOUS, previous_at=case.now),))
    case = present(bench.store.record_rotation(case, move))
    assert case.rotation.state is RotationState.PLANNED
    assert bench.rotation(slow.rotation.id).state is RotationState.SUPERSEDED
    case = present(bench.store.record_rotation(case, verified(case)))
    case = present(bench.store.record_rotation(case, offered(case)))
    assert [one.clean for one in case.attempts] == [True, False]


# The store decides races


def test_only_one_rotation_of_a_resource_is_open(bench: Bench, resource: Resource) -> None:
    begin(bench, resource, "planned", "verified", "offered")
    behind = bench.store.amend(resource.id, ask)
    case = present(bench.store.claim_rotation(behind))
    with pytest.raises(Conflict):
        bench.store.record_rotation(case, planned(case))
    assert bench.kinds(resource.id)[-1] == "rotation_requested"


def test_only_one_rotation_of_a_resource_is_requested(bench: Bench, resource: Resource) -> None:
    bench.store.amend(resource.id, ask)

    def ignore_the_first(case: ResourceCase) -> tuple[Move, str]:
        return ask(replace(case, requested_rotation=None))

    with pytest.raises(Conflict):
        bench.store.amend(resource.id, ignore_the_first)


def test_a_generation_is_never_used_twice(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource)
    move = planned(case)
    again = replace(move, new_credential=replace(present(move.new_credential), generation=1))
    with pytest.raises(Conflict):
        bench.store.record_rotation(case, again)


def test_a_login_belongs_to_one_credential_of_a_server(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource)
    taken = credential("res_other", 1, Stage.CURRENT, case.now, present(case.current).username)
    with pytest.raises(Conflict):
        bench.store.register(spec("store_2"), "res_other", Schedule(), taken, event("resource_registered"))
    with pytest.raises(NotFound):
        bench.store.resource("res_other")
