from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import settings as run_with
from hypothesis import strategies as st

from worker.durations import format_duration, parse_duration

unhurried = run_with(deadline=None)  # a busy machine is no fault


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("30d", timedelta(days=30)),
        ("24h", timedelta(hours=24)),
        ("90m", timedelta(minutes=90)),
        ("15s", timedelta(seconds=15)),
        ("1w", timedelta(weeks=1)),
        ("1d12h", timedelta(hours=36)),
        ("2.5h", timedelta(minutes=150)),
        ("0s", timedelta(0)),
        ("0.000001s", timedelta(microseconds=1)),
        (" 1h ", timedelta(hours=1)),
        ("1w2d3h4m5.5s", timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5.5)),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("-1h", "negative"),
        ("24", "no unit"),
        ("1.5", "no unit"),
        ("1y", "not a duration"),
        ("h", "not a duration"),
        ("1h1d", "not a duration"),
        ("1h1h", "not a duration"),
        ("1 h", "not a duration"),
        ("1e3s", "not a duration"),
        ("24H", "not a duration"),
        ("٣h", "not a duration"),
        ("nanh", "not a duration"),
        ("999999999999w", "longer"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(days=30), "30d"),
        (timedelta(hours=36), "1d12h"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(milliseconds=1500), "1.5s"),
        (timedelta(seconds=10), "10s"),
    ],
)
def test_a_duration_is_written_with_whole_units(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


def test_a_negative_duration_is_not_written() -> None:
    with pytest.raises(ValueError, match="negative"):
        format_duration(timedelta(seconds=-1))


@unhurried
@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=100_000)))
def test_what_was_written_reads_as_the_same_again(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@unhurried
@given(st.text())
def test_no_text_makes_it_fail_otherwise(text: str) -> None:
    with suppress(ValueError):
        assert parse_duration(text) >= timedelta(0)
