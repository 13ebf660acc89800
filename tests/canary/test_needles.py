"""The search itself: it finds every form of a text, wherever it stands, and nothing where there is nothing."""

from __future__ import annotations

import os

import pytest

from rotation.engines.logins import SHORTEST_PASSWORD, new_password
from tests.canary.needles import CANARY, ENCODINGS, CanaryEntropy, Needle


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("around", [("", ""), ("password=", "&x=1"), ('{"a": "', '\\n"}'), ("aaa", "zz")])
def test_every_form_is_found_as_what_it_is(encoding: str, around: tuple[str, str]) -> None:
    before, after = around
    data = os.urandom(1000) + (before + ENCODINGS[encoding](CANARY + "7x") + after).encode() + os.urandom(1000)
    assert Needle(CANARY).found_in(data) == [encoding]


@pytest.mark.parametrize("written", [r"\\u004b" + r"\\u0061", r"\\\\u004B\\\\u0061", "%4b%61", "%4B%61"])
def test_escapes_are_found_however_often_they_were_quoted(written: str) -> None:
    assert Needle("Ka").found_in(written.encode())


@pytest.mark.parametrize("form", ["raw", "base64, one byte in"])
def test_a_form_is_found_across_what_an_alphabet_may_be(form: str) -> None:
    text = "\x7f\x7f?>~~" * 3  # with both of the characters in which the alphabets differ
    encoded = ENCODINGS[form](text)
    assert Needle(text).is_in(encoded.encode(), form)
    assert Needle(text).is_in(encoded.replace("+", "-").replace("/", "_").encode(), form)


def test_noise_holds_nothing() -> None:
    assert Needle(CANARY).found_in(os.urandom(1 << 20)) == []


def test_passwords_begin_with_the_canary_and_are_never_the_same() -> None:
    made = {new_password(SHORTEST_PASSWORD, CanaryEntropy()).reveal() for _ in range(100)}
    assert len(made) == 100
    assert {one[: len(CANARY)] for one in made} == {CANARY}
