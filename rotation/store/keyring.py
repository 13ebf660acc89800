"""The keys: what each is for, how they are written in text, and the file that holds them.

A key text has one key a line, its use and 256 bits in URL-safe base64. Of the lines of one use the last is the newest: it seals, all of
them open.

    # secrets-1f6b0a9c7d2e4f58, made 2026-11-23
    secrets 0cTl…

uses
    `secrets` wraps passwords and tokens, `verifiers` wraps verifiers alone, so that logins can be healed while the first is missing.
    `markers` signs the markers of our logins. It is never rotated, because a marker stays on its login for good; a second one may be
    added by hand, and markers of both are then recognised. `audit` signs the audit trail.

The id of a key follows from its bits, so a key that was altered, or that stands under another's name, is another key.
"""

from __future__ import annotations

import base64
import fcntl
import hmac
import os
import re
import secrets
import stat
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from rotation.errors import Conflict, Fault, Invalid, NotFound
from rotation.sensitive import Sensitive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

KEY_BYTES = 32
FINGERPRINT_BYTES = 8
LARGEST_TEXT = 65_536
_KEY = re.compile(r"([a-z]+)[ \t]+([A-Za-z0-9_-]{43})=?")


class KeyUse(StrEnum):
    """What a key is for; no key serves two uses."""

    SECRETS = "secrets"
    VERIFIERS = "verifiers"
    MARKERS = "markers"
    AUDIT = "audit"


SEALING_USES = (KeyUse.SECRETS, KeyUse.VERIFIERS)
"""The uses whose keys wrap data keys, and which are rotated."""


@dataclass(frozen=True, slots=True)
class Key:
    """256 bits and their use."""

    use: KeyUse
    material: Sensitive
    """The bits in URL-safe base64, without padding."""
    fingerprint: bytes = field(init=False)

    def __post_init__(self) -> None:
        """The fingerprint is a keyed hash of a constant: it tells keys apart and nothing about their bits."""
        digest = hmac.digest(self.bits(), b"rollover key " + self.use.encode(), "sha256")
        object.__setattr__(self, "fingerprint", digest[:FINGERPRINT_BYTES])

    def bits(self) -> bytes:
        """The key itself, for a cipher or a keyed hash."""
        return base64.urlsafe_b64decode(self.material.reveal() + "=")

    @property
    def id(self) -> str:
        """How people and rows call it, for example `secrets-1f6b0a9c7d2e4f58`."""
        return key_id(self.use, self.fingerprint)

    @classmethod
    def made(cls, use: KeyUse) -> Key:
        """A new key of the operating system's randomness."""
        return cls(use, Sensitive(secrets.token_urlsafe(KEY_BYTES)))


class Keyring:
    """Every key that a process may use. Later keys of a use are newer."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys = tuple(keys)
        self._newest = {key.use: key for key in self.keys}

    def newest(self, use: KeyUse) -> Key | None:
        """The key that new things of this use are made with; None when there is none."""
        return self._newest.get(use)

    def of(self, use: KeyUse) -> tuple[Key, ...]:
        """All keys of a use, the oldest first."""
        return tuple(key for key in self.keys if key.use is use)


def key_id(use: KeyUse, fingerprint: bytes) -> str:
    """The id of the key with this fingerprint."""
    return f"{use}-{fingerprint.hex()}"


def read_keys(text: Sensitive) -> Keyring:
    """The keys of a key text; commas may stand for line breaks, so that it fits into one variable.

    Raises `Invalid` with every fault by line number; no fault repeats any of the line.
    """
    if len(text) > LARGEST_TEXT:
        raise Invalid([Fault("keys", f"longer than {LARGEST_TEXT} characters", "give a key file")])
    keys: list[Key] = []
    faults: list[Fault] = []
    for number, written in _written_keys(text.reveal()):
        key = _read_key(written)
        if isinstance(key, str):
            faults.append(Fault(f"keys, line {number}", key))
        elif key.id in {known.id for known in keys}:
            faults.append(Fault(f"keys, line {number}", "the same key a second time"))
        else:
            keys.append(key)
    if not keys and not faults:
        faults.append(Fault("keys", "there is no key", "make a key file with `rollover keys create`"))
    if faults:
        raise Invalid(faults)
    return Keyring(keys)


def _written_keys(text: str) -> Iterator[tuple[int, str]]:
    """What stands for a key, with the number of its line."""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.lstrip().startswith("#"):
            yield from ((number, part.strip()) for part in line.split(",") if part.strip())


def _read_key(written: str) -> Key | str:
    """The key, or what is wrong with it."""
    match = _KEY.fullmatch(written)
    if match is None:
        return "not a use and 43 characters of base64"
    use, material = match.groups()
    if use not in set(KeyUse):
        return f"the use is none of {', '.join(KeyUse)}"
    bits = base64.urlsafe_b64decode(material + "=")
    if base64.urlsafe_b64encode(bits).decode().rstrip("=") != material:
        return "not canonical base64: a character at the end was altered"
    return Key(KeyUse(use), Sensitive(material))


def load_key_file(path: Path) -> Keyring:
    """The keys of a file that only its owner can read.

    Raises `NotFound` when there is none, `Invalid` when others can read it, when it belongs to another user, or when its text has faults.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold us
    except FileNotFoundError:
        raise NotFound("key file", str(path)) from None
    except OSError as error:
        raise Invalid([Fault(str(path), f"cannot be opened: {error.strerror}")]) from None
    try:
        _refuse_open_doors(path, os.fstat(descriptor))
        text = os.read(descriptor, LARGEST_TEXT + 1)
    finally:
        os.close(descriptor)
    return read_keys(Sensitive(text.decode(errors="replace")))


def _refuse_open_doors(path: Path, found: os.stat_result) -> None:
    faults = []
    if not stat.S_ISREG(found.st_mode):
        faults.append(Fault(str(path), "is not a file"))
    if found.st_uid not in (os.geteuid(), 0):
        faults.append(Fault(str(path), f"belongs to user {found.st_uid}", f"chown {os.geteuid()}"))
    if stat.S_IMODE(found.st_mode) & 0o077:
        faults.append(Fault(str(path), f"others may use it (mode {stat.S_IMODE(found.st_mode):04o})", "chmod 600"))
    if faults:
        raise Invalid(faults)


def new_key_text() -> Sensitive:
    """The text of a new keyring with one key of each use, for whoever keeps it elsewhere than in a file of ours."""
    return Sensitive(_text(Key.made(use) for use in KeyUse))


def create_key_file(path: Path) -> Keyring:
    """Make a key file with one key of each use, mode 0600, whole or not at all, on disk when this returns.

    Raises `Conflict` when there is one already, also when another process was faster: load that one.
    """
    keyring = Keyring(Key.made(use) for use in KeyUse)
    with _written(
        path, _text(keyring.keys, "Whoever reads this file reads every password that it sealed. Keep a copy elsewhere.")
    ) as draft:
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            raise Conflict(f"there is a key file already at {path}") from None
    return keyring


def add_key(path: Path) -> tuple[Key, ...]:
    """Add a new secrets key and a new verifiers key to the file; from its next reading on they seal, and the older ones still open.

    Give the file to every worker before any restarts, since what a new key sealed is held by a worker that does not know it.
    """
    path = path.resolve()  # a link stays a link
    with _changing(path):
        load_key_file(path)
        added = tuple(Key.made(use) for use in SEALING_USES)
        before, owner = path.read_text(), path.stat()
        with _written(path, before + ("" if before.endswith("\n") else "\n") + _text(added)) as draft:
            os.chown(draft, owner.st_uid, owner.st_gid)  # root may add a key to a service's file
            draft.replace(path)
    return added


def _text(keys: Iterable[Key], *comments: str) -> str:
    today = datetime.now(UTC).date()
    lines = [f"# {comment}" for comment in comments]
    for key in keys:
        lines += [f"# {key.id}, made {today}", f"{key.use} {key.material.reveal()}"]
    return "\n".join(lines) + "\n"


@contextmanager
def _written(path: Path, text: str) -> Iterator[Path]:
    """A draft beside the file, 0600 and on disk; what the body did with it is on disk afterwards, and the draft is gone."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)
        with _directory(path) as directory:
            os.fsync(directory)


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """One process at a time changes the file: the lock is on its directory, since the file itself is replaced, and dies with us."""
    with _directory(path) as directory:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
