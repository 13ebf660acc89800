"""Back-off, giving up, grace, use, and the faults of a policy."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation import policy as decide
from rotation.model import Credential, Policy, Request, Window
from rotation.policy import Grace, Setback
from rotation.states import InUse, Stage, Trigger

NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOTHING = timedelta(0)


def request(trigger: Trigger, grace: timedelta | None = None) -> Request:
    return Request("q1", "r1", trigger, "someone", NOW, grace=grace)


def credential(grace_ends_at: datetime | None = None, *, compromised: bool = False) -> Credential:
    return Credential("c1", "r1", 1, "u", Stage.PREVIOUS, None, None, NOW, compromised=compromised, grace_ends_at=grace_ends_at)


SCHEDULE, MANUAL, VERCEL = request(Trigger.SCHEDULE), request(Trigger.MANUAL), request(Trigger.VERCEL)
EMERGENCY = request(Trigger.EMERGENCY)


@pytest.mark.parametrize(
    ("failures", "minutes"),
    [(1, 15), (2, 30), (3, 60), (4, 120), (7, 960), (8, 1440), (9, 1440), (100_000, 1440)],
)
def test_a_failed_rotation_is_tried_again_after_fifteen_minutes_doubling_to_a_day(failures: int, minutes: int) -> None:
    assert decide.after_failure(Policy(), "r1", failures, NOW, urgent=False).at == NOW + timedelta(minutes=minutes)


def test_a_retry_waits_for_the_window_unless_it_is_urgent() -> None:
    policy = Policy(window=Window(time(1), time(5)))
    dated = decide.after_failure(policy, "r1", 1, NOW, urgent=False)
    assert dated.at == datetime(2026, 11, 3, 1, 0, tzinfo=UTC)
    assert dated.reason.startswith("15 minutes after failure 1 in a row; moved from")
    assert decide.after_failure(policy, "r1", 1, NOW, urgent=True).at == NOW + timedelta(minutes=15)


@given(st.integers(1, 10**9), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_a_setback_is_full_jitter_up_to_a_doubling_cap(tries: int, urgent: bool, draw: float) -> None:  # noqa: FBT001  # hypothesis
    cap = timedelta(seconds=15) if urgent else timedelta(minutes=5)
    delay = decide.setback(tries, urgent=urgent, draw=draw)
    assert NOTHING <= delay <= cap
    assert delay <= decide.setback(tries + 1, urgent=urgent, draw=draw)


@pytest.mark.parametrize(
    ("tries", "urgent", "longest"),
    [(1, False, 1), (2, False, 2), (6, False, 32), (10, False, 300), (1, True, 0.5), (4, True, 4), (9, True, 15)],
)
def test_setbacks_double(tries: int, urgent: bool, longest: float) -> None:  # noqa: FBT001  # parametrized
    assert decide.setback(tries, urgent=urgent, draw=0.5) == timedelta(seconds=longest / 2)
    assert decide.setback(tries, urgent=urgent, draw=0) == NOTHING


@pytest.mark.parametrize(
    ("kind", "tries", "since", "ends"),
    [
        (Setback.REFUSED, 1, NOTHING, True),
        (Setback.UNVERIFIED, 5, DAY, False),
        (Setback.UNVERIFIED, 6, NOTHING, True),
        (Setback.UNAVAILABLE, 100, timedelta(minutes=59), False),
        (Setback.UNAVAILABLE, 20, HOUR, True),
        (Setback.UNAVAILABLE, 1, DAY, False),
    ],
)
def test_giving_up_before_the_offer(kind: Setback, tries: int, since: timedelta, ends: bool) -> None:  # noqa: FBT001  # parametrized
    assert bool(decide.give_up(kind, tries, since=NOW - since, now=NOW)) is ends


@pytest.mark.parametrize(
    ("requests", "duration", "explicit"),
    [
        ([], DAY, False),
        ([SCHEDULE], DAY, False),
        ([MANUAL], DAY, False),
        ([VERCEL], HOUR, False),
        ([VERCEL, SCHEDULE], DAY, False),
        ([request(Trigger.VERCEL, 2.5 * HOUR)], 2.5 * HOUR, True),
        ([request(Trigger.VERCEL, 2.5 * HOUR), SCHEDULE], 2.5 * HOUR, True),
        ([request(Trigger.MANUAL, 3 * DAY), VERCEL], 3 * DAY, True),
        ([request(Trigger.MANUAL, 2 * HOUR), request(Trigger.VERCEL, 3 * HOUR)], 3 * HOUR, True),
        ([request(Trigger.VERCEL, NOTHING)], NOTHING, True),
        ([request(Trigger.VERCEL, NOTHING), request(Trigger.MANUAL, HOUR)], HOUR, True),
        ([request(Trigger.SCHEDULE, NOTHING)], DAY, False),
        ([EMERGENCY, request(Trigger.MANUAL, 3 * DAY)], NOTHING, True),
    ],
)
def test_grace_by_what_was_asked(requests: list[Request], duration: timedelta, *, explicit: bool) -> None:
    grace = decide.grace(Policy(), requests)
    assert (grace.duration, grace.explicit) == (duration, explicit)
    assert grace.reason


REQUESTS = st.lists(
    st.builds(request, st.sampled_from([Trigger.SCHEDULE, Trigger.MANUAL, Trigger.VERCEL]), st.none() | st.timedeltas(NOTHING, 30 * DAY)),
)


@given(REQUESTS, REQUESTS)
def test_grace_does_not_depend_on_the_order_and_an_emergency_always_ends_it(some: list[Request], more: list[Request]) -> None:
    one, other = decide.grace(Policy(), some + more), decide.grace(Policy(), more + some)
    assert (one.duration, one.explicit) == (other.duration, other.explicit)
    assert decide.grace(Policy(), [*some, EMERGENCY, *more]).duration == NOTHING


@pytest.mark.parametrize(
    ("older", "grace", "end"),
    [
        (credential(), Grace(DAY, explicit=False, reason=""), NOW + DAY),
        (credential(), Grace(HOUR, explicit=True, reason=""), NOW + HOUR),
        (credential(NOW + 2 * HOUR), Grace(HOUR, explicit=False, reason=""), NOW + 2 * HOUR),
        (credential(NOW + 2 * HOUR), Grace(HOUR, explicit=True, reason=""), NOW + HOUR),
        (credential(NOW + 2 * HOUR), Grace(DAY, explicit=True, reason=""), NOW + 2 * HOUR),
        (credential(NOW - HOUR), Grace(NOTHING, explicit=True, reason=""), NOW - HOUR),
        (credential(NOW + 2 * HOUR), Grace(NOTHING, explicit=True, reason=""), NOW),
        (credential(compromised=True), Grace(DAY, explicit=True, reason=""), NOW),
        (credential(NOW + DAY, compromised=True), Grace(DAY, explicit=False, reason=""), NOW),
        (credential(NOW - DAY, compromised=True), Grace(DAY, explicit=False, reason=""), NOW - DAY),
    ],
)
def test_the_end_of_grace_of_each_older_credential(older: Credential, grace: Grace, end: datetime) -> None:
    assert decide.grace_end(older, NOW, grace).at == end


@given(st.none() | st.timedeltas(-DAY, 60 * DAY), st.timedeltas(NOTHING, 60 * DAY), st.booleans())
def test_a_promised_end_is_never_put_off(promised: timedelta | None, duration: timedelta, explicit: bool) -> None:  # noqa: FBT001  # hypothesis
    existing = None if promised is None else NOW + promised
    end = decide.grace_end(credential(existing), NOW, Grace(duration, explicit=explicit, reason="")).at
    assert existing is None or end <= existing
    assert end == existing or end == NOW + duration
    assert explicit or existing is None or end == existing


@pytest.mark.parametrize(
    ("requests", "rule", "cap"),
    [
        ([SCHEDULE], InUse.WAIT, 3 * DAY),
        ([MANUAL], InUse.WAIT, 3 * DAY),
        ([VERCEL, SCHEDULE], InUse.PROCEED, None),
        ([EMERGENCY, SCHEDULE], InUse.PROCEED, None),
    ],
)
def test_what_to_do_while_it_is_still_used(requests: list[Request], rule: InUse, cap: timedelta | None) -> None:
    decided = decide.in_use_rule(Policy(in_use_cap=3 * DAY), requests)
    assert (decided.rule, decided.cap) == (rule, cap)


def test_an_emergency_never_waits_whatever_the_policy_says() -> None:
    stubborn = Policy(in_use=InUse.WAIT, in_use_vercel=InUse.WAIT)
    assert decide.in_use_rule(stubborn, [EMERGENCY, VERCEL]).rule is InUse.PROCEED
    assert decide.in_use_rule(stubborn, [VERCEL]).rule is InUse.WAIT
    assert decide.in_use_rule(stubborn, [VERCEL], compromised=True).rule is InUse.PROCEED


def test_blocked_time_is_the_policys_but_for_an_emergency() -> None:
    assert decide.blocked_for(Policy(), [SCHEDULE]) == timedelta(minutes=10)
    assert decide.blocked_for(Policy(), [SCHEDULE, EMERGENCY]) == NOTHING
    assert decide.blocked_for(Policy(), [SCHEDULE], compromised=True) == NOTHING


def test_quiet_is_at_most_half_of_the_grace() -> None:
    assert decide.quiet(Policy(), DAY) == 6 * HOUR
    assert decide.quiet(Policy(), HOUR) == timedelta(minutes=30)
    assert decide.quiet(Policy(), NOTHING) == NOTHING


@pytest.mark.parametrize(
    ("seen", "used"),
    [(None, False), (NOW, True), (NOW - timedelta(minutes=59), True), (NOW - HOUR, False), (NOW + HOUR, True)],
)
def test_in_use_means_seen_within_the_quiet_time(seen: datetime | None, *, used: bool) -> None:
    verdict = decide.in_use(seen, NOW, HOUR)
    assert verdict.in_use is used
    assert verdict.reason


def test_without_quiet_time_nothing_counts_as_in_use() -> None:
    assert not decide.in_use(NOW, NOW, NOTHING).in_use


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        (Policy(), []),
        (Policy(every=DAY, jitter=HOUR, window=Window(time(1), time(5)), timezone="Europe/Berlin"), []),
        (Policy(cron="0 3 * * SUN", timezone="America/New_York"), []),
        (Policy(every=DAY, cron="0 3 * * *"), ["cron"]),
        (Policy(cron="0 3 * *"), ["cron"]),
        (Policy(cron="0 0 3 * * *"), ["cron"]),
        (Policy(cron="0 30 * * *"), ["cron"]),
        (Policy(cron="0 0 30 2 *"), ["cron"]),
        (Policy(cron="0 0 29 2 MON#5"), []),
        (Policy(cron="0 0 */31 * MON#5"), ["cron"]),
        (Policy(every=DAY, in_use_cap=-HOUR), ["in_use_cap"]),
        (Policy(timezone="Mars/Olympus"), ["timezone"]),
        (Policy(timezone="../etc/passwd"), ["timezone"]),
        (Policy(timezone=""), ["timezone"]),
        (Policy(every=NOTHING), ["every"]),
        (Policy(every=HOUR, jitter=HOUR), ["jitter"]),
        (Policy(grace=-HOUR, grace_vercel=-HOUR, blocked=-HOUR), ["grace", "grace_vercel", "blocked"]),
    ],
)
def test_every_fault_of_a_policy_is_named(policy: Policy, fields: list[str]) -> None:
    assert [fault.field for fault in decide.faults(policy)] == fields


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (DAY, "1 day"),
        (30 * DAY, "30 days"),
        (36 * HOUR, "36 hours"),
        (timedelta(minutes=90), "90 minutes"),
        (timedelta(seconds=75.25), "75.2 seconds"),
        (NOTHING, "0 seconds"),
    ],
)
def test_durations_are_told_in_words(duration: timedelta, words: str) -> None:
    assert decide.grace(Policy(), [request(Trigger.MANUAL, duration)]).reason == f"{words} asked for"
