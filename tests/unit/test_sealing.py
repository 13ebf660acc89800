"""The sealed format, re-wrapping and canaries."""

from __future__ import annotations

import os
import timeit
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation.errors import KeyMissing, Refused
from rotation.model import SealContext
from rotation.sensitive import Sensitive
from rotation.store.keyring import Key, Keyring, KeyUse
from rotation.store.sealing import KeyringSealer, sealing_key_id

PLACE = SealContext("icfg_1", "r1", "c1", "password")
PASSWORD = Sensitive("correct horse battery staple")
OLD_KEYS = [Key.made(use) for use in KeyUse]
NEW_KEYS = [Key.made(KeyUse.SECRETS), Key.made(KeyUse.VERIFIERS)]
OLD, BOTH, NEW = (KeyringSealer(Keyring(keys)) for keys in (OLD_KEYS, OLD_KEYS + NEW_KEYS, NEW_KEYS))
SEALED = OLD.seal(PASSWORD, PLACE)


@given(st.integers(0, len(SEALED) * 8 - 1))
def test_a_flipped_bit_anywhere_is_refused(bit: int) -> None:
    altered = bytearray(SEALED)
    altered[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Refused):
        OLD.open(bytes(altered), PLACE)


@given(st.integers(0, len(SEALED) - 1))
def test_a_value_that_ends_early_is_refused(length: int) -> None:
    with pytest.raises(Refused):
        OLD.open(SEALED[:length], PLACE)


@given(st.binary(min_size=1))
def test_a_value_with_something_behind_it_is_refused(more: bytes) -> None:
    with pytest.raises(Refused):
        OLD.open(SEALED + more, PLACE)


@given(st.binary(max_size=300))
def test_anything_else_is_refused(sealed: bytes) -> None:
    with pytest.raises(Refused):
        OLD.open(sealed, PLACE)


PLACES = st.builds(SealContext, *[st.text("ab\0☂", max_size=3)] * 4)


@given(PLACES, PLACES)
def test_two_places_never_look_the_same(one: SealContext, other: SealContext) -> None:
    sealed = OLD.seal(PASSWORD, one)
    if one == other:
        assert OLD.open(sealed, other) == PASSWORD
    else:
        with pytest.raises(Refused):
            OLD.open(sealed, other)


def test_a_wrap_beside_another_text_is_refused() -> None:
    other = OLD.seal(PASSWORD, PLACE)
    with pytest.raises(Refused):
        OLD.open(SEALED[:74] + other[74:], PLACE)


def test_rewrapping_changes_the_key_and_nothing_else() -> None:
    rewrapped = BOTH.rewrap(SEALED)
    assert rewrapped is not None
    assert sealing_key_id(rewrapped) == NEW_KEYS[0].id
    assert rewrapped[74:] == SEALED[74:]
    assert NEW.open(rewrapped, PLACE) == PASSWORD
    with pytest.raises(Refused):
        NEW.open(rewrapped, replace(PLACE, credential_id="c2"))


def test_rewrapping_keeps_verifiers_under_their_own_key() -> None:
    place = replace(PLACE, purpose="verifier")
    rewrapped = BOTH.rewrap(OLD.seal(PASSWORD, place))
    assert rewrapped is not None
    assert sealing_key_id(rewrapped) == NEW_KEYS[1].id
    assert NEW.open(rewrapped, place) == PASSWORD


def test_what_is_under_the_newest_key_is_not_wrapped_again() -> None:
    assert OLD.rewrap(SEALED) is None
    rewrapped = BOTH.rewrap(SEALED)
    assert rewrapped is not None
    assert BOTH.rewrap(rewrapped) is None


def test_rewrapping_needs_the_key_and_an_unaltered_wrap() -> None:
    with pytest.raises(KeyMissing) as caught:
        NEW.rewrap(SEALED)
    assert caught.value.key_id == OLD_KEYS[0].id == sealing_key_id(SEALED)
    altered = bytearray(SEALED)
    altered[40] ^= 1
    with pytest.raises(Refused):
        BOTH.rewrap(bytes(altered))


def test_a_ring_without_a_key_for_the_purpose_does_not_seal() -> None:
    healer = KeyringSealer(Keyring([Key.made(KeyUse.VERIFIERS)]))
    with pytest.raises(KeyMissing):
        healer.seal(PASSWORD, PLACE)
    with pytest.raises(KeyMissing):
        healer.mark("c1")
    assert healer.recognise(OLD.mark("c1")) is None
    assert healer.seal(PASSWORD, replace(PLACE, purpose="verifier"))


def test_a_second_marker_key_leaves_older_logins_ours() -> None:
    both = KeyringSealer(Keyring([*OLD_KEYS, Key.made(KeyUse.MARKERS)]))
    marker = OLD.mark("c1")
    assert both.recognise(marker) == "c1"
    assert both.mark("c1") != marker
    assert OLD.recognise(both.mark("c1")) is None


def test_canaries_tell_which_keys_are_missing() -> None:
    canaries = OLD.canaries()
    assert set(canaries) == {key.id for key in OLD_KEYS[:2]}
    assert BOTH.check_canaries(canaries).missing == ()
    assert BOTH.check_canaries(canaries).damaged == ()
    assert set(NEW.check_canaries(canaries).missing) == set(canaries)


def test_canaries_that_were_altered_or_swapped_are_damaged() -> None:
    first, second = OLD.canaries().items()
    swapped = {first[0]: second[1], second[0]: b"x"}
    assert OLD.check_canaries(swapped).damaged == (first[0], second[0])


def test_nothing_of_the_keys_shows_in_a_sealer_or_a_key() -> None:
    shown = f"{OLD!r} {vars(Keyring(OLD_KEYS))!r} {OLD_KEYS[0]!r}"
    assert not any(key.material.reveal() in shown or repr(key.bits())[2:-1] in shown for key in OLD_KEYS)


def test_sealing_and_opening_cost_microseconds() -> None:
    best = min(timeit.repeat(lambda: OLD.open(OLD.seal(PASSWORD, PLACE), PLACE), number=200, repeat=5)) / 200
    assert best < 0.001, "a rotation seals and opens a handful of times"


def test_a_large_text_is_sealed_whole() -> None:
    text = Sensitive(os.urandom(1 << 20).hex())
    assert OLD.open(OLD.seal(text, PLACE), PLACE) == text
