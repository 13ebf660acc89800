"""What an answer to a push means, decided once and on the safe side.

Only 201 with a whole body says that the values were applied, only a list of refusals says that they were not. Everything else may have
been applied: no answer carries an id or a version, and nothing reads the values back.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from rotation.model import PushOutcome, PushVerdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rotation.vercel.exchange import Answer

NOT_APPLIED = {
    400: PushVerdict.REFUSED,
    401: PushVerdict.UNAUTHORIZED,
    403: PushVerdict.UNAUTHORIZED,
    404: PushVerdict.MISSING,
    409: PushVerdict.CONFLICT,
    410: PushVerdict.MISSING,
    413: PushVerdict.REFUSED,
    422: PushVerdict.REFUSED,
    429: PushVerdict.LIMITED,
}
_CREATED = 201
_CODE = re.compile(r"[a-z_]{1,64}")
_SOONEST = timedelta(seconds=1)
_LATEST = timedelta(hours=1)
"""A limit is by the minute: a reset further away is a mistake, or a clock that is wrong."""


def outcome_of(answer: Answer, now: datetime) -> PushOutcome:
    """Sort an answer to a push. `now` is this machine's time, for the time that a 429 names."""
    if answer.status is None:
        verdict = PushVerdict.UNKNOWN if answer.sent else PushVerdict.UNSENT
        return PushOutcome(verdict, note=answer.problem)
    if answer.status == _CREATED and answer.whole:
        return PushOutcome(PushVerdict.APPLIED, _CREATED, str(_CREATED))
    error = _error(answer.body)
    verdict = NOT_APPLIED.get(answer.status, PushVerdict.UNKNOWN)
    note = " ".join(part for part in (str(answer.status), _code(error), answer.problem) if part)
    retry_at = _retry_at(answer, error, now) if verdict is PushVerdict.LIMITED else None
    return PushOutcome(verdict, answer.status, note, retry_at)


def _error(body: bytes) -> dict[str, object]:
    """The error object of a body: `{"error": {"code", "message", …}}`. Empty for any other body; it is foreign text."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return error if isinstance(error, dict) else {}


def _code(error: dict[str, object]) -> str:
    code = error.get("code")
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _retry_at(answer: Answer, error: dict[str, object], now: datetime) -> datetime | None:
    """The time that a 429 names, the most exact first, moved into what can be true. None when it names none."""
    for named in _named_times(answer, error, now):
        if named is not None:
            return min(max(named, now + _SOONEST), now + _LATEST)
    return None


def _named_times(answer: Answer, error: dict[str, object], now: datetime) -> Iterator[datetime | None]:
    limit = error.get("limit")
    if isinstance(limit, dict):
        yield _epoch(limit.get("resetMs"), per_second=1000)
        yield _epoch(limit.get("reset"))
    yield _epoch(answer.headers.get("X-RateLimit-Reset"))
    yield _retry_after(answer.headers.get("Retry-After"), now)


def _epoch(value: object, per_second: int = 1) -> datetime | None:
    """A time as seconds, or parts of seconds, since 1970 in UTC."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return datetime.fromtimestamp(float(value) / per_second, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _retry_after(value: str | None, now: datetime) -> datetime | None:
    """Seconds, or a date: RFC 9110, section 10.2.3."""
    if value is None:
        return None
    try:
        if value.strip().isdecimal():
            return now + min(timedelta(seconds=int(value[:9])), _LATEST)
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
