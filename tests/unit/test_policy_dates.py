"""When a resource is due."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation import policy as decide
from rotation.model import Policy, Window

MONDAY = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
NIGHT = Window(time(1, 0), time(5, 0))
OVER_MIDNIGHT = Window(time(22, 0), time(2, 0))
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def due(policy: Policy, since: datetime, now: datetime | None = None, resource_id: str = "r1") -> datetime | None:
    dated = decide.next_rotation(policy, resource_id, since=since, now=now or since)
    return dated.at if dated else None


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_without_interval_and_cron_nothing_is_ever_due() -> None:
    assert due(Policy(), MONDAY) is None


def test_an_interval_counts_from_the_completion() -> None:
    dated = decide.next_rotation(Policy(every=timedelta(days=30)), "r1", since=MONDAY, now=MONDAY)
    assert dated == decide.Dated(utc("2026-12-02T09:00"), "30 days after 2026-11-02 09:00:00 UTC")


def test_a_date_that_has_passed_is_due_once_and_now() -> None:
    now = MONDAY + timedelta(days=100)
    dated = decide.next_rotation(Policy(every=timedelta(days=30)), "r1", since=MONDAY, now=now)
    assert dated is not None
    assert dated.at == now
    assert "missed on 2026-12-02" in dated.reason
    assert due(Policy(every=timedelta(days=30)), now) == now + timedelta(days=30)


def test_registering_never_makes_work_due_at_once() -> None:
    dated = decide.registration(Policy(every=timedelta(seconds=20)), "r1", MONDAY, has_login=True)
    assert dated is not None
    assert dated.at == MONDAY + timedelta(seconds=20)


def test_a_resource_without_a_login_is_never_due() -> None:
    assert decide.registration(Policy(every=timedelta(days=1)), "r1", MONDAY, has_login=False) is None


def test_jitter_spreads_a_fleet_and_stays_the_same_for_each_resource() -> None:
    policy = Policy(every=timedelta(days=30), jitter=timedelta(hours=10))
    dates = [due(policy, MONDAY, resource_id=f"r{number}") for number in range(1000)]
    assert dates == [due(policy, MONDAY, resource_id=f"r{number}") for number in range(1000)]
    hours = [(date - MONDAY - timedelta(days=30)) // timedelta(hours=1) for date in dates if date]
    assert set(hours) == set(range(10))
    assert all(70 <= hours.count(hour) <= 130 for hour in range(10))


def test_a_fleet_that_waits_for_the_window_does_not_begin_as_one() -> None:
    policy = Policy(every=timedelta(days=1), window=NIGHT, jitter=timedelta(hours=2))
    dates = {due(policy, MONDAY, resource_id=f"r{number}") for number in range(200)}
    assert len(dates) == 200
    assert all(date and utc("2026-11-04T01:00") <= date < utc("2026-11-04T03:00") for date in dates)


def test_the_move_into_the_window_is_part_of_the_reason() -> None:
    dated = decide.next_rotation(Policy(every=timedelta(days=1), window=NIGHT, timezone=BERLIN), "r1", since=MONDAY, now=MONDAY)
    assert dated is not None
    assert dated.reason.endswith("moved from 2026-11-03 09:00:00 UTC to the window 01:00-05:00 Europe/Berlin")
    assert dated.at == utc("2026-11-04T00:00")


@pytest.mark.parametrize(
    ("window", "now", "opens"),
    [
        (NIGHT, "2026-11-02T00:59:59", "2026-11-02T01:00"),
        (NIGHT, "2026-11-02T01:00", "2026-11-02T01:00"),
        (NIGHT, "2026-11-02T04:59:59", "2026-11-02T04:59:59"),
        (NIGHT, "2026-11-02T05:00", "2026-11-03T01:00"),
        (OVER_MIDNIGHT, "2026-11-02T21:59", "2026-11-02T22:00"),
        (OVER_MIDNIGHT, "2026-11-02T23:59", "2026-11-02T23:59"),
        (OVER_MIDNIGHT, "2026-11-03T01:59", "2026-11-03T01:59"),
        (OVER_MIDNIGHT, "2026-11-03T02:00", "2026-11-03T22:00"),
        (Window(time(3, 0), time(3, 0)), "2026-11-03T02:00", "2026-11-03T02:00"),
        (Window(time(0, 0), time(4, 0)), "2026-11-03T23:00", "2026-11-04T00:00"),
    ],
)
def test_outside_the_window_its_next_opening(window: Window, now: str, opens: str) -> None:
    assert decide.opening(Policy(window=window), "r1", utc(now)).at == utc(opens)


@pytest.mark.parametrize(
    ("zone", "window", "now", "opens"),
    [
        # Berlin, 29 March 2026: 02:00 becomes 03:00 at 01:00 UTC.
        (BERLIN, (time(2, 15), time(2, 45)), "2026-03-28T12:00", "2026-03-30T00:15"),
        (BERLIN, (time(2, 30), time(3, 30)), "2026-03-28T12:00", "2026-03-29T01:00"),
        (BERLIN, (time(1, 30), time(2, 30)), "2026-03-29T01:00", "2026-03-29T23:30"),
        (BERLIN, (time(1, 0), time(5, 0)), "2026-03-28T12:00", "2026-03-29T00:00"),
        # Berlin, 25 October 2026: 03:00 becomes 02:00 at 01:00 UTC.
        (BERLIN, (time(2, 30), time(3, 30)), "2026-10-24T12:00", "2026-10-25T00:30"),
        (BERLIN, (time(2, 30), time(3, 30)), "2026-10-25T01:10", "2026-10-25T01:30"),
        (BERLIN, (time(1, 0), time(2, 30)), "2026-10-25T00:40", "2026-10-25T01:00"),
        (BERLIN, (time(1, 0), time(2, 30)), "2026-10-25T01:30", "2026-10-26T00:00"),
        # New York, 8 March 2026: 02:00 becomes 03:00 at 07:00 UTC; 1 November 2026: 02:00 becomes 01:00 at 06:00 UTC.
        (NEW_YORK, (time(2, 0), time(3, 0)), "2026-03-07T12:00", "2026-03-09T06:00"),
        (NEW_YORK, (time(2, 0), time(4, 0)), "2026-03-07T12:00", "2026-03-08T07:00"),
        (NEW_YORK, (time(1, 0), time(1, 30)), "2026-10-31T12:00", "2026-11-01T05:00"),
        (NEW_YORK, (time(1, 0), time(1, 30)), "2026-11-01T05:45", "2026-11-01T06:00"),
        # Cairo skips midnight itself on 24 April 2026.
        ("Africa/Cairo", (time(23, 30), time(2, 0)), "2026-04-23T12:00", "2026-04-23T21:30"),
        ("Africa/Cairo", (time(0, 0), time(0, 30)), "2026-04-23T12:00", "2026-04-24T21:00"),
        # Samoa had no 30 December 2011.
        ("Pacific/Apia", (time(8, 0), time(9, 0)), "2011-12-30T06:00", "2011-12-30T18:00"),
    ],
)
def test_windows_follow_the_clock_on_the_wall_through_its_changes(zone: str, window: tuple[time, time], now: str, opens: str) -> None:
    assert decide.opening(Policy(window=Window(*window), timezone=zone), "r1", utc(now)).at == utc(opens)


@pytest.mark.parametrize(
    ("zone", "cron", "since", "match"),
    [
        ("UTC", "0 3 * * SUN", "2026-11-02T09:00", "2026-11-08T03:00"),
        ("UTC", "0 3 * * SUN", "2026-11-08T03:00", "2026-11-15T03:00"),
        ("UTC", "0 3 * * SUN", "2026-11-08T02:59:59.9", "2026-11-08T03:00"),
        (BERLIN, "0 3 * * *", "2026-07-01T12:00", "2026-07-02T01:00"),
        (BERLIN, "0 3 * * *", "2026-12-01T12:00", "2026-12-02T02:00"),
        (BERLIN, "30 2 * * *", "2026-03-28T12:00", "2026-03-29T01:00"),
        (BERLIN, "30 2 * * *", "2026-03-29T01:00", "2026-03-30T00:30"),
        (BERLIN, "30 2 * * *", "2026-10-24T12:00", "2026-10-25T00:30"),
        (BERLIN, "30 2 * * *", "2026-10-25T00:30", "2026-10-26T01:30"),
        (BERLIN, "30 2 * * *", "2026-10-25T01:15", "2026-10-26T01:30"),
        (NEW_YORK, "30 2 * * *", "2026-03-07T12:00", "2026-03-08T07:00"),
        (NEW_YORK, "30 1 * * *", "2026-10-31T12:00", "2026-11-01T05:30"),
        (NEW_YORK, "30 1 * * *", "2026-11-01T06:15", "2026-11-02T06:30"),
    ],
)
def test_cron_is_the_next_match_after_the_completion(zone: str, cron: str, since: str, match: str) -> None:
    assert due(Policy(cron=cron, timezone=zone), utc(since)) == utc(match)


def test_many_missed_matches_are_due_once() -> None:
    now = MONDAY + timedelta(days=10, hours=1)
    assert due(Policy(cron="0 3 * * *"), MONDAY, now) == now


def test_a_missed_date_waits_for_the_window() -> None:
    now = MONDAY + timedelta(days=10)
    assert due(Policy(cron="0 3 * * *", window=NIGHT), MONDAY, now) == utc("2026-11-13T01:00")


ZONES = st.sampled_from(["UTC", BERLIN, NEW_YORK, "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Cairo", "America/St_Johns"])
INSTANTS = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # hypothesis adds the zone
TIMES = st.times().map(lambda reading: reading.replace(second=0, microsecond=0))
SCHEDULES = st.one_of(
    st.timedeltas(timedelta(seconds=1), timedelta(days=400)).map(lambda every: Policy(every=every)),
    st.sampled_from(["0 3 * * SUN", "30 2 * * *", "*/20 * * * *", "15 1-3 * * *", "0 0 1 * *"]).map(lambda cron: Policy(cron=cron)),
)


@given(SCHEDULES, ZONES, st.none() | st.builds(Window, TIMES, TIMES), st.timedeltas(timedelta(0), timedelta(days=2)), INSTANTS)
def test_the_next_date_is_after_and_inside_the_window(
    schedule: Policy,
    zone: str,
    window: Window | None,
    jitter: timedelta,
    since: datetime,
) -> None:
    policy = Policy(every=schedule.every, cron=schedule.cron, timezone=zone, window=window, jitter=jitter)
    date = due(policy, since)
    assert date is not None
    assert date > since
    assert date.tzinfo is UTC
    reading = date.astimezone(ZoneInfo(zone)).time()
    if window is not None and window.start < window.end:
        assert window.start <= reading < window.end
    elif window is not None:
        assert reading >= window.start or reading < window.end


@given(SCHEDULES, st.timedeltas(timedelta(0), timedelta(days=2)), INSTANTS, st.text())
def test_jitter_only_delays_and_by_less_than_its_bound(schedule: Policy, jitter: timedelta, since: datetime, resource_id: str) -> None:
    exact = due(schedule, since)
    delayed = due(Policy(every=schedule.every, cron=schedule.cron, jitter=jitter), since, resource_id=resource_id)
    assert exact is not None
    assert delayed is not None
    assert timedelta(0) <= delayed - exact < max(jitter, timedelta(microseconds=1))


@given(SCHEDULES, ZONES, INSTANTS, st.timedeltas(timedelta(0), timedelta(days=40)))
def test_a_later_completion_never_gives_an_earlier_date(schedule: Policy, zone: str, since: datetime, later: timedelta) -> None:
    policy = Policy(every=schedule.every, cron=schedule.cron, timezone=zone)
    first, second = due(policy, since), due(policy, since + later)
    assert first is not None
    assert second is not None
    assert first <= second


@given(
    st.sampled_from([(BERLIN, 3, 28), (BERLIN, 10, 24), (NEW_YORK, 3, 7), (NEW_YORK, 10, 31), ("Australia/Lord_Howe", 4, 4)]),
    st.builds(Window, TIMES, TIMES),
    st.integers(0, 3 * 24 * 60),
)
def test_the_opening_is_the_first_minute_at_which_a_clock_on_the_wall_shows_the_window(
    place: tuple[str, int, int], window: Window, minutes: int
) -> None:
    zone, month, day = place
    now = datetime(2026, month, day, tzinfo=UTC) + timedelta(minutes=minutes)
    opens = decide.opening(Policy(window=window, timezone=zone), "r1", now).at
    for passed in range(4 * 24 * 60):
        reading = (now + timedelta(minutes=passed)).astimezone(ZoneInfo(zone)).time()
        is_open = window.start <= reading < window.end if window.start < window.end else reading >= window.start or reading < window.end
        if is_open:
            assert opens == now + timedelta(minutes=passed)
            return
    pytest.fail("a window opens within days")


@given(ZONES, st.builds(Window, TIMES, TIMES), INSTANTS, st.timedeltas(timedelta(0), timedelta(days=2)))
def test_no_opening_is_skipped(zone: str, window: Window, now: datetime, later: timedelta) -> None:
    policy = Policy(window=window, timezone=zone)
    first, second = decide.opening(policy, "r1", now).at, decide.opening(policy, "r1", now + later).at
    assert now <= first <= second
    if now + later <= first:
        assert second == first
