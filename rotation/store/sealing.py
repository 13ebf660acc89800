"""What is at rest, sealed: envelope encryption, bound to its place.

Each sealing draws a fresh 256-bit data key, encrypts the text with it (AES-256-GCM), and wraps the data key with a key of the ring.

    byte     0      1      2..9          10..13     14..25  26..73      74..85  86..
             format use    fingerprint   checksum   nonce   wrapped     nonce   text and tag
                           of the key    of 0..9            data key

The text's associated data is an unambiguous encoding of the format, installation, resource, credential and purpose: moved to another
row, tenant or purpose it does not open. The wrap's associated data is its own header alone. That is enough: a wrap put beside another
text gives a data key under which that text's tag fails, and both together are still bound by the text. So a data key can be wrapped anew
under the newest key without a look at the text or its place.

The checksum is no protection. It tells a damaged header (refused) from a key that is really not here (held until it is). Random nonces
under one wrapping key are safe for 2^32 sealings (NIST SP 800-38D, section 8.3).
"""

from __future__ import annotations

import hmac
import os
import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rotation.errors import KeyMissing, Refused
from rotation.model import SealContext
from rotation.sensitive import Sensitive
from rotation.store.keyring import FINGERPRINT_BYTES, KEY_BYTES, SEALING_USES, KeyUse, key_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rotation.store.keyring import Key, Keyring

FORMAT = 1
NONCE_BYTES, TAG_BYTES = 12, 16
_LAYOUT = struct.Struct(f">BB{FINGERPRINT_BYTES}sI{NONCE_BYTES}s{KEY_BYTES + TAG_BYTES}s{NONCE_BYTES}s")
_HEADER = struct.Struct(f">BB{FINGERPRINT_BYTES}s")
_USE_BYTES: Mapping[KeyUse, int] = {KeyUse.SECRETS: 1, KeyUse.VERIFIERS: 2}
_USES = {byte: use for use, byte in _USE_BYTES.items()}

VERIFIER = "verifier"
"""The purpose that is sealed under the verifiers' key; every other purpose is sealed under the secrets' key."""

MARK = "rollover"
MARK_DIGITS = 32
"""128 bits in hex: a marker is readable by every tenant of a server, and must not be forged for another credential."""

_CANARY = "tweet"


@dataclass(frozen=True, slots=True)
class _Envelope:
    """A sealed value, taken apart."""

    use: KeyUse
    fingerprint: bytes
    wrap_nonce: bytes
    wrapped: bytes
    nonce: bytes
    body: bytes

    @classmethod
    def read(cls, sealed: bytes) -> _Envelope:
        if len(sealed) < _LAYOUT.size + TAG_BYTES:
            raise Refused("sealed value: too short")
        version, use, fingerprint, checksum, wrap_nonce, wrapped, nonce = _LAYOUT.unpack_from(sealed)
        if zlib.crc32(sealed[: _HEADER.size]) != checksum or version != FORMAT or use not in _USES:
            raise Refused("sealed value: not a format that this version knows, or damaged")
        return cls(_USES[use], fingerprint, wrap_nonce, wrapped, nonce, sealed[_LAYOUT.size :])

    @property
    def key_id(self) -> str:
        return key_id(self.use, self.fingerprint)


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """What the canaries of a store say about a keyring: keys that are not in it, and canaries that do not open though theirs is."""

    missing: tuple[str, ...]
    damaged: tuple[str, ...]


class KeyringSealer:
    """Seals with the newest key of the ring and opens with any. Safe to share between threads: nothing changes after it is made."""

    def __init__(self, keyring: Keyring) -> None:
        self._newest = {use: keyring.newest(use) for use in SEALING_USES}
        self._ciphers = {key.id: AESGCM(key.bits()) for use in SEALING_USES for key in keyring.of(use)}
        self._marker_keys = [key.bits() for key in reversed(keyring.of(KeyUse.MARKERS))]

    def seal(self, secret: Sensitive, context: SealContext) -> bytes:
        """As the port says. Raises `KeyMissing` when the ring has no key for this purpose."""
        key = self._sealing_key(_use(context.purpose))
        randomness = os.urandom(KEY_BYTES + NONCE_BYTES)
        data_key, nonce = randomness[:KEY_BYTES], randomness[KEY_BYTES:]
        body = AESGCM(data_key).encrypt(nonce, secret.reveal().encode(), _place(context))
        return self._wrap(key, data_key) + nonce + body

    def open(self, sealed: bytes, context: SealContext) -> Sensitive:
        """As the port says."""
        envelope = _Envelope.read(sealed)
        if envelope.use is not _use(context.purpose):
            raise Refused("sealed value: sealed for another purpose")
        data_key = self._unwrap(envelope)
        try:
            return Sensitive(AESGCM(data_key).decrypt(envelope.nonce, envelope.body, _place(context)).decode())
        except InvalidTag:
            raise Refused("sealed value: altered, or moved from another place") from None

    def rewrap(self, sealed: bytes) -> bytes | None:
        """The same value with its data key under the newest key; None when it is already. Raises as `open` does."""
        envelope = _Envelope.read(sealed)
        newest = self._sealing_key(envelope.use)
        if newest.fingerprint == envelope.fingerprint:
            return None
        return self._wrap(newest, self._unwrap(envelope)) + envelope.nonce + envelope.body

    def key_of(self, sealed: bytes) -> str:
        """As the port says."""
        return sealing_key_id(sealed)

    def knows(self, key_id: str) -> bool:
        """Whether the key is in the ring, so that what it sealed opens."""
        return key_id in self._ciphers

    @property
    def newest(self) -> frozenset[str]:
        """The ids of the keys that seal now."""
        return frozenset(key.id for key in self._newest.values() if key is not None)

    def mark(self, credential_id: str) -> str:
        """As the port says, under the newest marker key: `rollover:<credential id>:<32 hex digits>`."""
        if not self._marker_keys:
            raise KeyMissing(KeyUse.MARKERS)
        return _marker(credential_id, self._marker_keys[0])

    def recognise(self, marker: str) -> str | None:
        """As the port says, under any marker key, so that a key that was added leaves older logins ours."""
        credential_id = marker.removeprefix(f"{MARK}:")[: -MARK_DIGITS - 1]
        claimed = marker.encode()
        expected = [_marker(credential_id, key).encode() for key in self._marker_keys]
        return credential_id if credential_id and any(hmac.compare_digest(claimed, one) for one in expected) else None

    def canaries(self) -> dict[str, bytes]:
        """A sealed known text for each key that seals now, by key id: what a store keeps to ask for the key later."""
        return {key.id: self.seal(Sensitive(_CANARY), _canary_context(key.use)) for key in self._newest.values() if key is not None}

    def check_canaries(self, canaries: Mapping[str, bytes]) -> CanaryReport:
        """Open each canary that the store keeps. What a missing key sealed is to be held; the rest goes on."""
        missing, damaged = [], []
        for known_id, sealed in canaries.items():
            try:
                envelope = _Envelope.read(sealed)
                opened = self.open(sealed, _canary_context(envelope.use))
                if envelope.key_id != known_id or opened != Sensitive(_CANARY):
                    damaged.append(known_id)
            except KeyMissing:
                missing.append(known_id)
            except Refused:
                damaged.append(known_id)
        return CanaryReport(tuple(missing), tuple(damaged))

    def _sealing_key(self, use: KeyUse) -> Key:
        key = self._newest[use]
        if key is None:
            raise KeyMissing(use)
        return key

    def _wrap(self, key: Key, data_key: bytes) -> bytes:
        header = _HEADER.pack(FORMAT, _USE_BYTES[key.use], key.fingerprint)
        nonce = os.urandom(NONCE_BYTES)
        wrapped = self._ciphers[key.id].encrypt(nonce, data_key, header)
        return header + zlib.crc32(header).to_bytes(4) + nonce + wrapped

    def _unwrap(self, envelope: _Envelope) -> bytes:
        cipher = self._ciphers.get(envelope.key_id)
        if cipher is None:
            raise KeyMissing(envelope.key_id)
        header = _HEADER.pack(FORMAT, _USE_BYTES[envelope.use], envelope.fingerprint)
        try:
            return cipher.decrypt(envelope.wrap_nonce, envelope.wrapped, header)
        except InvalidTag:
            raise Refused("sealed value: its data key was altered") from None


KEY_PLACE = (2, 1 + FINGERPRINT_BYTES)
"""Where in a sealed value its key is named, as SQL's `substr` takes it: use and fingerprint, so that a database can count by key."""


def key_name(key_id: str) -> bytes | None:
    """What stands at `KEY_PLACE` of all that this key sealed; None for an id that no sealing key has."""
    use, _, fingerprint = key_id.partition("-")
    if use not in SEALING_USES or not re.fullmatch(rf"[0-9a-f]{{{2 * FINGERPRINT_BYTES}}}", fingerprint):
        return None
    return bytes([_USE_BYTES[KeyUse(use)]]) + bytes.fromhex(fingerprint)


def named_key(name: bytes) -> str | None:
    """The id of the key whose name this is; None for what stands in no sealed value."""
    return key_id(_USES[name[0]], name[1:]) if len(name) == KEY_PLACE[1] and name[0] in _USES else None


def sealing_key_id(sealed: bytes) -> str:
    """The id of the key that sealed a value, without opening it. Raises `Refused` for anything that is not a sealed value."""
    return _Envelope.read(sealed).key_id


def _use(purpose: str) -> KeyUse:
    return KeyUse.VERIFIERS if purpose == VERIFIER else KeyUse.SECRETS


def _place(context: SealContext) -> bytes:
    """The context in bytes, each part with its length before it, so that no two contexts look the same."""
    parts = (context.installation_id, context.resource_id, context.credential_id, context.purpose)
    encoded = [part.encode() for part in parts]
    return b"rollover sealed value" + bytes([FORMAT]) + b"".join(len(part).to_bytes(4) + part for part in encoded)


def _canary_context(use: KeyUse) -> SealContext:
    return SealContext("", "", "", VERIFIER if use is KeyUse.VERIFIERS else "canary")


def _marker(credential_id: str, key: bytes) -> str:
    return f"{MARK}:{credential_id}:{hmac.digest(key, credential_id.encode(), 'sha256').hex()[:MARK_DIGITS]}"
