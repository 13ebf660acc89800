"""Durations as people write them: `30d`, `24h`, `90m`, `15s`, `1w`, `1d12h`, `2.5h`."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal

_MICROSECONDS = {"w": 604_800_000_000, "d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000}
_WRITTEN = re.compile("".join(rf"(?:(?P<{unit}>[0-9]{{1,12}}(?:\.[0-9]{{1,9}})?){unit})?" for unit in _MICROSECONDS))
_HOW = "write a number and a unit, the largest unit first: 30d, 24h, 90m, 15s, 1w, 1d12h or 2.5h"


def parse_duration(text: str) -> timedelta:
    """The duration that `text` says. Raises `ValueError`, with a text for a person, for anything else.

    Weeks, days, hours, minutes and seconds, each at most once, in this order; a day is 24 hours. Fractions are rounded to a microsecond.
    """
    written = text.strip()
    if not written:
        raise ValueError(f"is empty: {_HOW}")
    if written.startswith("-"):
        raise ValueError("is negative: a duration is zero or more")
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", written):
        raise ValueError(f"has no unit: {_HOW}")
    found = _WRITTEN.fullmatch(written)
    if found is None:
        raise ValueError(f"is not a duration: {_HOW}")
    total = sum((Decimal(number) * _MICROSECONDS[unit] for unit, number in found.groupdict().items() if number), Decimal(0))
    try:
        return timedelta(microseconds=int(total.to_integral_value()))
    except OverflowError:
        raise ValueError("is longer than a duration can be") from None


def format_duration(duration: timedelta) -> str:
    """The shortest way to write `duration` with whole units, such that reading it gives the same again. It must not be negative."""
    left = duration // timedelta(microseconds=1)
    if left < 0:
        raise ValueError("is negative: a duration is zero or more")
    parts: list[str] = []
    for unit in ("d", "h", "m"):
        count, left = divmod(left, _MICROSECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    if left or not parts:
        parts.append(f"{(Decimal(left) / _MICROSECONDS['s']).normalize():f}s")
    return "".join(parts)
