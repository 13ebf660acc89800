"""A sealer without cryptography that keeps every promise of the port but secrecy."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING

from rotation.errors import KeyMissing, Refused
from rotation.sensitive import Sensitive

if TYPE_CHECKING:
    from rotation.model import SealContext

_HIDE = 0x5A


class FakeSealer:
    """Seals by a checksum over key, context and text. It holds nothing of what it sealed, so it can be copied with a world of fakes.

    Verifiers are sealed under a key of their own, as by the real one: `lose_key("key-1")` leaves them readable.
    """

    def __init__(self, key_id: str = "key-1", verifier_key_id: str = "verifier-key-1") -> None:
        self.key_id = key_id
        self.verifier_key_id = verifier_key_id
        self.keys = {key_id, verifier_key_id}
        self._serial = itertools.count(1)

    def add_key(self, key_id: str) -> None:
        """From now on everything but verifiers is sealed under this key; older ones still open."""
        self.keys.add(key_id)
        self.key_id = key_id

    def lose_key(self, key_id: str) -> None:
        """What this key sealed opens no more, until it is back."""
        self.keys.discard(key_id)

    def bring_key_back(self, key_id: str) -> None:
        self.keys.add(key_id)

    def seal(self, secret: Sensitive, context: SealContext) -> bytes:
        key_id = self.verifier_key_id if context.purpose == "verifier" else self.key_id
        if key_id not in self.keys:
            raise KeyMissing(key_id)
        hidden = bytes(byte ^ _HIDE for byte in secret.reveal().encode())
        head = f"{key_id} {next(self._serial)} ".encode()
        return head + _check(head, context, hidden) + hidden

    def open(self, sealed: bytes, context: SealContext) -> Sensitive:
        key_id, _, rest = sealed.partition(b" ")
        serial, _, body = rest.partition(b" ")
        tag, hidden = body[:16], body[16:]
        if tag != _check(b"%b %b " % (key_id, serial), context, hidden):
            raise Refused("sealed value: altered, or moved to another place")
        if key_id.decode() not in self.keys:
            raise KeyMissing(key_id.decode())
        return Sensitive(bytes(byte ^ _HIDE for byte in hidden).decode())

    def key_of(self, sealed: bytes) -> str:
        key_id, space, _ = sealed.partition(b" ")
        if not space or not key_id:
            raise Refused("sealed value: too short")
        return key_id.decode()

    def mark(self, credential_id: str) -> str:
        return f"rollover:{credential_id}:{hashlib.sha256(credential_id.encode()).hexdigest()[:16]}"

    def recognise(self, marker: str) -> str | None:
        _, _, rest = marker.partition(":")
        credential_id, _, _ = rest.rpartition(":")
        return credential_id if credential_id and marker == self.mark(credential_id) else None


def _check(head: bytes, context: SealContext, hidden: bytes) -> bytes:
    return hashlib.sha256(b"\0".join((head, repr(context).encode(), hidden))).hexdigest()[:16].encode()
