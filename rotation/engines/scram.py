"""What PostgreSQL keeps of a password: the SCRAM-SHA-256 verifier, made on our side, so that no statement ever holds the password.

A plaintext in DDL reaches the server's log as soon as the statement fails, even with `log_statement = none`. The form is that of
`scram_build_secret` (src/common/scram-common.c), the terms those of RFC 5802 section 3 and RFC 7677.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from rotation.sensitive import Sensitive

ITERATIONS = 4096
"""RFC 7677's least and PostgreSQL's default; a password of 190 random bits needs no more."""

SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Salting:
    """What a verifier says openly: how the keys follow from the password."""

    salt: bytes
    iterations: int = ITERATIONS


def verifier(password: Sensitive, salting: Salting) -> Sensitive:
    """`SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`. The password is ASCII, which SASLprep leaves as it is."""
    client_key, server_key = _keys(password, salting)
    stored_key = hashlib.sha256(client_key).digest()
    return Sensitive(f"SCRAM-SHA-256${salting.iterations}:{_text(salting.salt)}${_text(stored_key)}:{_text(server_key)}")


def salting_of(verifier: Sensitive) -> Salting:
    """The open part of a verifier that this module made."""
    iterations, _, salt = verifier.reveal().split("$")[1].partition(":")
    return Salting(b64decode(salt), int(iterations))


def login_keys(password: Sensitive, salting: Salting) -> dict[str, str]:
    """Libpq's parameters by which it logs in with keys instead of the password (since 18). Deriving them here takes a third of the time
    of libpq's own derivation, and a login with them proves the password as well.
    """
    client_key, server_key = _keys(password, salting)
    return {"scram_client_key": _text(client_key), "scram_server_key": _text(server_key)}


def _keys(password: Sensitive, salting: Salting) -> tuple[bytes, bytes]:
    # Half the time of hashlib's: cryptography brings an OpenSSL of its own, mostly a newer one than Python's.
    derivation = PBKDF2HMAC(hashes.SHA256(), hashlib.sha256().digest_size, salting.salt, salting.iterations)
    salted = derivation.derive(password.reveal().encode("ascii"))
    return hmac.digest(salted, b"Client Key", "sha256"), hmac.digest(salted, b"Server Key", "sha256")


def _text(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")
