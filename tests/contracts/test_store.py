"""What every store does, the one in memory as the real ones: claims, fences, moves, waits, attempts, requests, what is due."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rotation.errors import Conflict, IllegalMove, LostClaim, NotFound
from rotation.model import (
    AttemptState,
    AttemptTerms,
    Move,
    ResourceState,
    RotationState,
    Schedule,
    Session,
    Stage,
    Trigger,
    Wait,
)
from rotation.store.rules import INSTALLATIONS
from tests.fakes.store import FakeStore
from tests.fakes.store_bench import MemoryBench
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
    fresh,
    offered,
    planned,
    present,
    retired,
    spec,
    verified,
)

if TYPE_CHECKING:
    from rotation.model import Resource, ResourceCase, RotationCase
    from tests.sql_stores import SqlBench

    Bench = MemoryBench | SqlBench

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def bench(request: pytest.FixtureRequest) -> Bench:
    bench: Bench = MemoryBench(FakeStore()) if request.param == "memory" else request.getfixturevalue(f"{request.param}_bench")
    bench.store.add_installation(INSTALLATION, event("installation_added"))
    bench.store.add_server(SERVER, event("server_added"))
    return bench


@pytest.fixture
def resource(bench: Bench) -> Resource:
    return register(bench)


def register(bench: Bench, external_id: str = "store_1", schedule: Schedule | None = None) -> Resource:
    resource_id = fresh("res")
    current = credential(resource_id, 1, Stage.CURRENT, bench.store.now())
    return bench.store.register(spec(external_id), resource_id, schedule or Schedule(), current, event("resource_registered"))


def begin(bench: Bench, resource: Resource, *steps: str) -> RotationCase:
    """A claimed rotation, taken as far as the steps go."""
    rotation_id = bench.store.amend(resource.id, ask)
    case = present(bench.store.claim_rotation(rotation_id))
    for step in steps:
        move = {"planned": planned, "verified": verified, "offered": offered}[step](case)
        case = present(bench.store.record_rotation(case, move))
    return case


def complete(bench: Bench, resource: Resource) -> str:
    case = begin(bench, resource, "planned", "verified", "offered")
    assert bench.store.record_rotation(case, completed(case)) is None
    return case.rotation.id


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


# Attempts


def test_an_attempt_has_all_its_times_by_the_stores_clock(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    (attempt,) = case.attempts
    assert attempt.state is AttemptState.OPEN
    assert attempt.send_before == attempt.opened_at + TERMS.send_within
    assert attempt.expires_at == attempt.send_before + TERMS.travels_for
    assert (attempt.clean, attempt.fence, attempt.credential_id) == (True, case.claim.fence, case.rotation.credential_id)


def test_a_second_attempt_uses_up_the_place_that_was_kept(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    unknown = replace(case.attempts[0], state=AttemptState.UNKNOWN, answered_at=case.now, note="reset")
    at = case.now
    case = present(bench.store.record_rotation(case, Wait(at, attempt=unknown, reserved_at=at)))
    assert case.rotation.reserved_at == at
    case = bench.store.open_attempt(case, TERMS)
    assert case.rotation.reserved_at is None
    assert [(one.number, one.state, one.clean) for one in case.attempts] == [
        (1, AttemptState.UNKNOWN, True),
        (2, AttemptState.OPEN, True),
    ]
    assert case.attempts[0].note == "reset"


def test_an_attempt_that_comes_with_the_offer_uses_up_the_place_too(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified")
    kept = replace(case, rotation=replace(case.rotation, reserved_at=case.now))
    case = present(bench.store.record_rotation(kept, offered(kept)))
    assert case.rotation.reserved_at is None
    assert bench.rotation(case.rotation.id).reserved_at is None


def test_a_case_after_a_move_is_what_the_store_holds(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource)
    for step in (planned, verified, offered):
        case = present(bench.store.record_rotation(case, step(case)))
        assert case.rotation == bench.rotation(case.rotation.id)
        assert case.attempts == bench.attempts(case.rotation.id)
        assert [one.generation for one in case.credentials] == [1, 2]
        for one in case.credentials:
            assert one == bench.credential(one.id)
        assert case.resource == bench.store.resource(resource.id)
    case = bench.store.open_attempt(case, TERMS)
    assert case.rotation == bench.rotation(case.rotation.id)
    assert case.attempts == bench.attempts(case.rotation.id)


def test_a_retirement_after_a_move_is_what_the_store_holds(bench: Bench, resource: Resource) -> None:
    complete(bench, resource)
    bench.advance(2 * DAY)
    (old,) = bench.store.due_credentials(10)
    case = present(bench.store.claim_credential(old))
    case = present(bench.store.record_credential(case, blocked(case)))
    assert case.credential == bench.credential(old)
    assert case.credentials == tuple(bench.credential(one.id) for one in case.credentials)


def test_no_attempt_may_be_sent_beyond_the_claim(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    case = bench.store.open_attempt(case, AttemptTerms(timedelta(hours=1), MINUTE))
    assert case.attempts[-1].send_before == case.attempts[-1].opened_at + bench.store.terms.claim


def test_nothing_is_sent_late_or_under_a_lost_claim(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    (attempt,) = case.attempts
    assert bench.store.may_send(case.claim, attempt)
    assert not bench.store.may_send(replace(case.claim, fence=case.claim.fence + 1), attempt)
    bench.advance(TERMS.send_within)
    assert not bench.store.may_send(case.claim, attempt)


def test_nothing_is_sent_twice_for_one_attempt(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    (attempt,) = case.attempts
    bench.store.record_rotation(case, Wait(case.now, attempt=replace(attempt, state=AttemptState.NOT_APPLIED)))
    assert not bench.store.may_send(case.claim, attempt)
    with pytest.raises(IllegalMove):
        bench.store.record_rotation(case, Wait(case.now, attempt=replace(attempt, state=AttemptState.APPLIED)))


def test_a_push_is_clean_once_nothing_else_is_on_its_way(bench: Bench, resource: Resource) -> None:
    first = begin(bench, resource, "planned", "verified", "offered")
    move = completed(first)
    lost = replace(present(move.attempt), state=AttemptState.UNKNOWN)
    assert bench.store.record_rotation(first, replace(move, attempt=lost)) is None
    second = begin(bench, resource, "planned", "verified", "offered")
    assert [one.clean for one in second.attempts] == [True, False]
    bench.advance(TERMS.travels_for + TERMS.send_within)
    case = present(bench.store.claim_rotation(second.rotation.id))
    case = bench.store.open_attempt(case, TERMS)
    assert [(one.rotation_id, one.clean) for one in case.attempts] == [(second.rotation.id, False), (second.rotation.id, True)]


def test_an_attempt_needs_an_offer(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified")
    with pytest.raises(IllegalMove):
        bench.store.open_attempt(case, TERMS)
    with pytest.raises(IllegalMove):
        bench.store.record_rotation(case, Move(event("x"), opens_attempt=TERMS))


# Requests


def test_a_request_joins_what_is_not_offered_yet(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned")
    assert bench.store.amend(resource.id, ask) == case.rotation.id
    case = present(bench.store.record_rotation(case, verified(case)))
    assert len(case.requests) == 2


def test_a_request_behind_an_offer_is_the_follow_up(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    behind = bench.store.amend(resource.id, ask)
    assert behind != case.rotation.id
    assert bench.store.amend(resource.id, ask) == behind
    case = present(bench.store.record_rotation(case, Wait(case.now)))
    assert len(case.requests) == 1
    assert [one.rotation_id for one in case.follow_up] == [behind, behind]


def test_a_key_finds_the_request_that_was_made_with_it(bench: Bench, resource: Resource) -> None:
    seen = []

    def once(case: ResourceCase) -> tuple[Move | None, str]:
        seen.append(case.keyed_request)
        if case.keyed_request is not None:
            return None, case.keyed_request.id
        move, _ = ask(case, key="k1")
        return move, move.new_requests[0].id

    first = bench.store.amend(resource.id, once, key="k1")
    assert bench.store.amend(resource.id, once, key="k1") == first
    assert seen[0] is None
    assert present(seen[1]).id == first
    with pytest.raises(Conflict):
        bench.store.amend(resource.id, lambda case: ask(case, key="k1"))


def test_a_decision_that_raises_writes_nothing(bench: Bench, resource: Resource) -> None:
    def refuse(case: ResourceCase) -> tuple[Move, str]:
        ask(case)
        raise Conflict("no")

    with pytest.raises(Conflict, match="no"):
        bench.store.amend(resource.id, refuse)
    with pytest.raises(NotFound):
        bench.store.amend("res_unknown", ask)
    assert bench.kinds(resource.id) == ["resource_registered"]


# The fleet


def test_what_exists_cannot_be_added_again(bench: Bench, resource: Resource) -> None:
    with pytest.raises(Conflict):
        bench.store.add_installation(INSTALLATION, event("x"))
    with pytest.raises(Conflict):
        bench.store.add_server(SERVER, event("x"))
    with pytest.raises(Conflict):
        register(bench)
    assert bench.kinds(INSTALLATIONS) == ["installation_added", "server_added"]


def test_what_is_not_there_cannot_be_named(bench: Bench, resource: Resource) -> None:
    unknown_server = spec("store_2", server="elsewhere")
    with pytest.raises(NotFound):
        bench.store.register(unknown_server, "res_2", Schedule(), None, event("x"))
    with pytest.raises(NotFound):
        bench.store.register(replace(spec("store_2"), installation_id="icfg_2"), "res_2", Schedule(), None, event("x"))
    with pytest.raises(NotFound):
        bench.store.revise("res_2", spec("store_2"), Schedule(), event("x"))
    with pytest.raises(Conflict):
        bench.store.revise(resource.id, spec("store_2"), Schedule(), event("x"))


def test_a_resource_may_be_registered_without_a_login(bench: Bench) -> None:
    empty = bench.store.register(spec(), "res_empty", Schedule(), None, event("resource_registered"))
    case = begin(bench, empty, "planned", "verified", "offered")
    assert case.current is None
    assert bench.store.record_rotation(case, completed(case)) is None


def test_a_resource_that_is_gone_makes_room_for_a_new_one(bench: Bench, resource: Resource) -> None:
    def leave(_: ResourceCase) -> tuple[Move, None]:
        return Move(event("resource_gone"), resource_state=ResourceState.GONE), None

    bench.store.amend(resource.id, leave)
    assert bench.store.resource(resource.id).state is ResourceState.GONE
    with pytest.raises(IllegalMove):
        bench.store.amend(resource.id, leave)
    assert register(bench).id != resource.id


def test_a_refused_token_parks_the_installation_once(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    assert bench.store.record_rotation(case, Wait(None, "401", parks="the token was refused")) is None
    parked = bench.store.installation(INSTALLATION.id)
    assert (parked.parked, parked.parked_reason) == (True, "the token was refused")
    assert not bench.store.park(INSTALLATION.id, "again", event("installation_parked"))
    assert bench.kinds(INSTALLATIONS).count("installation_parked") == 1
    assert bench.store.due_rotations(10, urgent=False) == ()
    assert bench.store.unpark(INSTALLATION.id, event("installation_unparked"))
    assert not bench.store.unpark(INSTALLATION.id, event("installation_unparked"))
    assert bench.store.due_rotations(10, urgent=False) == (case.rotation.id,)
    assert not present(bench.store.claim_rotation(case.rotation.id)).installation.parked


def test_a_new_token_unparks_and_a_push_that_was_taken_does_too(bench: Bench, resource: Resource) -> None:
    bench.store.park(INSTALLATION.id, "401", event("installation_parked"))
    bench.store.set_token(INSTALLATION.id, b"new", event("token_set"))
    assert bench.store.installation(INSTALLATION.id) == replace(INSTALLATION, sealed_token=b"new")
    case = begin(bench, resource, "planned", "verified", "offered")
    bench.store.park(INSTALLATION.id, "401", event("installation_parked"))
    assert bench.store.record_rotation(case, replace(completed(case), unparks=True)) is None
    assert not bench.store.installation(INSTALLATION.id).parked
    assert bench.kinds(INSTALLATIONS)[-1] == "installation_unparked"


# What is due


def test_a_date_that_has_come_is_due_until_it_is_taken(bench: Bench) -> None:
    now = bench.store.now()
    late = register(bench, "late", Schedule(now - DAY))
    later = register(bench, "later", Schedule(now - MINUTE))
    register(bench, "not yet", Schedule(now + DAY))
    register(bench, "never", Schedule(None))
    assert bench.store.due_resources(10) == (late.id, later.id)
    assert bench.store.due_resources(1) == (late.id,)
    bench.store.amend(late.id, ask)
    assert bench.store.due_resources(10) == (later.id,)


def test_what_was_sent_is_not_sent_again_for_a_while(bench: Bench, resource: Resource) -> None:
    rotation_id = bench.store.amend(resource.id, ask)
    assert bench.store.due_rotations(10, urgent=True) == ()
    assert bench.store.due_rotations(10, urgent=False) == (rotation_id,)
    assert bench.store.due_rotations(10, urgent=False) == ()
    bench.advance(bench.store.terms.hint)
    assert bench.store.due_rotations(10, urgent=False) == (rotation_id,)
    bench.advance(bench.store.terms.hint)
    present(bench.store.claim_rotation(rotation_id))
    assert bench.store.due_rotations(10, urgent=False) == ()
    bench.advance(MINUTE)
    assert bench.store.due_rotations(10, urgent=False) == (rotation_id,)


def test_the_longest_overdue_is_sent_first_and_no_more_than_asked_for(bench: Bench) -> None:
    ids = [bench.store.amend(register(bench, str(number)).id, ask) for number in range(5)]
    for number, rotation_id in enumerate(ids):
        case = present(bench.store.claim_rotation(rotation_id))
        bench.store.record_rotation(case, Wait(case.now + MINUTE * (5 - number)))
    bench.advance(6 * MINUTE)
    assert bench.store.due_rotations(2, urgent=False) == (ids[4], ids[3])
    assert bench.store.due_rotations(9, urgent=False) == (ids[2], ids[1], ids[0])


def test_a_paused_resource_rests_but_an_offer_goes_on(bench: Bench, resource: Resource) -> None:
    other = register(bench, "store_2")
    waiting = bench.store.amend(resource.id, ask)
    pushed = begin(bench, other, "planned", "verified", "offered")
    assert bench.store.record_rotation(pushed, Wait(pushed.now + MINUTE)) is None
    for one in (resource, other):
        bench.store.amend(one.id, lambda _: (Move(event("resource_paused"), resource_state=ResourceState.PAUSED), None))
    bench.advance(MINUTE)
    assert bench.store.due_rotations(10, urgent=False) == (pushed.rotation.id,)
    bench.store.amend(resource.id, lambda _: (Move(event("resource_resumed"), resource_state=ResourceState.ACTIVE), None))
    assert bench.store.due_rotations(10, urgent=False) == (waiting,)


def test_a_follow_up_is_sent_only_when_it_may_act(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned")

    def behind(known: ResourceCase) -> tuple[Move, str]:
        return ask(replace(known, open_rotation=None))

    follow_up = bench.store.amend(resource.id, behind)
    assert bench.store.due_rotations(10, urgent=False) == ()
    case = present(bench.store.record_rotation(case, verified(case)))
    case = present(bench.store.record_rotation(case, offered(case)))
    assert bench.store.due_rotations(10, urgent=False) == (follow_up,)


# Use


def session(username: str, client: str = "10.0.0.1", count: int = 1) -> Session:
    at = FakeStore().now()
    return Session(username, client, "shop", "idle", count, at)


def test_use_is_noted_by_credential_and_client(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource)
    current = present(case.current)
    seen = [session(current.username), session(current.username, "10.0.0.2", 3), session(current.username, "10.0.0.2"), session("stranger")]
    bench.store.see(SERVER, seen)
    bench.store.see(SERVER, [session(current.username, "10.0.0.1", 7)])
    bench.store.see(replace(SERVER, name="elsewhere"), [session(current.username, "10.0.0.9")])
    bench.store.see(SERVER, [])
    assert bench.sightings(resource.id) == {(current.id, "10.0.0.1", "shop"): 7, (current.id, "10.0.0.2", "shop"): 4}
    assert present(bench.credential(current.id).last_seen_at) >= case.now
    assert bench.credential(current.id).fence == current.fence


def test_a_server_that_is_used_is_looked_at_once_a_while(bench: Bench, resource: Resource) -> None:
    bench.store.add_server(replace(SERVER, name="idle"), event("server_added"))
    assert bench.store.server("idle").name == "idle"
    assert bench.store.due_servers(10) == (SERVER.name,)
    assert bench.store.due_servers(10) == ()
    bench.advance(bench.store.terms.usage_sample)
    assert bench.store.due_servers(10) == (SERVER.name,)
