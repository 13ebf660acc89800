"""The canary that every secret of these tests begins with, and the forms in which somebody could still read it.

A leak need not be plain text: an address is percent-encoded, a header is base64, a driver prints bytes in hex, a log line is JSON. What
stands before the secret moves the groups of base64, so that it has three forms there.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rotation.engines.logins import ALPHABET
from worker.machine import MachineEntropy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CANARY = "Kanarienvogel"
"""Letters alone, so that a password of ours can begin with it, and long enough to occur nowhere by chance."""

ENCODINGS: Mapping[str, Callable[[str], str]] = {
    "raw": lambda text: text,
    "percent-encoded": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64, one byte in": lambda text: base64.b64encode(b"x" + text.encode()).decode(),
    "base64, two bytes in": lambda text: base64.urlsafe_b64encode(b"xy" + text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "hex in capitals": lambda text: text.encode().hex().upper(),
    "JSON-escaped": lambda text: "".join(f"\\u{ord(one):04x}" for one in text),
}
"""How a leak is written, by the name of its form."""


@dataclass(frozen=True)
class Needle:
    """A text to look for in all its forms."""

    text: str

    def found_in(self, data: bytes) -> list[str]:
        """The forms in which the data holds it."""
        return [form for form in ENCODINGS if self.is_in(data, form)]

    def is_in(self, data: bytes, form: str) -> bool:
        """Whether the data holds it in this form."""
        if form in self._literal:
            return any(one in data for one in self._literal[form])
        # A regular expression is slow on hundreds of megabytes; what every match holds is looked for first.
        hints, pattern = self._escaped[form]
        return any(hint in data for hint in hints) and pattern.search(data) is not None

    @cached_property
    def _literal(self) -> Mapping[str, frozenset[bytes]]:
        text = self.text.encode()
        aligned = {name: _stable(text, before) for before, name in enumerate(name for name in ENCODINGS if name.startswith("base64"))}
        in_64 = {name: frozenset({one, one.translate(bytes.maketrans(b"+/", b"-_"))}) for name, one in aligned.items()}
        written = {"raw": text, "hex": text.hex().encode(), "hex in capitals": text.hex().upper().encode()}
        return in_64 | {name: frozenset({one}) for name, one in written.items()}

    @cached_property
    def _escaped(self) -> Mapping[str, tuple[tuple[bytes, ...], re.Pattern[bytes]]]:
        """Forms that write a byte in more than one way: in either case, or behind any number of backslashes, once for each quoting."""
        first = self.text.encode()[0]
        percent = b"".join(b"%%(?i:%02x)" % byte for byte in self.text.encode())
        json = b"".join(rb"\\+u00(?i:%02x)" % byte for byte in self.text.encode())
        return {
            "percent-encoded": ((b"%%%02x" % first, b"%%%02X" % first), re.compile(percent)),
            "JSON-escaped": ((b"u00%02x" % first, b"u00%02X" % first), re.compile(json)),
        }


def _stable(text: bytes, before: int) -> bytes:
    """The part of a text's base64 that does not depend on the so many bytes before it, nor on what comes after."""
    encoded = base64.b64encode(bytes(before) + text)
    return encoded[-(-before * 8 // 6) : (before + len(text)) * 8 // 6]


class CanaryEntropy:
    """Randomness of which every password begins with the canary. Nobody waits for long: draws for back-offs are an eighth."""

    def bytes(self, count: int) -> bytes:
        """Random bytes, but for passwords and draws."""
        if count == len(_AN_EIGHTH):
            return _AN_EIGHTH
        random = MachineEntropy().bytes(count)
        return random if count < _PASSWORD else bytes(ALPHABET.index(one) for one in CANARY) + random[len(CANARY) :]


_PASSWORD = 32
"""Bytes: no password is shorter, and nothing else asks for as many."""
_AN_EIGHTH = (1 << 29).to_bytes(4)
"""As a draw reads it."""
