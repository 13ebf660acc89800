"""What every sealer promises."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation.errors import KeyMissing, Refused
from rotation.model import SealContext
from rotation.sensitive import Sensitive
from rotation.store.keyring import Key, Keyring, KeyUse
from rotation.store.sealing import KeyringSealer
from tests.fakes.sealer import FakeSealer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rotation.ports import Sealer

PLACE = SealContext("icfg_1", "r1", "c1", "password")
PASSWORD = Sensitive("correct horse battery staple")
ELSEWHERE = [
    replace(PLACE, installation_id="icfg_2"),
    replace(PLACE, resource_id="r2"),
    replace(PLACE, credential_id="c2"),
    replace(PLACE, purpose="token"),
    replace(PLACE, purpose="verifier"),
    replace(PLACE, installation_id="icfg_1r", resource_id="1"),
    SealContext("", "", "", ""),
]


@dataclass(frozen=True)
class Subject:
    """A sealer, and the same one after keys were added or lost."""

    sealer: Sealer
    with_newer_keys: Callable[[], Sealer]
    without_the_secrets_key: Callable[[], Sealer]


def fake() -> Subject:
    sealer = FakeSealer()

    def newer() -> Sealer:
        sealer.add_key("key-2")
        return sealer

    def poorer() -> Sealer:
        sealer.lose_key("key-1")
        return sealer

    return Subject(sealer, newer, poorer)


def real() -> Subject:
    keys = [Key.made(use) for use in KeyUse]
    added = [Key.made(KeyUse.SECRETS), Key.made(KeyUse.VERIFIERS)]
    rest = [key for key in keys if key.use is not KeyUse.SECRETS]
    return Subject(
        KeyringSealer(Keyring(keys)),
        lambda: KeyringSealer(Keyring(keys + added)),
        lambda: KeyringSealer(Keyring([*rest, added[0]])),
    )


@pytest.fixture(params=[fake, real], ids=["fake", "keyring"])
def subject(request: pytest.FixtureRequest) -> Subject:
    made: Subject = request.param()
    return made


@pytest.fixture
def sealer(subject: Subject) -> Sealer:
    return subject.sealer


@pytest.mark.parametrize("text", ["", "x", "pass word", "pässwörd ☂", "x" * 65_536])
def test_what_was_sealed_opens_in_its_place(sealer: Sealer, text: str) -> None:
    assert sealer.open(sealer.seal(Sensitive(text), PLACE), PLACE) == Sensitive(text)


@pytest.mark.parametrize("place", ELSEWHERE)
def test_elsewhere_it_does_not_open(sealer: Sealer, place: SealContext) -> None:
    with pytest.raises(Refused):
        sealer.open(sealer.seal(PASSWORD, PLACE), place)


def test_a_verifier_does_not_open_as_a_password(sealer: Sealer) -> None:
    with pytest.raises(Refused):
        sealer.open(sealer.seal(PASSWORD, replace(PLACE, purpose="verifier")), PLACE)


def test_each_sealing_is_another(sealer: Sealer) -> None:
    assert sealer.seal(PASSWORD, PLACE) != sealer.seal(PASSWORD, PLACE)


def test_the_text_is_not_in_the_sealed_value(sealer: Sealer) -> None:
    assert PASSWORD.reveal().encode() not in sealer.seal(PASSWORD, PLACE)


@pytest.mark.parametrize("sealed", [b"", b"x", b"key-1 1 ", b"\x01" * 200, b"\x00" * 86])
def test_what_is_no_sealed_value_is_refused(sealer: Sealer, sealed: bytes) -> None:
    with pytest.raises(Refused):
        sealer.open(sealed, PLACE)


def test_an_altered_text_is_refused(sealer: Sealer) -> None:
    sealed = sealer.seal(PASSWORD, PLACE)
    with pytest.raises(Refused):
        sealer.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), PLACE)


def test_a_newer_key_leaves_older_values_readable(subject: Subject) -> None:
    sealed = subject.sealer.seal(PASSWORD, PLACE)
    newer = subject.with_newer_keys()
    assert newer.open(sealed, PLACE) == PASSWORD
    assert newer.open(newer.seal(PASSWORD, PLACE), PLACE) == PASSWORD


def test_without_its_key_it_is_held_and_not_refused(subject: Subject) -> None:
    sealed = subject.sealer.seal(PASSWORD, PLACE)
    with pytest.raises(KeyMissing) as caught:
        subject.without_the_secrets_key().open(sealed, PLACE)
    assert caught.value.key_id


def test_verifiers_open_without_the_key_of_passwords(subject: Subject) -> None:
    place = replace(PLACE, purpose="verifier")
    sealed = subject.sealer.seal(PASSWORD, place)
    assert subject.without_the_secrets_key().open(sealed, place) == PASSWORD


def test_it_tells_which_key_sealed_a_value_also_without_that_key(subject: Subject) -> None:
    password, verifier = (subject.sealer.seal(PASSWORD, replace(PLACE, purpose=one)) for one in ("password", "verifier"))
    key_id = subject.sealer.key_of(password)
    assert subject.sealer.key_of(verifier) != key_id
    assert subject.sealer.key_of(subject.sealer.seal(PASSWORD, PLACE)) == key_id
    assert subject.with_newer_keys().key_of(password) == key_id
    assert subject.without_the_secrets_key().key_of(password) == key_id
    for text in (b"", b"x"):
        with pytest.raises(Refused):
            subject.sealer.key_of(text)


def test_a_marker_is_recognised_and_always_the_same(subject: Subject) -> None:
    marker = subject.sealer.mark("c1")
    assert marker == subject.sealer.mark("c1")
    assert marker != subject.sealer.mark("c2")
    assert subject.sealer.recognise(marker) == "c1"
    newer = subject.with_newer_keys()
    assert newer.recognise(marker) == "c1"
    assert newer.mark("c1") == marker


def test_markers_need_no_key_of_secrets(subject: Subject) -> None:
    marker = subject.sealer.mark("c1")
    assert subject.without_the_secrets_key().recognise(marker) == "c1"


@pytest.mark.parametrize(
    "text", ["", ":", "::", "rollover:", "rollover::", "rollover:c1:", "rollover:c1:0", "a comment", "☂", "\ud800"[:0]]
)
def test_other_text_is_no_marker(sealer: Sealer, text: str) -> None:
    assert sealer.recognise(text) is None


def test_a_marker_cannot_be_moved_to_another_credential(sealer: Sealer) -> None:
    marker = sealer.mark("c1")
    assert sealer.recognise(marker.replace("c1", "c2")) is None
    assert sealer.recognise(marker + "0") is None
    assert sealer.recognise(marker[:-1]) is None
    assert sealer.recognise(" " + marker) is None


@given(st.text(st.characters(codec="utf-8")))
def test_no_text_breaks_recognition(text: str) -> None:
    for made in (fake(), real()):
        assert made.sealer.recognise(text) is None
        assert made.sealer.recognise(made.sealer.mark(text)) == (text or None)
