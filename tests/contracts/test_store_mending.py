"""What every store does for the healer: which logins must work, which are astray, and who may put one right now."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rotation.cases import Move, Wait
from rotation.errors import Conflict, IllegalMove, LostClaim
from rotation.model import Attempt
from rotation.states import AttemptState, ResourceState, Stage
from tests.store_benches import DAY, HOUR, MINUTE, begin, complete, register
from tests.store_samples import (
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
    verified,
)

if TYPE_CHECKING:
    from rotation.cases import ResourceCase
    from rotation.model import Credential, Resource
    from tests.store_benches import Bench


def stages(bench: Bench) -> list[Stage]:
    return [one.stage for one in sorted(bench.store.owed_logins(SERVER.name), key=lambda one: one.generation)]


def current(bench: Bench) -> Credential:
    return next(one for one in bench.store.owed_logins(SERVER.name) if one.stage is Stage.CURRENT)


def previous(bench: Bench, resource: Resource) -> Credential:
    complete(bench, resource)
    return next(one for one in bench.store.owed_logins(SERVER.name) if one.stage is Stage.PREVIOUS)


# Which logins must work


def test_the_current_login_must_work_and_a_new_one_as_soon_as_it_is_made(bench: Bench, resource: Resource) -> None:
    assert stages(bench) == [Stage.CURRENT]
    case = begin(bench, resource, "planned")
    assert stages(bench) == [Stage.CURRENT]
    case = present(bench.store.record_rotation(case, verified(case)))
    assert stages(bench) == [Stage.CURRENT, Stage.PENDING]
    offered = replace(case.rotation, state=case.rotation.state.OFFERED, offered_at=case.now)
    case = present(bench.store.record_rotation(case, Move(event("rotation_offered"), rotation=offered)))
    assert stages(bench) == [Stage.CURRENT, Stage.PENDING]
    assert bench.store.owed_logins("another server") == ()


def test_a_previous_login_must_work_until_its_grace_is_over(bench: Bench, resource: Resource) -> None:
    complete(bench, resource)
    assert stages(bench) == [Stage.PREVIOUS, Stage.CURRENT]
    bench.advance(2 * DAY)
    assert stages(bench) == [Stage.CURRENT]


def test_one_that_only_waits_for_its_use_to_end_must_work_on(bench: Bench, resource: Resource) -> None:
    old = previous(bench, resource)
    bench.advance(2 * DAY)
    case = present(bench.store.claim_credential(old.id))
    assert bench.store.record_credential(case, Wait(case.now + MINUTE, "still used")) is None
    assert stages(bench) == [Stage.PREVIOUS, Stage.CURRENT]
    bench.advance(MINUTE)
    case = present(bench.store.claim_credential(old.id))
    assert bench.store.record_credential(case, Wait(case.now + MINUTE, "cannot block it", setback=True)) is None
    assert stages(bench) == [Stage.CURRENT]


def test_what_has_ended_or_is_blocked_need_not_work_and_is_found_by_its_id(bench: Bench, resource: Resource) -> None:
    old = previous(bench, resource)
    bench.advance(2 * DAY)
    case = present(bench.store.claim_credential(old.id))
    case = present(bench.store.record_credential(case, blocked(case)))
    assert stages(bench) == [Stage.CURRENT]
    bench.store.record_credential(case, retired(case))
    (found,) = bench.store.credentials_by_id([old.id, "cred_unknown"])
    assert (found.id, found.stage) == (old.id, Stage.RETIRED)
    assert bench.store.credentials_by_id([]) == ()


def test_a_credential_is_found_by_the_name_that_its_login_has_on_a_server(bench: Bench, resource: Resource) -> None:
    old = previous(bench, resource)
    new = current(bench)

    def found(*ids: str, server: str = SERVER.name) -> set[str]:
        return {one.id for one in bench.store.credentials_by_id(ids, server=server, usernames=[old.username, "nobody"])}

    assert found() == found(old.id) == {old.id}
    assert found(new.id) == {old.id, new.id}
    assert found(new.id, server="another server") == {new.id}
    bench.advance(2 * DAY)
    case = present(bench.store.claim_credential(old.id))
    case = present(bench.store.record_credential(case, blocked(case)))
    assert found() == {old.id}
    bench.store.record_credential(case, retired(case))
    assert found() == set()


def test_no_login_of_a_resource_that_we_hold_must_work(bench: Bench, resource: Resource) -> None:
    hold(bench, resource, "the store was set back")
    held = bench.store.resource(resource.id)
    assert (held.state, held.held_because, held.held_over_pause) == (ResourceState.PAUSED, "the store was set back", True)
    assert stages(bench) == []
    move = Move(event("resource_resumed"), resource_state=ResourceState.ACTIVE)
    bench.store.amend(resource.id, lambda _: (move, None))
    resumed = bench.store.resource(resource.id)
    assert (resumed.held_because, resumed.held_over_pause) == ("", False)
    assert stages(bench) == [Stage.CURRENT]


def hold(bench: Bench, resource: Resource, why: str) -> None:
    move = Move(event("resource_held"), resource_state=ResourceState.PAUSED, held_because=why, held_over_pause=True)
    bench.store.amend(resource.id, lambda _: (move, None))


def test_resources_are_listed_with_their_highest_generation(bench: Bench, resource: Resource) -> None:
    other = register(bench, "store_2")
    begin(bench, resource, "planned")
    listed = {one.resource.id: (one.generations, one.under_way) for one in bench.store.standings(SERVER.name)}
    assert listed == {resource.id: (2, True), other.id: (1, False)}
    assert bench.store.standings("another server") == ()
    (mine,) = (one.resource for one in bench.store.standings(SERVER.name) if one.resource.id == resource.id)
    assert mine == bench.store.resource(resource.id)


def test_resources_are_listed_by_what_the_names_of_their_logins_begin_with(bench: Bench, resource: Resource) -> None:
    renamed = replace(resource.spec, database=replace(resource.spec.database, login_prefix="renamed"))
    other = register(bench, "store_2")
    bench.store.revise(resource.id, renamed, resource.schedule, event("resource_revised"))

    def listed(*prefixes: str) -> set[str]:
        return {one.resource.id for one in bench.store.standings(SERVER.name, prefixes)}

    assert listed("renamed") == {resource.id}
    assert listed("renamed", other.spec.database.login_prefix) == {resource.id, other.id}
    assert listed() == listed("nobodys") == set()
    assert bench.store.standings("another server", ["renamed"]) == ()


# Looks


def test_a_server_is_looked_at_once_in_a_while_and_sooner_when_that_was_asked(bench: Bench, resource: Resource) -> None:
    assert resource.server == SERVER
    assert bench.store.due_looks(10) == (SERVER.name,)
    assert bench.store.due_looks(10) == ()
    bench.advance(bench.store.terms.look)
    assert bench.store.due_looks(10) == (SERVER.name,)
    bench.store.note_look(SERVER.name, orphans=2, again=timedelta(seconds=10))
    bench.advance(timedelta(seconds=9))
    assert bench.store.due_looks(10) == ()
    bench.advance(timedelta(seconds=2))
    assert bench.store.due_looks(10) == (SERVER.name,)
    bench.store.note_look(SERVER.name, orphans=0)
    assert bench.store.due_looks(10) == ()
    assert bench.store.due_servers(10) == (SERVER.name,)


def test_a_server_without_resources_is_not_looked_at(bench: Bench) -> None:
    assert bench.store.due_looks(10) == ()


def test_what_looking_tells_is_noted_and_no_move_writes_it(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    login = current(bench)
    bench.store.note_tried([login.id])
    bench.store.note_astray([login.id])
    first = bench.credential(login.id)
    assert first.tried_at is not None
    assert first.astray_at is not None
    assert first.fence == login.fence
    bench.advance(MINUTE)
    bench.store.note_astray([login.id])
    since = present(bench.credential(login.id).astray_at)
    assert bench.store.now() - since >= MINUTE
    assert bench.store.record_rotation(case, completed(case)) is None
    after = bench.credential(login.id)
    assert after.stage is Stage.PREVIOUS
    assert after.astray_at is not None
    assert after.tried_at is not None


def test_what_is_astray_is_sent_once_in_a_while_in_the_order_that_was_asked_for(bench: Bench, resource: Resource) -> None:
    others = [register(bench, f"store_{number}") for number in range(2, 5)]
    ids = [one.id for one in reversed(bench.store.owed_logins(SERVER.name))]
    assert len(ids) == len((resource, *others))
    assert bench.store.hint_astray(ids, 0) == ()
    assert bench.store.hint_astray([*ids, "cred_unknown"], 3) == tuple(ids[:3])
    assert bench.store.hint_astray(ids, 3) == tuple(ids[3:])
    assert bench.store.hint_astray(ids, 3) == ()
    bench.store.note_astray(ids)
    assert bench.store.begin_mending(ids[1]) is not None
    assert bench.store.hint_astray(ids, 3) == (ids[1],)
    bench.advance(bench.store.terms.hint)
    assert bench.store.hint_astray(ids, len(ids)) == tuple(ids)


def test_what_was_sent_to_be_put_right_is_sent_to_its_end_when_that_comes(bench: Bench, resource: Resource) -> None:
    old = previous(bench, resource)
    assert bench.store.hint_astray([old.id], 1) == (old.id,)

    bench.store.amend(resource.id, lambda case: (Move(event("x"), credentials=_due(case, old.id)), None))

    assert bench.store.due_credentials(10) == (old.id,)


# Putting right


def test_only_what_is_astray_is_put_right_and_by_one_at_a_time(bench: Bench, resource: Resource) -> None:
    login = current(bench)
    assert bench.store.begin_mending(login.id) is None
    assert bench.store.begin_mending("cred_unknown") is None
    bench.store.note_astray([login.id])
    started = bench.store.clock.monotonic()
    case = present(bench.store.begin_mending(login.id))
    assert case.claim.deadline.at == started + bench.store.terms.mending.total_seconds()
    assert case.resource.id == resource.id
    assert [one.id for one in case.credentials] == [login.id]
    assert present(case.credential.mending_until) >= case.now + bench.store.terms.mending
    assert bench.store.begin_mending(login.id) is None
    bench.advance(bench.store.terms.mending)
    assert bench.store.begin_mending(login.id) is not None


def test_a_healing_of_a_clock_that_was_ahead_is_taken_over_and_waited_for_no_longer_than_a_claim(bench: Bench, resource: Resource) -> None:
    old = previous(bench, resource)
    bench.store.note_astray([old.id])
    bench.jump(HOUR)
    assert bench.store.begin_mending(old.id) is not None
    bench.jump(-HOUR)
    again = present(bench.store.begin_mending(old.id))
    assert present(again.credential.mending_until) <= bench.store.now() + bench.store.terms.mending

    bench.jump(HOUR)
    assert bench.store.begin_mending(old.id) is not None
    bench.jump(-HOUR)
    bench.store.amend(resource.id, lambda case: (Move(event("x"), credentials=_due(case, old.id)), None))
    case = present(bench.store.claim_credential(old.id))
    assert case.now < present(case.credential.mending_until) <= case.now + bench.store.terms.claim
    assert bench.credential(old.id).mending_until == case.credential.mending_until


def _due(case: ResourceCase, credential_id: str) -> tuple[Credential, ...]:
    return tuple(replace(one, due_at=case.now) for one in case.credentials if one.id == credential_id)


def test_what_was_not_begun_after_all_is_left_to_another_at_once(bench: Bench, resource: Resource) -> None:
    login = current(bench)
    bench.store.note_astray([login.id])
    earlier = present(bench.store.begin_mending(login.id)).credential
    bench.advance(bench.store.terms.mending)
    later = present(bench.store.begin_mending(login.id)).credential
    bench.store.leave_mending(earlier)
    assert bench.store.begin_mending(login.id) is None, "it is another's by now"
    bench.store.leave_mending(later)
    left = bench.credential(login.id)
    assert left.mending_until is None
    assert left.astray_at is not None
    assert bench.store.begin_mending(login.id) is not None


def test_it_ends_once_with_one_event(bench: Bench, resource: Resource) -> None:
    login = current(bench)
    bench.store.note_astray([login.id])
    assert bench.store.end_mending(login.id, event("credential_healed"))
    assert not bench.store.end_mending(login.id, event("credential_healed"))
    assert not bench.store.end_mending("cred_unknown", event("credential_healed"))
    assert bench.credential(login.id).astray_at is None
    assert bench.kinds(resource.id).count("credential_healed") == 1
    assert bench.about(resource.id)[-1] == (None, login.id)
    bench.store.note_astray([login.id])
    assert bench.store.end_mending(login.id, None)
    assert bench.kinds(resource.id).count("credential_healed") == 1


def test_it_waits_for_whoever_holds_the_row(bench: Bench, resource: Resource) -> None:
    old = previous(bench, resource)
    bench.store.note_astray([old.id])
    bench.advance(DAY - MINUTE)

    def extend(case: ResourceCase) -> tuple[Move, None]:
        row = next(one for one in case.credentials if one.id == old.id)
        return Move(event("x"), credentials=(replace(row, grace_ends_at=case.now + DAY, due_at=case.now),)), None

    bench.store.amend(resource.id, extend)
    assert bench.store.claim_credential(old.id) is not None
    assert bench.store.begin_mending(old.id) is None
    bench.advance(MINUTE)
    assert bench.store.begin_mending(old.id) is not None


def test_whoever_takes_the_login_away_sees_that_it_is_being_put_right(bench: Bench, resource: Resource) -> None:
    old = previous(bench, resource)
    bench.store.note_astray([old.id])
    bench.advance(DAY - timedelta(seconds=5))
    mending = present(bench.store.begin_mending(old.id))
    bench.advance(timedelta(seconds=6))
    case = present(bench.store.claim_credential(old.id))
    assert present(case.credential.mending_until) > case.now
    assert case.credential.fence == mending.credential.fence + 1


def test_it_disturbs_no_rotation(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    bench.store.note_astray([current(bench).id])
    assert bench.store.begin_mending(current(bench).id) is not None
    assert bench.store.end_mending(current(bench).id, event("credential_healed"))
    assert bench.store.record_rotation(case, completed(case)) is None
    assert stages(bench) == [Stage.PREVIOUS, Stage.CURRENT]


def test_what_is_noted_astray_and_then_need_not_work_is_not_put_right(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned")
    new = case.credential.id
    bench.store.note_astray([new])
    assert bench.store.begin_mending(new) is None
    bench.store.record_rotation(case, failed(case))
    assert bench.store.begin_mending(new) is None
    login = current(bench)
    bench.store.note_astray([login.id])
    hold(bench, resource, "the store was set back")
    assert bench.store.begin_mending(login.id) is None


def test_what_has_ended_may_be_removed_again(bench: Bench, resource: Resource) -> None:
    old = previous(bench, resource)
    bench.advance(2 * DAY)
    case = present(bench.store.claim_credential(old.id))
    case = present(bench.store.record_credential(case, blocked(case)))
    bench.store.record_credential(case, retired(case))
    bench.store.note_astray([old.id])
    again = present(bench.store.begin_mending(old.id))
    assert again.credential.stage is Stage.RETIRED
    assert [one.stage for one in again.credentials] == [Stage.CURRENT]


# Logins that were found


def test_a_login_that_was_found_gets_its_row_and_the_generations_go_on_above_it(bench: Bench, resource: Resource) -> None:
    def take_in(case: ResourceCase) -> tuple[Move, int]:
        found = credential(resource.id, 7, Stage.PREVIOUS, case.now)
        found = replace(found, sealed_password=None, sealed_verifier=None, found_at=case.now)
        return Move(event("resource_restored"), found=(found,)), case.generations

    assert bench.store.amend(resource.id, take_in) == 1
    (found,) = (one for one in bench.store.owed_logins(SERVER.name) if one.generation == 7)
    assert found.found_at is not None
    assert begin(bench, resource).generations == 7
    with pytest.raises(Conflict):
        bench.store.amend(resource.id, take_in)


def test_the_newest_one_takes_the_place_of_a_current_login_that_is_gone(bench: Bench, resource: Resource) -> None:
    def take_in(case: ResourceCase) -> tuple[Move, None]:
        gone = replace(case.credentials[0], stage=Stage.PREVIOUS, previous_at=case.now, grace_ends_at=case.now, due_at=case.now)
        found = replace(credential(resource.id, 7, Stage.CURRENT, case.now), found_at=case.now)
        return Move(event("resource_restored"), credentials=(gone,), found=(found,)), None

    bench.store.amend(resource.id, take_in)
    assert current(bench).generation == 7


def test_a_login_that_was_found_belongs_to_its_own_resource(bench: Bench, resource: Resource) -> None:
    theirs = credential(fresh("res"), 7, Stage.PREVIOUS, bench.store.now())
    with pytest.raises(IllegalMove):
        bench.store.amend(resource.id, lambda _: (Move(event("x"), found=(theirs,)), None))


def test_a_push_that_is_presumed_counts_as_on_its_way_until_its_time_is_over(bench: Bench, resource: Resource) -> None:
    rotation_id = bench.store.amend(resource.id, ask)

    def presume(case: ResourceCase) -> tuple[Move, None]:
        lost = Attempt(
            id=fresh("att"),
            resource_id=resource.id,
            rotation_id=rotation_id,
            credential_id=case.credentials[0].id,
            number=0,
            state=AttemptState.UNKNOWN,
            opened_at=case.now,
            send_before=case.now,
            expires_at=case.now + 5 * MINUTE,
            clean=False,
            fence=0,
            note="lost",
        )
        return Move(event("resource_restored"), presumed=lost), None

    bench.store.amend(resource.id, presume)
    case = present(bench.store.claim_rotation(rotation_id))
    for step in (planned, verified, offered):
        case = present(bench.store.record_rotation(case, step(case)))
    assert [(one.number, one.state, one.clean) for one in case.attempts] == [
        (1, AttemptState.UNKNOWN, True),
        (2, AttemptState.OPEN, False),
    ]
    bench.store.record_rotation(case, Wait(until=case.now + 6 * MINUTE))
    bench.advance(6 * MINUTE)
    case = bench.store.open_attempt(present(bench.store.claim_rotation(rotation_id)), TERMS)
    assert case.attempts[-1].clean


def test_a_claim_of_before_is_lost_when_the_resource_is_brought_on(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned")

    def go_past(known: ResourceCase) -> tuple[Move, None]:
        ended = replace(present(known.open_rotation), state=case.rotation.state.FAILED, ended_at=known.now, due_at=None)
        kept = next(one for one in known.credentials if one.stage is Stage.PENDING)
        return Move(event("resource_restored"), superseded=ended, credentials=(replace(kept, stage=Stage.PREVIOUS, due_at=None),)), None

    bench.store.amend(resource.id, go_past)
    with pytest.raises(LostClaim):
        bench.store.record_rotation(case, Wait(None))
