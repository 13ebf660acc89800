"""How soon things must come to their end, as the chaos run judges it from the store's dates."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from rotation.model import Credential, Rotation
from rotation.states import InUse, RotationState, Stage
from tests.chaos.deadlines import Took, end_after_emergency, ends_of_graces, ends_of_rotations, longer_than, seconds_of
from tests.fakes.clock import START
from tests.store_samples import credential

OVER = START + timedelta(minutes=10)


def after(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def rotation(requested: float, ended: float | None) -> Rotation:
    """One that was asked for, and ended, so many seconds after the end of the chaos."""
    state = RotationState.REQUESTED if ended is None else RotationState.COMPLETED
    end = None if ended is None else OVER + after(ended)
    return Rotation("rot_1", "res_1", 1, state, urgent=False, requested_at=OVER + after(requested), ended_at=end)


def retired(grace_ends: float, blocked: float | None, **more: object) -> Credential:
    """One whose grace ended, and that was blocked, so many seconds after the end of the chaos."""
    return replace(
        credential("res_1", 1, Stage.RETIRED if blocked is not None else Stage.PREVIOUS, START, "orders_1"),
        grace_ends_at=OVER + after(grace_ends),
        blocked_at=None if blocked is None else OVER + after(blocked),
        **more,  # type: ignore[arg-type]  # any of its fields
    )


def test_rotations_count_from_the_end_of_the_chaos_if_they_had_come_in_before_and_not_ended() -> None:
    ends = ends_of_rotations([rotation(-5, -1), rotation(-5, 70), rotation(-5, None), rotation(5, 70)], OVER)
    assert list(ends) == [Took("rot_1", 70.0), Took("rot_1", None)]


def test_what_took_too_long_and_what_never_ended_is_told() -> None:
    ends = [Took("rot_1", 60.0), Took("rot_2", 61.0), Took("rot_3", None)]
    assert list(longer_than(60, ends)) == ["rot_2 took 61 s", "rot_3 has not ended"]
    assert list(seconds_of(ends)) == [60.0, 61.0]


def test_a_login_that_was_blocked_in_the_chaos_counts_from_the_end_of_its_grace() -> None:
    ends = ends_of_graces([retired(-100, -10)], OVER)
    assert (ends.meanwhile, ends.afterwards) == ((Took("orders_1", 90.0),), ())


def test_a_login_that_outlives_the_chaos_counts_from_the_end_of_the_chaos_or_of_its_grace_whatever_is_later() -> None:
    ends = ends_of_graces([retired(-100, 10), retired(8, 10), retired(-100, None)], OVER)
    assert (ends.meanwhile, ends.afterwards) == ((), (Took("orders_1", 10.0), Took("orders_1", 2.0), Took("orders_1", None)))


def test_a_login_that_is_used_counts_from_when_it_was_quiet_unless_nothing_waits_for_its_use() -> None:
    used = {"last_seen_at": OVER + after(10), "quiet": timedelta(seconds=5)}
    ends = ends_of_graces([retired(8, 16, **used), retired(8, 16, in_use=InUse.PROCEED, **used)], OVER)
    assert [one.seconds for one in ends.afterwards] == [1.0, 8.0]


def test_a_login_whose_grace_has_no_end_is_not_late() -> None:
    superseded = replace(retired(0, None), grace_ends_at=None)
    assert ends_of_graces([superseded], OVER).afterwards == ()


def test_an_emergency_is_over_when_the_login_is_blocked_that_was_current_when_it_was_asked_for() -> None:
    before = replace(retired(-60, -50), current_at=START, previous_at=OVER - after(70))
    then = replace(retired(3, 4), current_at=OVER - after(70), previous_at=OVER + after(3))
    later = replace(retired(30, 31), current_at=OVER + after(3), previous_at=OVER + after(30))
    assert list(end_after_emergency([before, then, later], OVER)) == [Took("orders_1", 4.0)]


def test_an_emergency_of_a_login_that_the_customer_had_before_us_is_seen_as_well() -> None:
    adopted = replace(retired(3, None), adopted=True, previous_at=OVER + after(3))
    assert list(end_after_emergency([adopted], OVER)) == [Took("orders_1", None)]
