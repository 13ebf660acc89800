"""What every store does around the rows, the one in memory as the real ones: attempts, requests, the fleet, what is due, use."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rotation.cases import AttemptTerms, Move, Wait
from rotation.errors import Conflict, IllegalMove, NotFound
from rotation.model import DOUBTED_FOR, Sampled, Schedule
from rotation.states import AttemptState, ResourceState
from rotation.store.rules import INSTALLATIONS
from tests.store_benches import DAY, MINUTE, begin, complete, register
from tests.store_samples import (
    INSTALLATION,
    SERVER,
    TERMS,
    ask,
    blocked,
    completed,
    event,
    offered,
    planned,
    present,
    session,
    spec,
    verified,
)

if TYPE_CHECKING:
    from rotation.cases import ResourceCase
    from rotation.model import Resource, ResourceSpec
    from tests.store_benches import Bench


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
    assert [one.clean for one in case.attempts if one.rotation_id == second.rotation.id] == [False, True]


def test_a_push_that_was_never_answered_is_told_of_for_a_day_more_as_a_clock_may_be_wrong(bench: Bench, resource: Resource) -> None:
    first = begin(bench, resource, "planned", "verified", "offered")
    move = completed(first)
    assert bench.store.record_rotation(first, replace(move, attempt=replace(present(move.attempt), state=AttemptState.UNKNOWN))) is None
    second = bench.store.amend(resource.id, ask)
    bench.advance(TERMS.travels_for + TERMS.send_within + DOUBTED_FOR - MINUTE)
    assert [one.rotation_id for one in present(bench.store.claim_rotation(second)).attempts] == [first.rotation.id]
    bench.advance(2 * MINUTE)
    assert present(bench.store.claim_rotation(second)).attempts == ()


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


def test_two_resources_of_a_server_do_not_name_their_logins_alike(bench: Bench, resource: Resource) -> None:
    def named(external_id: str, prefix: str, server: str = SERVER.name) -> ResourceSpec:
        made = spec(external_id, server=server)
        return replace(made, database=replace(made.database, login_prefix=prefix))

    prefix = resource.spec.database.login_prefix
    taken = f"database.login_prefix: on {SERVER.name} the logins of {resource.name} are named {prefix} already"
    with pytest.raises(Conflict, match=taken):
        bench.store.register(named("store_2", prefix), "res_2", Schedule(), None, event("x"))
    other = bench.store.register(named("store_2", "other"), "res_2", Schedule(), None, event("resource_registered"))
    with pytest.raises(Conflict, match=taken):
        bench.store.revise(other.id, named("store_2", prefix), Schedule(), event("x"))
    assert bench.store.revise(other.id, named("store_2", "another"), Schedule(), event("x")).revision == 2
    bench.store.revise(other.id, named("store_2", "another"), Schedule(), event("x"))

    bench.store.add_server(replace(SERVER, name="elsewhere"), event("server_added"))
    far = bench.store.register(named("store_3", prefix, "elsewhere"), "res_3", Schedule(), None, event("resource_registered"))
    with pytest.raises(Conflict, match=taken):
        bench.store.revise(far.id, named("store_3", prefix), Schedule(), event("x"))
    assert bench.kinds(far.id) == ["resource_registered"]

    bench.store.amend(resource.id, lambda _: (Move(event("resource_gone"), resource_state=ResourceState.GONE), None))
    bench.store.revise(other.id, named("store_2", prefix), Schedule(), event("x"))


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


def test_it_is_noted_since_when_a_server_has_been_looked_at_without_a_gap(bench: Bench, resource: Resource) -> None:
    complete(bench, resource)
    bench.advance(2 * DAY)
    (old,) = bench.store.due_credentials(10)
    gap = bench.store.terms.usage_gap

    def sampled() -> Sampled | None:
        bench.advance(bench.store.terms.claim)
        return present(bench.store.claim_credential(old)).sampled

    assert sampled() is None
    bench.store.see(SERVER, [])
    first = present(sampled())
    assert first.since == first.at
    bench.advance(gap - 2 * bench.store.terms.claim)
    bench.store.see(SERVER, [session("stranger")])
    second = present(sampled())
    assert second.at - second.since >= gap - bench.store.terms.claim
    bench.advance(gap)
    bench.store.see(SERVER, [])
    third = present(sampled())
    assert third.since == third.at


def test_a_server_that_is_used_is_looked_at_once_a_while(bench: Bench, resource: Resource) -> None:
    bench.store.add_server(replace(SERVER, name="idle"), event("server_added"))
    assert bench.store.server("idle").name == "idle"
    assert bench.store.due_servers(10) == (SERVER.name,)
    assert bench.store.due_servers(10) == ()
    bench.advance(bench.store.terms.usage_sample)
    assert bench.store.due_servers(10) == (SERVER.name,)
