from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation.model import PushVerdict
from rotation.states import AttemptState
from rotation.vercel.exchange import Answer
from rotation.vercel.outcomes import outcome_of

NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
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


def answered(status: int, body: object = b"", *, whole: bool = True, **headers: str) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, sent=True, whole=whole, headers=httpx.Headers({k.replace("_", "-"): v for k, v in headers.items()}), body=raw)


def limited(body: object = b"", **headers: str) -> datetime | None:
    return outcome_of(answered(429, body, whole=True, **headers), NOW).retry_at


@pytest.mark.parametrize("status", range(100, 600))
def test_only_201_is_applied_and_only_the_listed_refusals_are_not(status: int) -> None:
    outcome = outcome_of(answered(status), NOW)
    expected = PushVerdict.APPLIED if status == 201 else NOT_APPLIED.get(status, PushVerdict.UNKNOWN)
    assert outcome.verdict is expected
    assert outcome.status == status


@pytest.mark.parametrize("status", NOT_APPLIED)
def test_a_refusal_is_a_refusal_whatever_its_body(status: int) -> None:
    for body in (b"", b"\xff\x00", b"[" * 100_000, b'{"error":', b'{"error": [1]}', b"null", b'{"error":{"code":7}}'):
        for whole in (True, False):
            outcome = outcome_of(answered(status, body, whole=whole), NOW)
            assert outcome.attempt_state is AttemptState.NOT_APPLIED


def test_a_201_whose_body_ends_early_is_unknown() -> None:
    assert outcome_of(answered(201, b"{", whole=False), NOW).verdict is PushVerdict.UNKNOWN


def test_no_answer_is_unsent_only_when_certainly_no_byte_left() -> None:
    assert outcome_of(Answer(None, sent=False, problem="could not connect"), NOW).verdict is PushVerdict.UNSENT
    assert outcome_of(Answer(None, sent=True, problem="timed out"), NOW).verdict is PushVerdict.UNKNOWN


def test_the_note_has_the_status_and_a_code_that_looks_like_one() -> None:
    assert outcome_of(answered(400, {"error": {"code": "bad_request", "message": "canary"}}), NOW).note == "400 bad_request"


@pytest.mark.parametrize("code", ["Canary", "a b", "a" * 65, "", "canary1", "x\n", None, ["a"], {"a": 1}])
def test_the_note_repeats_nothing_else_of_a_body(code: object) -> None:
    assert outcome_of(answered(400, {"error": {"code": code, "message": "canary"}}), NOW).note == "400"


def test_a_429_is_waited_for_until_the_most_exact_time_it_names() -> None:
    at = NOW + timedelta(seconds=30)
    epoch = int(at.timestamp())
    assert limited({"error": {"limit": {"reset": epoch + 5, "resetMs": epoch * 1000 + 250}}}) == at + timedelta(milliseconds=250)
    assert limited({"error": {"limit": {"reset": epoch}}}, X_RateLimit_Reset=str(epoch + 9)) == at
    assert limited(X_RateLimit_Reset=str(epoch), Retry_After="50") == at
    assert limited(Retry_After="30") == at
    assert limited(Retry_After="Mon, 02 Nov 2026 09:00:30 GMT") == at
    assert limited({"error": {"code": "too_many_requests", "message": "x"}}) is None


@pytest.mark.parametrize("value", [True, None, "soon", "nan", "inf", "-inf", float("nan"), 1e300, -1e300, [], {}, ""])
def test_a_time_that_is_none_falls_back_to_the_next_that_is_named(value: object) -> None:
    assert limited({"error": {"limit": {"reset": value, "resetMs": value}}}, Retry_After="30") == NOW + timedelta(seconds=30)


def test_a_reset_in_the_past_or_far_away_is_moved_into_what_can_be_true() -> None:
    assert limited(X_RateLimit_Reset="0") == NOW + timedelta(seconds=1)
    assert limited(X_RateLimit_Reset=str(int(NOW.timestamp()) + 86_400)) == NOW + timedelta(hours=1)
    assert limited(Retry_After="99999999999999999999") == NOW + timedelta(hours=1)
    assert limited(Retry_After="0") == NOW + timedelta(seconds=1)


def test_only_a_429_names_a_time() -> None:
    assert outcome_of(answered(503, Retry_After="30"), NOW).retry_at is None


@given(
    status=st.integers(100, 599),
    body=st.binary(max_size=200) | st.dictionaries(st.text(), st.text()).map(lambda error: json.dumps({"error": error}).encode()),
    reset=st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=30),
)
def test_no_answer_makes_the_sorting_fail(status: int, body: bytes, reset: str) -> None:
    headers = {"X-RateLimit-Reset": reset, "Retry-After": reset}
    outcome = outcome_of(Answer(status, sent=True, whole=True, headers=headers, body=body), NOW)
    assert outcome.retry_at is None or NOW < outcome.retry_at <= NOW + timedelta(hours=1)
