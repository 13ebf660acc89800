"""What every store keeps of alarms: those of rows, those of what has no row, and how many stand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rotation.cases import Move, Wait
from rotation.states import Alarm, ResourceState, RotationState, Stage
from tests.store_benches import DAY, MINUTE, begin, complete
from tests.store_samples import SERVER, ask, blocked, completed, event, failed, planned, present, retired

if TYPE_CHECKING:
    from datetime import timedelta

    from rotation.cases import RotationCase
    from rotation.model import Resource
    from tests.store_benches import Bench


def test_a_rotation_keeps_its_alarm_until_it_moves_on(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    rotation_id = case.rotation.id
    waiting = Wait(case.now, setback=True, problem="no answer", alarm=Alarm.OFFER_STANDING_TOO_LONG)
    case = present(bench.store.record_rotation(case, waiting))
    assert case.rotation.alarm == bench.rotation(rotation_id).alarm == "offer_standing_too_long"
    assert bench.alarms() == {"offer_standing_too_long": 1}
    bench.store.record_rotation(case, replace(completed(case), rotation=replace(present(completed(case).rotation), alarm=None)))
    assert bench.rotation(rotation_id).alarm is None
    assert bench.alarms() == {}


def test_a_wait_without_an_alarm_takes_the_last_one_back(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned")
    case = present(bench.store.record_rotation(case, Wait(case.now, alarm=Alarm.KEY_MISSING)))
    assert bench.alarms() == {"key_missing": 1}
    bench.store.record_rotation(case, Wait(case.now + DAY))
    assert bench.alarms() == {}


def test_a_credential_keeps_its_alarm_until_it_moves_on(bench: Bench, resource: Resource) -> None:
    complete(bench, resource)
    bench.advance(2 * DAY)
    (old,) = bench.store.due_credentials(10)
    case = present(bench.store.claim_credential(old))
    bench.store.record_credential(case, Wait(case.now, problem="used", alarm=Alarm.CREDENTIAL_STILL_USED))
    assert bench.alarms() == {"credential_still_used": 1}
    bench.advance(2 * MINUTE)
    case = present(bench.store.claim_credential(old))
    assert case.credential.alarm == "credential_still_used"
    move = blocked(case)
    case = present(bench.store.record_credential(case, replace(move, credentials=(replace(move.credentials[0], alarm=None),))))
    assert bench.alarms() == {}
    bench.store.record_credential(case, retired(case))


def test_the_alarm_of_a_rotation_that_failed_stands_until_the_resource_completes_one(bench: Bench, resource: Resource) -> None:
    for alarm in (Alarm.ROTATION_FAILED, Alarm.NAME_CLASH):
        case = begin(bench, resource, "planned")
        move = failed(case)
        bench.store.record_rotation(case, replace(move, rotation=replace(present(move.rotation), alarm=alarm)))
        assert bench.alarms() == {str(alarm): 1}
    complete(bench, resource)
    assert bench.alarms() == {}


def test_a_push_that_failed_is_an_alarm_though_its_resource_is_not_failing(bench: Bench, resource: Resource) -> None:
    complete(bench, resource)
    case = begin(bench, resource)
    move = failed(case)
    ended = replace(present(move.rotation), alarm=Alarm.ROTATION_FAILED)
    bench.store.record_rotation(case, replace(move, rotation=ended, schedule=None))
    assert bench.alarms() == {"rotation_failed": 1}
    complete(bench, resource)
    assert bench.alarms() == {}


def test_the_alarm_of_a_resource_that_was_found_missing_stands_until_it_is_gone(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource)
    move = failed(case)
    ended = replace(present(move.rotation), alarm=Alarm.RESOURCE_MISSING)
    leaving = replace(move, rotation=ended, schedule=None, resource_state=ResourceState.LEAVING)
    bench.store.record_rotation(case, leaving)
    assert bench.alarms() == {"resource_missing": 1}


def test_a_follow_up_that_loses_its_object_does_not_hide_that_the_resource_is_missing(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    follow_up_id = bench.store.amend(resource.id, ask)
    lost = abandoned(case, Alarm.RESOURCE_MISSING)
    assert bench.store.record_rotation(case, replace(lost, resource_state=ResourceState.LEAVING)) is None
    case = present(bench.store.claim_rotation(follow_up_id))
    bench.store.record_rotation(case, abandoned(case, None))
    assert bench.alarms() == {"resource_missing": 1}


def test_what_failed_before_does_not_stand_again_when_the_resource_leaves(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned")
    move = failed(case)
    bench.store.record_rotation(case, replace(move, rotation=replace(present(move.rotation), alarm=Alarm.ROTATION_FAILED)))
    complete(bench, resource)
    bench.store.amend(resource.id, lambda _: (Move(event("resource_leaving"), resource_state=ResourceState.LEAVING), None))
    assert bench.alarms() == {}


def abandoned(case: RotationCase, alarm: Alarm | None) -> Move:
    rotation = replace(case.rotation, state=RotationState.ABANDONED, ended_at=case.now, due_at=None, alarm=alarm)
    return Move(event("rotation_abandoned"), rotation=rotation)


def test_a_parked_installation_is_one_alarm_whatever_waits_for_it(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    bench.store.record_rotation(case, Wait(case.now + DAY, alarm=Alarm.INSTALLATION_PARKED, parks="Vercel refused its token: 401"))
    assert bench.alarms() == {"installation_parked": 1}
    bench.store.unpark("icfg_1", event("installation_unparked"))
    assert bench.alarms() == {}


def test_a_wait_may_give_back_its_place_in_the_rate_limit(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified")
    place = case.now + MINUTE
    case = present(bench.store.record_rotation(case, Wait(case.now, reserved_at=place)))
    assert case.rotation.reserved_at == place
    case = present(bench.store.record_rotation(case, Wait(case.now, returns_place=True)))
    assert case.rotation.reserved_at is None
    assert bench.rotation(case.rotation.id).reserved_at is None


def test_an_alarm_without_a_row_stands_for_a_while_and_is_told_once(bench: Bench) -> None:
    def raised(*, stands: timedelta = 5 * MINUTE, told_again: timedelta = 30 * MINUTE) -> bool:
        return bench.store.raise_alarm(Alarm.SERVER_UNREACHABLE, "pg-eu-1", "no answer", stands=stands, told_again=told_again)

    assert [raised(), raised()] == [True, False]
    assert bench.store.raise_alarm(Alarm.SERVER_UNREACHABLE, "pg-eu-2", "no answer")
    assert bench.alarms() == {"server_unreachable": 2}
    for _ in range(6):
        bench.advance(4 * MINUTE)
        assert not raised()
    assert bench.alarms() == {"server_unreachable": 1}
    bench.advance(8 * MINUTE)
    assert bench.alarms() == {}
    assert raised()


def test_an_alarm_that_goes_on_is_told_again_now_and_then(bench: Bench) -> None:
    told = []
    for _ in range(10):
        told.append(bench.store.raise_alarm("server_unreachable", "pg-eu-1", "no answer", stands=DAY, told_again=30 * MINUTE))
        bench.advance(10 * MINUTE)
    assert told == [True, False, False, True, False, False, True, False, False, True]


def test_an_alarm_that_is_over_stands_no_more_and_ending_it_twice_is_harmless(bench: Bench) -> None:
    bench.store.raise_alarm("server_unreachable", "pg-eu-1", "no answer")
    for _ in range(2):
        bench.store.end_alarm("server_unreachable", "pg-eu-1")
    assert bench.alarms() == {}
    assert bench.store.raise_alarm("server_unreachable", "pg-eu-1", "no answer")


def test_planning_anew_after_a_failure_does_not_hide_that_it_failed(bench: Bench, resource: Resource) -> None:
    case = begin(bench, resource, "planned")
    move = failed(case)
    bench.store.record_rotation(case, replace(move, rotation=replace(present(move.rotation), alarm=Alarm.ROTATION_FAILED)))
    case = begin(bench, resource)
    bench.store.record_rotation(case, planned(case))
    assert bench.alarms() == {"rotation_failed": 1}


# Those of the healer


def current(bench: Bench) -> str:
    return next(one.id for one in bench.store.owed_logins(SERVER.name) if one.stage is Stage.CURRENT)


def test_a_login_that_is_lost_is_an_alarm_until_it_is_put_right(bench: Bench, resource: Resource) -> None:
    lost = current(bench)
    bench.store.note_astray([lost])
    assert bench.alarms() == {"login_lost": 1}
    assert bench.store.begin_mending(lost) is not None
    assert bench.alarms() == {"login_lost": 1}
    bench.advance(2 * MINUTE)
    assert bench.alarms() == {"login_lost": 1, "login_not_healed": 1}
    assert bench.store.begin_mending(lost) is not None, "it is tried again"
    assert bench.alarms() == {"login_lost": 1, "login_not_healed": 1}
    bench.store.end_mending(lost, event("credential_healed"))
    assert bench.alarms() == {}
    bench.advance(2 * MINUTE)
    bench.store.note_astray([lost])
    bench.advance(2 * MINUTE)
    assert bench.alarms() == {"login_lost": 1}, "that an earlier loss was hard to put right says nothing of this one"


def test_a_login_that_comes_back_after_its_end_is_an_alarm_and_one_that_was_lost_before_is_none(bench: Bench, resource: Resource) -> None:
    complete(bench, resource)
    old = next(one.id for one in bench.store.owed_logins(SERVER.name) if one.stage is Stage.PREVIOUS)
    bench.store.note_astray([old])
    assert bench.alarms() == {"login_lost": 1}
    bench.advance(2 * DAY)
    case = present(bench.store.claim_credential(old))
    case = present(bench.store.record_credential(case, blocked(case)))
    bench.store.record_credential(case, retired(case))
    bench.advance(MINUTE)
    assert bench.alarms() == {}
    bench.store.end_mending(old, None)
    bench.store.note_astray([old])
    assert bench.alarms() == {"login_revived": 1}
    bench.store.end_mending(old, event("credential_removed_again"))
    assert bench.alarms() == {}


def test_logins_without_a_row_are_an_alarm_each_until_a_look_finds_none(bench: Bench, resource: Resource) -> None:
    bench.store.note_look(SERVER.name, orphans=3)
    assert bench.alarms() == {"orphan_found": 3}
    bench.store.note_look(SERVER.name, orphans=0)
    assert bench.alarms() == {}


def test_a_resource_that_is_held_is_an_alarm_and_one_that_a_person_paused_is_none(bench: Bench, resource: Resource) -> None:
    paused = Move(event("resource_paused"), resource_state=ResourceState.PAUSED)
    bench.store.amend(resource.id, lambda _: (paused, None))
    assert bench.alarms() == {}
    bench.store.amend(resource.id, lambda _: (replace(paused, held_because="the store was set back"), None))
    assert bench.alarms() == {"resource_held": 1}
    bench.store.amend(resource.id, lambda _: (Move(event("resource_resumed"), resource_state=ResourceState.ACTIVE), None))
    assert bench.alarms() == {}
