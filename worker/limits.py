"""Vercel's rate limit: who may send when, without a thread that waits for it.

Places are given by virtual scheduling (the generic cell rate algorithm, ITU-T I.371): each lane remembers when its next place would be,
and each reservation moves that on by one interval, so a reservation costs the same with ten thousand before it. A place in the future
stays the caller's: it comes back then and sends. There are two lanes, since an urgent push must not queue behind the places that were
given away for the next hour: the common one, and one with a fifth of the rate for the urgent alone, who take whichever is sooner.

A lane that was idle gives a few places at once. Places at once and a minute's worth of intervals together stay within the limit, so
that no minute, however it is cut, holds more than the limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from threading import Lock
from typing import TYPE_CHECKING

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

if TYPE_CHECKING:
    from datetime import datetime

    from rotation.ports import Clock, Limiter
    from rotation.sensitive import Sensitive

LIMITER_LOST = "shared_limiter_lost"

log = structlog.get_logger()

LONGEST_BLOCK = timedelta(hours=1)
"""A reset time further away than this is taken for a mistake: after an hour we ask again."""

SCOPES_KEPT = 1000

REDIS_TIMEOUT = timedelta(seconds=1)
BREAK = timedelta(seconds=5)
"""How long Redis is left alone after it failed, so that a dead one does not cost a time-out with each call."""

MICROSECOND = timedelta(microseconds=1)

INTEGRATION = "integration"
"""The one scope of a limit that is not divided."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Places `interval` apart, of which an idle lane gives `at_once` without waiting."""

    interval: timedelta
    at_once: int

    @property
    def tolerance(self) -> timedelta:
        """How far ahead of its due time a place may be used."""
        return self.interval * (self.at_once - 1)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many pushes a minute, of which a share is kept for the urgent. Raises `ValueError` where a lane would have no place."""

    per_minute: int = 240
    kept_for_urgent: float = 0.2
    at_once: float = 0.05
    """The share of a minute's places that an idle lane gives at once; the intervals are longer for it."""

    def __post_init__(self) -> None:
        """Both lanes need a place a minute beside what they give at once."""
        if not 0 < self.kept_for_urgent < 1 or not 0 <= self.at_once < 1 or self.per_minute < 4:  # noqa: PLR2004 - two places in each of two lanes
            raise ValueError("a rate limit needs at least 4 a minute, and shares between 0 and 1")

    @property
    def urgent(self) -> Lane:
        """The lane of the urgent alone."""
        return self._lane(self._kept)

    @property
    def common(self) -> Lane:
        """The lane of everybody."""
        return self._lane(self.per_minute - self._kept)

    def shared_by(self, workers: int) -> RateLimit:
        """What one of so many workers may send when they cannot ask each other: 4 a minute at least."""
        return RateLimit(max(4, self.per_minute // workers), self.kept_for_urgent, self.at_once)

    @property
    def _kept(self) -> int:
        return min(max(2, round(self.per_minute * self.kept_for_urgent)), self.per_minute - 2)

    def _lane(self, places: int) -> Lane:
        at_once = min(max(1, round(places * self.at_once)), places - 1)
        return Lane(timedelta(minutes=1) / (places - at_once), at_once)


@dataclass(slots=True)
class _Scope:
    """One scope's lanes, on the monotonic clock: when each would be idle again, and until when nothing is taken."""

    urgent: timedelta = timedelta(0)
    common: timedelta = timedelta(0)
    blocked: timedelta = timedelta(0)


class LocalLimiter:
    """A limiter for one process. It counts on the monotonic clock, so that a wall clock set back does not hold every push for hours."""

    def __init__(self, clock: Clock, limit: RateLimit) -> None:
        self._clock = clock
        self._limit = limit
        self._scopes: dict[str, _Scope] = {}
        self._lock = Lock()

    def reserve(self, scope: str, *, urgent: bool) -> datetime | None:
        """As the port says."""
        with self._lock:
            now = timedelta(seconds=self._clock.monotonic())
            lanes = self._of(scope, now)
            start = max(now, lanes.blocked)
            common, after_common = _place(self._limit.common, start, lanes.common)
            kept, after_kept = _place(self._limit.urgent, start, lanes.urgent)
            if urgent and kept <= common:
                lanes.urgent, place = after_kept, kept
            else:
                lanes.common, place = after_common, common
        return None if place <= now else self._clock.now() + (place - now)

    def learn(self, scope: str, *, blocked_until: datetime) -> None:
        """As the port says, for an hour at most."""
        with self._lock:
            now = timedelta(seconds=self._clock.monotonic())
            lanes = self._of(scope, now)
            lanes.blocked = max(lanes.blocked, now + min(blocked_until - self._clock.now(), LONGEST_BLOCK))

    def _of(self, scope: str, now: timedelta) -> _Scope:
        """The scope's lanes. Idle scopes are as good as unknown ones, and dropped when there are many."""
        if scope not in self._scopes and len(self._scopes) >= SCOPES_KEPT:
            self._scopes = {name: one for name, one in self._scopes.items() if max(one.urgent, one.common, one.blocked) > now}
        return self._scopes.setdefault(scope, _Scope())


def _place(lane: Lane, start: timedelta, idle_at: timedelta) -> tuple[timedelta, timedelta]:
    """The lane's next place, and when the lane is idle again after it."""
    idle_at = max(idle_at, start)
    return max(start, idle_at - lane.tolerance), idle_at + lane.interval


# The same in Redis: one round trip, atomic, by Redis' own clock, in microseconds. Numbers below 2^53 are exact in Lua; written as text
# they would lose digits without a format. A scope that is idle is forgotten. What goes in and out are distances from now, as Redis' clock
# need not agree with ours.
_RESERVE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local urgent = ARGV[1] == '1'
local known = redis.call('HMGET', KEYS[1], 'common', 'urgent', 'blocked')
local start = math.max(now, tonumber(known[3] or 0))

local function place(idle_at, interval, tolerance)
  idle_at = math.max(tonumber(idle_at or 0), start)
  return math.max(start, idle_at - tolerance), idle_at + interval
end

local at, idle_at = place(known[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
local lane = 'common'
if urgent then
  local kept, after = place(known[2], tonumber(ARGV[4]), tonumber(ARGV[5]))
  if kept <= at then
    at, idle_at, lane = kept, after, 'urgent'
  end
end
redis.call('HSET', KEYS[1], lane, string.format('%.0f', idle_at))
local rest = math.ceil((idle_at - now) / 1000) + 60000
if redis.call('PTTL', KEYS[1]) < rest then
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', rest))
end
if at <= now then
  return false
end
return string.format('%.0f', at - now)
"""

_LEARN = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local wanted = now + math.min(tonumber(ARGV[1]), tonumber(ARGV[2]))
if wanted > math.max(now, tonumber(redis.call('HGET', KEYS[1], 'blocked') or 0)) then
  redis.call('HSET', KEYS[1], 'blocked', string.format('%.0f', wanted))
  local rest = math.ceil((wanted - now) / 1000) + 60000
  if redis.call('PTTL', KEYS[1]) < rest then
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', rest))
  end
end
return redis.status_reply('OK')
"""


class RedisLimiter:
    """A limiter that all workers share through one Redis. Never raises for Redis: when that is away, each worker takes its own share.

    `workers` is how many share the limit at most; `client` comes from `connect`, or has time-outs of its own.
    """

    def __init__(self, client: redis.Redis, clock: Clock, limit: RateLimit, *, workers: int, prefix: str = "rollover:limit:") -> None:
        self._reserve = client.register_script(_RESERVE)
        self._learn = client.register_script(_LEARN)
        self._clock = clock
        self._share = LocalLimiter(clock, limit.shared_by(workers))
        self._prefix = prefix
        lanes = (limit.common, limit.urgent)
        self._lanes = [number // MICROSECOND for lane in lanes for number in (lane.interval, lane.tolerance)]
        self._left_alone_until = 0.0

    def reserve(self, scope: str, *, urgent: bool) -> datetime | None:
        """As the port says."""
        if self._is_left_alone():
            return self._share.reserve(scope, urgent=urgent)
        try:
            place = self._reserve(keys=[self._prefix + scope], args=[int(urgent), *self._lanes])
        except redis.RedisError as error:
            self._leave_alone(error)
            return self._share.reserve(scope, urgent=urgent)
        return None if place is None else self._clock.now() + int(place) * MICROSECOND

    def learn(self, scope: str, *, blocked_until: datetime) -> None:
        """As the port says, for an hour at most. Our own share knows it, too."""
        self._share.learn(scope, blocked_until=blocked_until)
        if self._is_left_alone():
            return
        try:
            left = blocked_until - self._clock.now()
            self._learn(keys=[self._prefix + scope], args=[left // MICROSECOND, LONGEST_BLOCK // MICROSECOND])
        except redis.RedisError as error:
            self._leave_alone(error)

    def _is_left_alone(self) -> bool:
        return self._clock.monotonic() < self._left_alone_until

    def _leave_alone(self, error: redis.RedisError) -> None:
        log.warning(LIMITER_LOST, error=type(error).__name__, then="this worker takes its own share of the limit")
        self._left_alone_until = self._clock.monotonic() + BREAK.total_seconds()


class Undivided:
    """One bucket for all scopes: Vercel counts the pushes of the whole integration."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def reserve(self, _scope: str, *, urgent: bool) -> datetime | None:
        """As the port says."""
        return self._limiter.reserve(INTEGRATION, urgent=urgent)

    def learn(self, _scope: str, *, blocked_until: datetime) -> None:
        """As the port says."""
        self._limiter.learn(INTEGRATION, blocked_until=blocked_until)


def connect(url: Sensitive, *, timeout: timedelta = REDIS_TIMEOUT) -> redis.Redis:
    """A client for the limiter: short time-outs, and one new connection, without a pause, where a kept one has died.

    Nothing is sent before its first use.
    """
    return redis.Redis.from_url(
        url.reveal(),
        socket_timeout=timeout.total_seconds(),
        socket_connect_timeout=timeout.total_seconds(),
        socket_keepalive=True,
        client_name="rollover-limiter",
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
