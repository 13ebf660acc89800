"""What PostgreSQL keeps of a password: the SCRAM-SHA-256 verifier, made on our side, so that no statement ever holds the password.

A plaintext in DDL reaches the server's log as soon as the statement fails, even with `log_statement = none`. The form is that of
`scram_build_secret` (src/common/scram-common.c), the terms those of RFC 5802 section 3 and RFC 7677.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode

from rotation.model import Sensitive

ITERATIONS = 4096
"""RFC 7677's least and PostgreSQL's default; a password of 190 random bits needs no more."""

SALT_BYTES = 16


def verifier(password: Sensitive, salt: bytes, iterations: int = ITERATIONS) -> Sensitive:
    """`SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`. The password is ASCII, which SASLprep leaves as it is."""
    salted = hashlib.pbkdf2_hmac("sha256", password.reveal().encode("ascii"), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return Sensitive(f"SCRAM-SHA-256${iterations}:{_text(salt)}${_text(stored_key)}:{_text(server_key)}")


def _text(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")
