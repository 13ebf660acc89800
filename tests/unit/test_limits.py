"""The arithmetic of the rate limit, and the limiter of one process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.clock import FakeClock
from worker.limits import SCOPES_KEPT, LocalLimiter, RateLimit

MINUTE = timedelta(minutes=1)


@given(st.integers(4, 10_000), st.floats(0, 1, exclude_min=True, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_both_lanes_together_never_exceed_the_limit(per_minute: int, kept: float, at_once: float) -> None:
    limit = RateLimit(per_minute, kept, at_once)
    most = sum(lane.at_once + MINUTE // lane.interval for lane in (limit.common, limit.urgent))
    assert most <= per_minute + 1, "the intervals are rounded to microseconds"
    assert min(limit.common.at_once, limit.urgent.at_once) >= 1


@pytest.mark.parametrize(("per_minute", "kept", "at_once"), [(3, 0.2, 0.1), (240, 0, 0.1), (240, 1, 0.1), (240, 0.2, 1), (-1, 0.2, 0.1)])
def test_a_limit_without_places_is_an_error(per_minute: int, kept: float, at_once: float) -> None:
    with pytest.raises(ValueError, match="a rate limit needs"):
        RateLimit(per_minute, kept, at_once)


def test_a_share_is_a_part_of_the_limit_and_never_nothing() -> None:
    assert RateLimit(240).shared_by(8).per_minute == 30
    assert RateLimit(240).shared_by(1000).per_minute == 4


@given(st.lists(st.tuples(st.booleans(), st.timedeltas(timedelta(0), timedelta(seconds=2))), max_size=400))
def test_no_minute_holds_more_than_the_limit(calls: list[tuple[bool, timedelta]]) -> None:
    clock = FakeClock()
    limiter = LocalLimiter(clock, RateLimit(60))
    places = []
    for urgent, pause in calls:
        clock.advance(pause)
        places.append(limiter.reserve("s", urgent=urgent) or clock.now())
    places.sort()
    for first, place in enumerate(places):
        assert sum(later < place + MINUTE for later in places[first:]) <= 60


def test_a_lane_that_was_idle_gives_a_few_places_at_once() -> None:
    limiter = LocalLimiter(FakeClock(), RateLimit(240))
    free = [limiter.reserve("s", urgent=False) for _ in range(20)].count(None)
    assert free == RateLimit(240).common.at_once == 10


def test_a_wall_clock_that_is_set_back_holds_nobody() -> None:
    clock = FakeClock()
    limiter = LocalLimiter(clock, RateLimit(240))
    for _ in range(100):
        limiter.reserve("s", urgent=False)
    clock.jump(timedelta(days=-1))
    clock.advance(MINUTE)
    assert limiter.reserve("s", urgent=False) is None


def test_scopes_that_are_idle_again_are_forgotten() -> None:
    clock = FakeClock()
    limiter = LocalLimiter(clock, RateLimit(240))
    for number in range(SCOPES_KEPT):
        limiter.reserve(f"icfg_{number}", urgent=False)
    limiter.learn("icfg_0", blocked_until=clock.now() + 10 * MINUTE)
    clock.advance(MINUTE)
    limiter.reserve("another", urgent=False)
    assert set(limiter._scopes) == {"icfg_0", "another"}
    assert limiter.reserve("icfg_0", urgent=True) == clock.now() + 9 * MINUTE


def test_threads_get_different_places() -> None:
    limiter = LocalLimiter(FakeClock(), RateLimit(240))
    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(lambda _: limiter.reserve("s", urgent=False), range(500)))
    future = [place for place in places if place is not None]
    assert len(future) == len(set(future)) == 490
