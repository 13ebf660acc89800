"""The limiter in Redis: shared by workers, and what happens while Redis is away."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rotation.sensitive import Sensitive
from tests.fakes.clock import FakeClock
from worker.limits import BREAK, LocalLimiter, RateLimit, RedisLimiter, connect
from worker.machine import MachineClock
from worker.sandbox.broker import PrivateBroker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from rotation.ports import Clock

SCOPE = "integration"
LIMIT = RateLimit(240)
QUICK = timedelta(seconds=0.2)
MOMENT = timedelta(milliseconds=1)


def limiter(broker: PrivateBroker, clock: Clock | None = None) -> RedisLimiter:
    return RedisLimiter(connect(broker.url, timeout=QUICK), clock or FakeClock(), LIMIT, workers=8)


def free_places(one: RedisLimiter) -> int:
    return [one.reserve(SCOPE, urgent=False) for _ in range(50)].count(None)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[PrivateBroker]:
    with PrivateBroker(tmp_path) as broker:
        yield broker


def test_workers_share_one_limit(valkey: redis.Redis, valkey_server: PrivateBroker) -> None:
    workers = [limiter(valkey_server, MachineClock()) for _ in range(4)]

    def take(number: int) -> datetime | None:
        return workers[number % 4].reserve(SCOPE, urgent=False)

    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(take, range(400)))
    future = [place for place in places if place is not None]
    assert len(future) == len(set(future)) >= 380
    assert max(future) - datetime.now(UTC) > timedelta(minutes=1.9)


def test_an_idle_scope_is_forgotten_but_not_before_its_places_are_over(valkey: redis.Redis, valkey_server: PrivateBroker) -> None:
    one = limiter(valkey_server, MachineClock())
    for _ in range(1000):
        one.reserve(SCOPE, urgent=False)
    one.reserve(SCOPE, urgent=True)
    assert 6 * 60_000 < int(str(valkey.pttl("rollover:limit:integration"))) < 8 * 60_000
    one.learn(SCOPE, blocked_until=datetime.now(UTC) + timedelta(minutes=30))
    assert 30 * 60_000 < int(str(valkey.pttl("rollover:limit:integration"))) < 32 * 60_000


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.booleans(), max_size=60))
def test_it_gives_the_same_places_as_the_limiter_of_one_process(
    valkey: redis.Redis, valkey_server: PrivateBroker, calls: list[bool]
) -> None:
    """Both as seen at one moment, while Redis' clock goes on."""
    valkey.flushall()
    clock = FakeClock()
    begin = time.monotonic()
    until = clock.now() + timedelta(minutes=30)
    shared, local = limiter(valkey_server, clock), LocalLimiter(clock, LIMIT)
    shared.learn(SCOPE, blocked_until=until)
    local.learn(SCOPE, blocked_until=until)
    for urgent in calls:
        one, other = shared.reserve(SCOPE, urgent=urgent), local.reserve(SCOPE, urgent=urgent)
        assert one is not None
        assert other is not None
        assert -MOMENT <= other - one <= timedelta(seconds=time.monotonic() - begin) + MOMENT


def test_what_redis_forgets_costs_nothing_but_a_few_places(valkey: redis.Redis, valkey_server: PrivateBroker) -> None:
    one = limiter(valkey_server)
    assert one.reserve(SCOPE, urgent=False) is None
    valkey.flushall()
    valkey.script_flush()
    assert free_places(one) >= LIMIT.common.at_once


def test_without_redis_each_worker_takes_its_careful_share(own_broker: PrivateBroker) -> None:
    one = limiter(own_broker)
    own_broker.kill()
    assert free_places(one) == LIMIT.shared_by(8).common.at_once == 1


def test_a_silent_redis_costs_one_time_out_and_is_then_left_alone(own_broker: PrivateBroker) -> None:
    clock = FakeClock()
    one = limiter(own_broker, clock)
    assert one.reserve(SCOPE, urgent=False) is None
    own_broker.freeze()
    begin = time.monotonic()
    free_places(one)
    one.learn(SCOPE, blocked_until=clock.now() + timedelta(minutes=1))
    assert time.monotonic() - begin < 3 * QUICK.total_seconds()
    own_broker.thaw()
    assert one.reserve(SCOPE, urgent=False) is not None, "still left alone"
    clock.advance(BREAK)
    assert one.reserve(SCOPE, urgent=False) is None


def test_a_restarted_redis_is_used_again_at_once(own_broker: PrivateBroker) -> None:
    one = limiter(own_broker)
    one.reserve(SCOPE, urgent=False)
    own_broker.restart()
    assert free_places(one) >= LIMIT.common.at_once


def test_what_is_learned_without_redis_holds_for_this_worker(own_broker: PrivateBroker) -> None:
    clock = FakeClock()
    one = limiter(own_broker, clock)
    own_broker.kill()
    until = clock.now() + timedelta(minutes=5)
    one.learn(SCOPE, blocked_until=until)
    assert one.reserve(SCOPE, urgent=True) == until


def test_a_wrong_password_takes_the_share_and_says_so(valkey_server: PrivateBroker, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = connect(Sensitive(f"redis://:wrong@127.0.0.1:{valkey_server.port}/0"), timeout=QUICK)
    one = RedisLimiter(wrong, FakeClock(), LIMIT, workers=8)
    assert free_places(one) == 1
    said = capsys.readouterr().out
    assert said.count("shared_limiter_lost") == 1
    assert "AuthenticationError" in said
    assert "wrong" not in said
