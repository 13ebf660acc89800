"""The last step before a log line is written: hides what must not be readable. A net below the rope, not the rope.

Secrets are kept out of log lines in the first place: they travel as `Sensitive`, which has no readable form. What still gets this far
is hidden by its type, then by the name that it has, then because it is one of the few secrets of our own settings, then by its looks.

Passwords of customers are not looked up by value: a list of them would keep every one of them alive in this process and grow with the
fleet. The secrets of the settings live as long as the process anyway.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit
from uuid import UUID

from pydantic import SecretBytes, SecretStr

from rotation.sensitive import Sensitive

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN = "[hidden]"
LONGEST_TEXT = 8_192
"""Characters of one value: what servers answer is foreign, and may be of any size."""
_LONGEST_SEARCHED = 64 * 1024
_DEEPEST = 8
_MOST_ITEMS = 200
_MOST_ROUNDS = 5
_CUT = " … [cut]"
_NAMES_KEPT = 1_024
_SHORTEST_KNOWN = 8
"""Characters; replacing shorter secrets wherever they occur would tear ordinary words apart."""
_SHORTEST_KEY = 32
"""Characters of a word in a keyring that is taken for a key."""

_TELLING = ("password", "passwd", "passphrase", "secret", "token", "authorization", "verifier", "cookie", "bearer", "credentials")
_TELLING_ALONE = frozenset({"auth", "dsn", "pwd", "keyring", "signature", "canary"})
_HARMLESS_HEADS = frozenset(
    {"age", "at", "bytes", "count", "env", "expires", "file", "id", "ids", "kind", "length", "name", "names", "path", "set", "type", "url"},
)
"""What a name that ends in one of these says about a secret may be read: `password_length`, `secret_names`, `token_url`."""
_HARMLESS_KEYS = frozenset({"idempotency_key", "routing_key", "cache_key", "primary_key", "foreign_key", "public_key"})
_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")

_SUSPECT = (
    *("://", "@", "scram", "md5", "eyj", "private", "bearer", "basic", "passw", "pwd", "phrase", "secret", "token", "key"),
    *("authorization", "verifier", "identified"),
)
"""In lower case. Whatever one of the patterns below matches holds one of these; looking for them takes a tenth of a pattern's time."""
_WORD = re.compile(r"\S+")
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
    (re.compile(r"SCRAM-SHA-(1|256|512)\$(?!\[hidden\])\S+"), rf"SCRAM-SHA-\1${HIDDEN}"),
    (re.compile(r"\bmd5[0-9a-f]{32}\b"), HIDDEN),
    (re.compile(r"\b(bearer)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"\b(basic)\s+[A-Za-z0-9+/=]{16,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"), HIDDEN),
    (re.compile(r"\b(password|identified\s+by)\s+(?:E?'(?:[^']|'')*(?:'|\Z)|\"[^\"]*(?:\"|\Z))", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (
        re.compile(
            r"(passw(?:or)?d|pwd|passphrase|secret|token|api[_-]?key|private[_-]?key|authorization|verifier)(\\{0,9}[\"']?\s{0,3}[:=]\s{0,3})"
            r"(?!\[hidden\])(?:\\{0,9}\"[^\"]*(?:\"|\Z)|\\{0,9}'[^']*(?:'|\Z)|[^\s,;&)}\]]+)",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}",
    ),
)


class Redactor:
    """Hides secrets in whatever a log line may hold. Never raises; doing it twice changes nothing more."""

    def __init__(self, known: Iterable[Sensitive] = ()) -> None:
        forms = {form for secret in known for form in _forms(secret) if len(form) >= _SHORTEST_KNOWN}
        self._known = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))) if forms else None
        self._name = lru_cache(_NAMES_KEPT)(self.text)

    def __repr__(self) -> str:
        """Nothing of what it knows."""
        return "Redactor(…)"

    def fields(self, fields: Mapping[str, object], *, long: Collection[str] = ()) -> dict[str, object]:
        """The fields of a log line. Those named in `long` keep their line ends."""
        return {
            self._name(str(name)): self.text(value, lines=True) if name in long and isinstance(value, str) else self._named(name, value, 0)
            for name, value in fields.items()
        }

    def value(self, value: object) -> object:
        """A value of any kind, as plain data."""
        return self._value(value, 0)

    def text(self, text: str, *, lines: bool = False) -> str:
        """A text with what looks like a secret hidden, control characters escaped, and cut where it is too long."""
        if len(text) > _LONGEST_SEARCHED:
            # A secret that is cut in two has no looks any more: the last word goes as a whole.
            text = _whole_words(text[:_LONGEST_SEARCHED]) + _CUT
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        # Some letters that are not ASCII count as others where case does not matter: for the patterns, not for `lower`.
        if not text.isascii() or any(map(text.lower().__contains__, _SUSPECT)):
            text = _settled(text)
        text = _escaped(text, lines=lines)
        return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - len(_CUT)] + _CUT

    def _named(self, name: object, value: object, depth: int) -> object:
        if is_telling(str(name)) and value is not None and not isinstance(value, bool):
            return HIDDEN
        return self._value(value, depth)

    def _value(self, value: object, depth: int) -> object:
        if type(value) is str:  # almost all are
            return self.text(value)
        match value:
            case Sensitive() | SecretStr() | SecretBytes():
                return HIDDEN
            case Enum():
                return self._value(value.value, depth + 1)
            case None | bool() | int() | float():
                return value
            case str() | datetime() | date() | time() | timedelta() | UUID() | PurePath():
                return self.text(str(value))
            case _:
                return self._compound(value, depth)

    def _compound(self, value: object, depth: int) -> object:
        if depth >= _DEEPEST:
            return "[too deep]"
        try:
            return self._taken_apart(value, depth)
        except Exception:  # noqa: BLE001 - a foreign object may raise anything when it is looked at, and a log line must not break its caller
            return f"[unreadable {type(value).__name__}]"

    def _taken_apart(self, value: object, depth: int) -> object:
        match value:
            case Mapping():
                items = list(value.items())[:_MOST_ITEMS]
                return {self.text(_written(name)): self._named(_written(name), one, depth + 1) for name, one in items}
            case tuple() if hasattr(value, "_asdict"):  # SQLAlchemy's URL is one, with the password among its fields
                return self._taken_apart(value._asdict(), depth)
            case list() | tuple() | set() | frozenset():
                return [self._value(one, depth + 1) for one in list(value)[:_MOST_ITEMS]]
            case bytes() | bytearray() | memoryview():
                return f"[{len(value)} bytes]"
            case BaseException():
                return self.text(f"{type(value).__name__}: {value}")
            case _:
                return self.text(repr(value))


@lru_cache(_NAMES_KEPT)  # names, never values: the same few in every line
def is_telling(name: str) -> bool:
    """Whether a value of this name is to be hidden, whatever it is."""
    words = [word.lower() for word in _WORD_ENDS.split(name) if word]
    if not words or "_".join(words) in _HARMLESS_KEYS or (words[-1] in _HARMLESS_HEADS and len(words) > 1):
        return False
    joined = "".join(words)
    if any(word in joined for word in _TELLING) or not _TELLING_ALONE.isdisjoint(words):
        return True
    return joined.endswith(("key", "keys"))


def _settled(text: str) -> str:
    """Every pattern, until nothing changes: what one has hidden can bring together what another looks for."""
    for _ in range(_MOST_ROUNDS):
        before = text
        text = _WORD.sub(_without_login, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        if text == before:
            break
    return text


def _whole_words(text: str) -> str:
    return text[: max(text.rfind(space) for space in " \t\r\n") + 1]


def _without_login(word: re.Match[str]) -> str:
    """A URL without user and password. Up to the last @: a password may hold unescaped ones, and a slash."""
    text = word[0]
    begin, end = text.find("://"), text.rfind("@")
    return text if begin < 0 or end < begin else f"{text[:begin]}://{HIDDEN}{text[end:]}"


def _written(name: object) -> str:
    return name if isinstance(name, str) else HIDDEN if isinstance(name, bytes) else repr(name)


def _forms(secret: Sensitive) -> set[str]:
    """A secret as it may be met: itself, the keys of a keyring, its password where it is a URL, each raw and percent-encoded."""
    text = secret.reveal()
    forms = {text} | {word for word in re.split(r"[\s,\"'=:]+", text) if len(word) >= _SHORTEST_KEY}
    try:
        password = urlsplit(text).password if "://" in text else None
    except ValueError:
        password = None
    if password:
        forms |= {password, unquote(password)}
    return forms | {quote(form, safe="") for form in forms}


def _escaped(text: str, *, lines: bool) -> str:
    """The text without anything that a terminal might obey or that would look like another log line."""
    if text.isprintable():
        return text
    kept = "\n\t" if lines else "\t"
    return "".join(one if one.isprintable() or one in kept else _escape(one) for one in text)


def _escape(one: str) -> str:
    """A character in letters. What parted two words still does, or a second look would take them for one."""
    return one.encode("unicode_escape").decode() + (" " if one.isspace() else "")
