"""The names and passwords of new logins, for every engine that makes a fresh login each generation."""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING

from rotation.errors import Refused
from rotation.sensitive import Sensitive

if TYPE_CHECKING:
    from rotation.ports import Entropy

ALPHABET = string.ascii_letters + string.digits
"""Nothing in a password needs escaping anywhere, and SASLprep leaves it as it is."""

SHORTEST_PASSWORD = 32
_FAIR = 256 - 256 % len(ALPHABET)
_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_MADE = re.compile(r"(?P<prefix>.+)_g(?P<generation>[1-9][0-9]{0,8})_[0-9a-f]{16}")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def new_username(prefix: str, generation: int, entropy: Entropy) -> str:
    """`<prefix>_g<generation>_<16 hex digits>`: never the same twice, so that no pooler has a stale entry.

    Raises `Refused` for a prefix that is not `[a-z0-9_]`, begins with a digit or is longer than 40 bytes.
    """
    if not _PREFIX.fullmatch(prefix):
        raise Refused(
            "the prefix of the resource's logins is not usable",
            advice="login_prefix: at most 40 characters of a-z, 0-9 and _, not beginning with a digit",
        )
    name = f"{prefix}_g{generation}_{entropy.bytes(8).hex()}"
    if not _NAME.fullmatch(name):
        # PostgreSQL truncates at 63 bytes: two credentials would be one login.
        raise Refused("a login's name would be longer than 63 bytes", advice="shorten login_prefix")
    return name


def parts_of(username: str) -> tuple[str, int]:
    """The prefix and the generation that such a name was made of; "" and 0 for any other name."""
    made = _MADE.fullmatch(username)
    return (made["prefix"], int(made["generation"])) if made else ("", 0)


def new_password(length: int, entropy: Entropy) -> Sensitive:
    """`length` letters and digits, each as likely as any other. Raises `Refused` below 32."""
    if length < SHORTEST_PASSWORD:
        raise Refused("the password would be too short", advice=f"password_length: at least {SHORTEST_PASSWORD}")
    characters: list[str] = []
    while len(characters) < length:
        # Bytes at and above the largest multiple of 62 would make the first characters likelier.
        characters += [ALPHABET[byte % len(ALPHABET)] for byte in entropy.bytes(length) if byte < _FAIR]
    return Sensitive("".join(characters[:length]))
