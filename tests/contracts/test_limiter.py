"""What every limiter promises, and what the two real ones have in common."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.limiter import FakeLimiter
from worker.limits import LocalLimiter, RateLimit, RedisLimiter, Undivided, connect
from worker.machine import MachineClock

if TYPE_CHECKING:
    from datetime import datetime

    from rotation.ports import Clock, Limiter
    from worker.sandbox.broker import PrivateBroker

SCOPE = "integration"
HOUR = timedelta(hours=1)
LIMIT = RateLimit(per_minute=240)
MOMENT = timedelta(milliseconds=1)
TRIP = timedelta(milliseconds=200)
"""How much later than it was meant a place may be, as the way to Redis and back is part of it; less than places are apart."""


@dataclass(frozen=True)
class Subject:
    limiter: Limiter
    clock: Clock

    def places(self, count: int, *, urgent: bool = False) -> list[datetime]:
        """Places in the order in which they were given, "now" as the clock's now."""
        return [self.limiter.reserve(SCOPE, urgent=urgent) or self.clock.now() for _ in range(count)]


class OtherClock(MachineClock):
    """The wall clock of a machine that does not agree with Redis' own."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return super().now() + self._ahead


REDIS = {"redis": MachineClock(), "redis that is late": OtherClock(HOUR), "redis that is ahead": OtherClock(-HOUR)}


def made(kind: str, request: pytest.FixtureRequest) -> Subject:
    if kind in REDIS:
        request.getfixturevalue("valkey")
        server: PrivateBroker = request.getfixturevalue("valkey_server")
        clock = REDIS[kind]
        return Subject(RedisLimiter(connect(server.url), clock, LIMIT, workers=2), clock)
    fake = FakeClock()
    return Subject(FakeLimiter(fake) if kind == "fake" else LocalLimiter(fake, LIMIT), fake)


@pytest.fixture(params=["fake", "local", *REDIS])
def any_limiter(request: pytest.FixtureRequest) -> Subject:
    return made(request.param, request)


@pytest.fixture(params=["local", *REDIS])
def real_limiter(request: pytest.FixtureRequest) -> Subject:
    return made(request.param, request)


@pytest.mark.parametrize("urgent", [True, False])
def test_an_idle_limit_lets_everybody_go_at_once(any_limiter: Subject, *, urgent: bool) -> None:
    assert any_limiter.limiter.reserve(SCOPE, urgent=urgent) is None


@pytest.mark.parametrize("urgent", [True, False])
def test_nothing_goes_before_the_time_that_was_learned(any_limiter: Subject, *, urgent: bool) -> None:
    until = any_limiter.clock.now() + timedelta(minutes=5)
    any_limiter.limiter.learn(SCOPE, blocked_until=until)
    place = any_limiter.limiter.reserve(SCOPE, urgent=urgent)
    assert place is not None
    assert until - MOMENT <= place <= until + timedelta(seconds=1)
    assert place.tzinfo is UTC


def test_what_was_learned_is_never_shortened(any_limiter: Subject) -> None:
    now = any_limiter.clock.now()
    any_limiter.limiter.learn(SCOPE, blocked_until=now + timedelta(minutes=5))
    any_limiter.limiter.learn(SCOPE, blocked_until=now + timedelta(minutes=1))
    place = any_limiter.limiter.reserve(SCOPE, urgent=True)
    assert place is not None
    assert place > now + timedelta(minutes=4)


def test_a_time_that_is_over_changes_nothing(any_limiter: Subject) -> None:
    any_limiter.limiter.learn(SCOPE, blocked_until=any_limiter.clock.now() - HOUR)
    assert any_limiter.limiter.reserve(SCOPE, urgent=False) is None


def test_scopes_do_not_know_of_each_other(any_limiter: Subject) -> None:
    any_limiter.limiter.learn("icfg_1", blocked_until=any_limiter.clock.now() + HOUR / 2)
    assert any_limiter.limiter.reserve("icfg_1", urgent=False) is not None
    assert any_limiter.limiter.reserve("icfg_2", urgent=False) is None


def test_places_are_given_in_order_at_the_rate_of_the_lane(real_limiter: Subject) -> None:
    begin = real_limiter.clock.now()
    places = real_limiter.places(1000)
    assert all(one <= other + TRIP for one, other in pairwise(places))
    offsets = [place - begin for place in places]
    assert sum(offset <= timedelta(seconds=60) for offset in offsets) <= 240 * 0.8 + 2
    assert timedelta(minutes=5) < offsets[-1] < timedelta(minutes=6)


def test_the_urgent_do_not_queue_behind_the_others(real_limiter: Subject) -> None:
    begin = real_limiter.clock.now()
    real_limiter.places(1000)
    assert real_limiter.places(40, urgent=True)[-1] - begin < timedelta(minutes=1)
    assert real_limiter.places(1)[0] - begin > timedelta(minutes=5)


def test_the_urgent_use_the_whole_rate_while_nobody_else_sends(real_limiter: Subject) -> None:
    begin = real_limiter.clock.now()
    places = real_limiter.places(240, urgent=True)
    assert timedelta(seconds=50) < places[-1] - begin < timedelta(seconds=64)


def test_after_a_block_places_begin_anew_and_not_all_at_once(real_limiter: Subject) -> None:
    until = real_limiter.clock.now() + timedelta(minutes=5)
    real_limiter.limiter.learn(SCOPE, blocked_until=until)
    places = real_limiter.places(100)
    assert until - MOMENT <= places[0] <= until + timedelta(seconds=1)
    assert sum(place <= places[0] + TRIP for place in places) == LIMIT.common.at_once
    assert places[-1] > until + timedelta(seconds=25)


def test_a_block_without_end_ends_after_an_hour(real_limiter: Subject) -> None:
    begin = real_limiter.clock.now()
    real_limiter.limiter.learn(SCOPE, blocked_until=begin + 1000 * HOUR)
    place = real_limiter.places(1)[0]
    assert begin + HOUR - MOMENT <= place <= begin + HOUR + timedelta(seconds=5)


def test_an_undivided_limit_counts_all_scopes_together() -> None:
    clock = FakeClock()
    limiter = Undivided(LocalLimiter(clock, RateLimit(60, at_once=0.02)))
    assert limiter.reserve("icfg_1", urgent=False) is None
    assert limiter.reserve("icfg_2", urgent=False) is not None
    limiter.learn("icfg_3", blocked_until=clock.now() + timedelta(minutes=5))
    later = limiter.reserve("icfg_4", urgent=True)
    assert later is not None
    assert later >= clock.now() + timedelta(minutes=5)
