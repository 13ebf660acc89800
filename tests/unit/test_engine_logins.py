from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections import Counter

import pytest
from psycopg import pq

from rotation.engines.logins import ALPHABET, new_password, new_username
from rotation.engines.scram import Salting, salting_of, verifier
from rotation.errors import Refused
from rotation.sensitive import Sensitive
from tests.fakes.entropy import FakeEntropy


def test_a_name_fits_into_63_bytes_with_the_longest_prefix() -> None:
    name = new_username("p" * 40, 9999, FakeEntropy())

    assert re.fullmatch(r"p{40}_g9999_[0-9a-f]{16}", name)
    assert len(name) <= 63


def test_a_name_that_postgresql_would_cut_off_is_refused() -> None:
    with pytest.raises(Refused, match="63"):
        new_username("p" * 40, 10**8, FakeEntropy())


def test_every_character_of_a_password_is_as_likely_as_any_other() -> None:
    counts = Counter(new_password(62 * 2000, FakeEntropy()).reveal())

    assert set(counts) == set(ALPHABET)
    assert max(counts.values()) < 1.15 * min(counts.values())


def test_bytes_that_would_make_some_characters_likelier_are_thrown_away() -> None:
    class Highest:
        def __init__(self) -> None:
            self.batches = [b"\xff\xf8" * 16, b"\xf7" * 32]

        def bytes(self, count: int) -> bytes:
            assert count == 32
            return self.batches.pop(0)

    assert new_password(32, Highest()).reveal() == ALPHABET[0xF7 % 62] * 32


def test_the_verifier_is_the_one_that_libpq_makes() -> None:
    """libpq picks the salt, so that ours is made again with it."""
    password = "abcXYZ" * 6
    theirs = pq.PGconn.connect_start(b"host=127.0.0.1 port=1").encrypt_password(password.encode(), b"app", b"scram-sha-256").decode()
    iterations, salt = theirs.split("$")[1].split(":")

    assert verifier(Sensitive(password), Salting(base64.b64decode(salt), int(iterations))).reveal() == theirs
    assert salting_of(Sensitive(theirs)) == Salting(base64.b64decode(salt), int(iterations))


def test_the_verifier_proves_the_password_of_the_rfcs_example() -> None:
    """RFC 7677 section 3: user `user`, password `pencil`."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    _, _, keys = verifier(Sensitive("pencil"), Salting(salt)).reveal().split("$")
    stored, server = (base64.b64decode(part) for part in keys.split(":"))
    first = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    message = f"{first},c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".encode()
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")

    signature = hmac.digest(stored, message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == stored
    assert hmac.digest(server, message, "sha256") == base64.b64decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
