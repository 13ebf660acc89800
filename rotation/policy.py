"""Whether, why and when: dates, windows, jitter, back-off, grace, use. Values in, values out: no clock, no store, no randomness.

Every decision comes with its reason as text, so that "why was this rotated on Sunday?" has a stored answer. Instants are aware; what is
given back is UTC.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from rotation.errors import Fault
from rotation.states import InUse, Trigger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date

    from rotation.model import Credential, Policy, Request, Sampled, Window

FIRST_RETRY = timedelta(minutes=15)
LONGEST_RETRY = timedelta(hours=24)
"""A rotation that failed is tried again after 15 minutes, doubling to 24 hours."""

SETBACK, LONGEST_SETBACK = timedelta(seconds=1), timedelta(minutes=5)
URGENT_SETBACK, LONGEST_URGENT_SETBACK = timedelta(seconds=0.5), timedelta(seconds=15)
"""The first and the longest back-off within a state."""

LONGEST_SILENCE = timedelta(seconds=30)
"""The longest back-off from a system that does not answer at all: once it does, everything goes on within a minute."""

TRIES_TO_VERIFY = 6
"""Replicas and poolers lag behind the server, so a new login may be refused for a while."""

PATIENCE = timedelta(hours=1)
"""How long something may be unavailable before the offer until the rotation is given up."""

NOTHING = timedelta(0)


@dataclass(frozen=True, slots=True)
class Dated:
    """An instant, and why it is that one."""

    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Grace:
    """How long a predecessor keeps working. Explicit: somebody named it, so it bounds older generations as well."""

    duration: timedelta
    explicit: bool
    reason: str


@dataclass(frozen=True, slots=True)
class InUseRule:
    """What to do when a credential is still used at the end of its grace, and for how long to wait at most (None: without end)."""

    rule: InUse
    cap: timedelta | None
    reason: str


@dataclass(frozen=True, slots=True)
class Use:
    """Whether a credential is in use, and how that is known."""

    in_use: bool
    reason: str


class Setback(StrEnum):
    """What kept a step before the offer from succeeding."""

    REFUSED = "refused"
    """The other side said no, and will say it again."""
    UNVERIFIED = "unverified"
    """The new login was refused where it must be accepted."""
    UNAVAILABLE = "unavailable"
    """No definite answer, or "not now"."""


# When a rotation is due


def next_rotation(policy: Policy, resource_id: str, *, since: datetime, now: datetime) -> Dated | None:
    """When the resource is next due; None when it rotates on demand only.

    `since` is the completion of its latest rotation, whatever triggered that, or its registration. A date that has passed already is
    due once, now. The date is always inside the policy's window, and never before `now`.
    """
    date = _date(policy, since)
    if date is None:
        return None
    jitter = _share(resource_id, policy.jitter)
    at, reason = date.at + jitter, date.reason + (f", and {_spoken(jitter)} of jitter" if jitter else "")
    if at < now:
        at, reason = now, f"{reason}: missed on {_stamp(at)}, due once"
    return _into_window(policy, resource_id, Dated(at, reason))


def registration(policy: Policy, resource_id: str, registered_at: datetime, *, has_login: bool) -> Dated | None:
    """When a resource that was just registered is first due: never at once, and never by itself while it has no login."""
    if not has_login:
        return None
    return next_rotation(policy, resource_id, since=registered_at, now=registered_at)


def after_failure(policy: Policy, resource_id: str, failures: int, now: datetime, *, urgent: bool) -> Dated:
    """When to try again after the `failures`-th failed rotation in a row (1 is the first). Only something urgent ignores the window."""
    delay = _doubled(FIRST_RETRY, failures, LONGEST_RETRY)
    dated = Dated(now + delay, f"{_spoken(delay)} after failure {failures} in a row")
    return dated if urgent else _into_window(policy, resource_id, dated)


def opening(policy: Policy, resource_id: str, now: datetime) -> Dated:
    """The first instant, `now` or later, at which a scheduled rotation may begin: a missed date may come up outside the window."""
    return _into_window(policy, resource_id, Dated(now, "due"))


def _date(policy: Policy, since: datetime) -> Dated | None:
    if policy.cron is not None:
        match = _cron_match(policy.cron, policy.timezone, since)
        return Dated(match, f"cron {policy.cron!r} ({policy.timezone}) after {_stamp(since)}") if match else None
    if policy.every is not None:
        return Dated(since + policy.every, f"{_spoken(policy.every)} after {_stamp(since)}")
    return None


def _cron_match(expression: str, timezone: str, since: datetime) -> datetime | None:
    """The first match after `since`; None when there is none within cronsim's 50 years."""
    for match in CronSim(expression, since.astimezone(ZoneInfo(timezone))):
        at = match.astimezone(UTC)
        # In the hour that the clocks repeat, cronsim gives the first of two equal readings, which may be over.
        if at > since:
            return at
    return None


# Windows


def _into_window(policy: Policy, resource_id: str, dated: Dated) -> Dated:
    """The date itself inside the window, otherwise the next opening, spread by the jitter so that a fleet does not begin as one."""
    at = dated.at.astimezone(UTC)
    if policy.window is None or _is_open(policy.window, at.astimezone(ZoneInfo(policy.timezone))):
        return Dated(at, dated.reason)
    opens_at, closes_at = _next_opening(policy.window, ZoneInfo(policy.timezone), at)
    spread = _share(resource_id, min(policy.jitter, closes_at - opens_at))
    window = f"{policy.window.start:%H:%M}-{policy.window.end:%H:%M} {policy.timezone}"
    return Dated(opens_at + spread, f"{dated.reason}; moved from {_stamp(at)} to the window {window}")


def _is_open(window: Window, local: datetime) -> bool:
    """Whether a clock on the wall shows a time of the window. Equal ends are the whole day."""
    reading = local.time()
    if window.start < window.end:
        return window.start <= reading < window.end
    return reading >= window.start or reading < window.end


def _next_opening(window: Window, zone: ZoneInfo, after: datetime) -> tuple[datetime, datetime]:
    """The next unbroken stretch in which the window is open. A window that lies in a skipped hour stays shut that day."""
    opens_at = None
    for edge in _edges(window, zone, after):
        is_open = _is_open(window, edge.astimezone(zone))
        if opens_at is None and is_open:
            opens_at = edge
        elif opens_at is not None and not is_open:
            return opens_at, edge
    raise AssertionError("a window opens and shuts within days")  # pragma: no cover


def _edges(window: Window, zone: ZoneInfo, after: datetime) -> list[datetime]:
    """The instants in the days after `after` at which the window may open or shut, in order: its ends, and changes of the clocks."""
    first = after.astimezone(zone).date()
    days = [first + timedelta(days=days) for days in range(5)]
    readings = {_instant(day, end, zone, fold) for day in days for end in (window.start, window.end) for fold in (0, 1)}
    midnights = [_instant(day, time(), zone, 0) for day in days]
    changes = {_clock_change(one, other, zone) for one, other in pairwise(midnights)}
    return sorted(edge for edge in readings | changes if edge > after)


def _instant(day: date, reading: time, zone: ZoneInfo, fold: int) -> datetime:
    """When the clock on the wall shows this; `fold` chooses between the two readings of a repeated hour."""
    return datetime.combine(day, reading, tzinfo=zone).replace(fold=fold).astimezone(UTC)


def _clock_change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The instant between the two at which the clocks change; `after` itself when they do not."""
    offset = before.astimezone(zone).utcoffset()
    if after.astimezone(zone).utcoffset() == offset:
        return after
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)


# Back-off


def setback(tries: int, *, urgent: bool, draw: float) -> timedelta:
    """How long to wait after the `tries`-th setback within a state (1 is the first): full jitter, `draw` being from [0, 1)."""
    first, longest = (URGENT_SETBACK, LONGEST_URGENT_SETBACK) if urgent else (SETBACK, LONGEST_SETBACK)
    return draw * _doubled(first, tries, longest)


def give_up(kind: Setback, tries: int, *, since: datetime, now: datetime) -> str | None:
    """Why a rotation that is not yet offered ends here, or None: try again.

    `tries` counts the setbacks in this state, this one included; `since` is when the state began.
    """
    match kind:
        case Setback.REFUSED:
            return "refused, and will be refused again"
        case Setback.UNVERIFIED if tries >= TRIES_TO_VERIFY:
            return f"the new login was refused {tries} times"
        case Setback.UNAVAILABLE if now - since >= PATIENCE and tries >= TRIES_TO_VERIFY:
            return f"unavailable for {_spoken(PATIENCE)}, {tries} tries"
        case _:
            return None


def _doubled(first: timedelta, times: int, longest: timedelta) -> timedelta:
    """`first` doubled with each time after the first, `longest` at most; the exponent is bounded, because counts are not."""
    exponent: int = min(max(times - 1, 0), 32)
    return min(first * (1 << exponent), longest)


# Grace and use


def grace(policy: Policy, requests: Sequence[Request]) -> Grace:
    """How long the predecessor keeps working, by everything that was asked until the rotation completed.

    A default comes from the policy, of several the longest; an explicit one (a person's, Vercel's) replaces it, and of two explicit
    ones the longer holds; an emergency makes it zero.
    """
    if any(request.trigger is Trigger.EMERGENCY for request in requests):
        return Grace(NOTHING, explicit=True, reason="emergency: no grace")
    asked = [request.grace for request in requests if request.grace is not None and request.trigger is not Trigger.SCHEDULE]
    if asked:
        return Grace(max(asked), explicit=True, reason=f"{_spoken(max(asked))} asked for")
    defaults = [_default_grace(policy, request.trigger) for request in requests]
    longest = max(defaults, key=lambda one: one.duration, default=None)
    return longest or _default_grace(policy, Trigger.SCHEDULE)


def grace_end(credential: Credential, completed_at: datetime, grace: Grace) -> Dated:
    """When an older credential's grace ends, now that the newest rotation completed at `completed_at` with `grace`.

    For the predecessor, and for one whose clock was stopped: the grace from now on. One with an end keeps it, unless this grace is
    explicit and ends sooner. A compromised one ends at once.
    """
    own_end = completed_at + grace.duration
    existing = credential.grace_ends_at
    if credential.compromised:
        return Dated(min(completed_at, existing or completed_at), "compromised: no grace")
    if existing is None:
        return Dated(own_end, grace.reason)
    if grace.explicit and own_end < existing:
        return Dated(own_end, f"{grace.reason}, which bounds older credentials too")
    return Dated(existing, "the end that it was promised")


def in_use_rule(policy: Policy, requests: Sequence[Request], *, compromised: bool = False) -> InUseRule:
    """What to do when the predecessor is still used at the end of its grace. Nothing waits for a compromised one."""
    triggers = {request.trigger for request in requests}
    if compromised or Trigger.EMERGENCY in triggers:
        return InUseRule(InUse.PROCEED, None, "compromised" if compromised else "emergency")
    if Trigger.VERCEL in triggers:
        return _capped(policy, policy.in_use_vercel, "Vercel asked for the rotation")
    return _capped(policy, policy.in_use, "the policy of the resource")


def quiet(policy: Policy, grace: timedelta) -> timedelta:
    """How long a credential must go unseen to count as unused: at most half of its grace."""
    return min(policy.quiet, grace / 2)


def blocked_for(policy: Policy, requests: Sequence[Request], *, compromised: bool = False) -> timedelta:
    """How long a person can undo the block before the login is removed; not at all in an emergency."""
    emergency = compromised or any(request.trigger is Trigger.EMERGENCY for request in requests)
    return NOTHING if emergency else policy.blocked


def in_use(last_seen_at: datetime | None, now: datetime, quiet: timedelta) -> Use:
    """Whether a credential that was last seen then is in use now. `None` is never seen."""
    if last_seen_at is None:
        return Use(in_use=False, reason="never seen in use")
    used = now - last_seen_at < quiet
    return Use(used, f"last seen on {_stamp(last_seen_at)}, {'within' if used else 'before'} the last {_spoken(quiet)}")


def watched(sampled: Sampled | None, now: datetime, quiet: timedelta, gap: timedelta) -> bool:
    """Whether somebody looked during all of the quiet time, so that a credential that was not seen was not in use.

    Of a server that was never sampled no gap is known: either it has just been registered, or nothing kept a record of that yet.
    """
    return not quiet or sampled is None or (sampled.since <= now - quiet and now - sampled.at <= gap)


def _default_grace(policy: Policy, trigger: Trigger) -> Grace:
    duration = policy.grace_vercel if trigger is Trigger.VERCEL else policy.grace
    return Grace(duration, explicit=False, reason=f"{_spoken(duration)} by the policy for {trigger}")


def _capped(policy: Policy, rule: InUse, reason: str) -> InUseRule:
    return InUseRule(rule, policy.in_use_cap if rule is InUse.WAIT else None, reason)


# Faults


def faults(policy: Policy) -> tuple[Fault, ...]:
    """Everything that is wrong with a policy; only one without faults may be given to the functions above."""
    return (*_schedule_faults(policy), *_duration_faults(policy))


def _schedule_faults(policy: Policy) -> Iterator[Fault]:
    if policy.every is not None and policy.cron is not None:
        yield Fault("cron", "stands beside `every`", "give one of the two")
    try:
        ZoneInfo(policy.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield Fault("timezone", f"{policy.timezone!r} is not an IANA time zone", "for example Europe/Berlin")
        return
    if policy.cron is None:
        return
    if len(policy.cron.split()) != 5:  # noqa: PLR2004  # cronsim also takes seconds, which other crons read otherwise
        yield Fault("cron", f"{policy.cron!r} has not five fields", "minute, hour, day of month, month, day of week")
        return
    try:
        if _cron_match(policy.cron, policy.timezone, datetime(2026, 1, 1, tzinfo=UTC)) is None:
            yield Fault("cron", f"{policy.cron!r} matches no date")
    except CronSimError as error:
        yield Fault("cron", f"{policy.cron!r} is not understood: {error}")


def _duration_faults(policy: Policy) -> Iterator[Fault]:
    if policy.every is not None and policy.every <= NOTHING:
        yield Fault("every", "must be longer than nothing")
    if policy.every is not None and policy.jitter >= policy.every > NOTHING:
        yield Fault("jitter", "must be shorter than `every`")
    for name in ("jitter", "grace", "grace_vercel", "in_use_cap", "quiet", "blocked"):
        value: timedelta | None = getattr(policy, name)
        if value is not None and value < NOTHING:
            yield Fault(name, "must not be negative")


# Words and numbers


def _share(resource_id: str, whole: timedelta) -> timedelta:
    """The resource's own part of `whole`: uniform in [0, whole), always the same for the same resource."""
    draw = int.from_bytes(hashlib.sha256(b"jitter/" + resource_id.encode()).digest()[:8])
    return timedelta(microseconds=whole // timedelta(microseconds=1) * draw >> 64)


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _spoken(duration: timedelta) -> str:
    """A duration for a person, in the largest unit that says it in a whole number; minutes will do for what is not round."""
    seconds = duration.total_seconds()
    if seconds >= 3600 and seconds % 60:  # noqa: PLR2004 - an hour
        seconds = round(seconds / 60) * 60
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length and seconds % length == 0:
            count = round(seconds / length)
            return f"{count} {unit}" + ("" if count == 1 else "s")
    return f"{round(seconds, 1):g} seconds"
