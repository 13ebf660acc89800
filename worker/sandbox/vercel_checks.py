"""What the local Vercel refuses in a body, as strictly as the public documents of the real one: unknown keys, types, names, sizes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet

MOST_SECRETS = 100
LONGEST_NAME = 256
LONGEST_VALUE = 65_536
LARGEST_TOTAL = 64 * 1024
ENVIRONMENTS = frozenset({"development", "preview", "production"})
LEVELS = frozenset({"info", "warn", "error"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class BadBodyError(Exception):
    """The body is refused with 400. The message names a place, never a value."""


@dataclass(frozen=True, slots=True)
class HeldSecret:
    """One variable as the local Vercel holds it."""

    name: str
    value: str
    prefix: str | None
    overrides: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SecretsBody:
    """A checked body of a push."""

    secrets: tuple[HeldSecret, ...]
    partial: bool


def secrets_body(body: object) -> SecretsBody:
    """Check the body of a push."""
    root = _object(body, "body", required={"secrets"}, optional={"partial"})
    partial = root.get("partial", False)
    if not isinstance(partial, bool):
        raise BadBodyError("partial: must be a boolean")
    items = root["secrets"]
    if not isinstance(items, list):
        raise BadBodyError("secrets: must be an array")
    if len(items) > MOST_SECRETS:
        raise BadBodyError(f"secrets: more than {MOST_SECRETS}")
    secrets = tuple(_secret(item, f"secrets[{index}]") for index, item in enumerate(items))
    if len({secret.name for secret in secrets}) < len(secrets):
        raise BadBodyError("secrets: a name is given twice")
    if sum(len(text.encode()) for secret in secrets for text in (secret.name, secret.value)) >= LARGEST_TOTAL:
        raise BadBodyError("secrets: together too large")
    return SecretsBody(secrets, partial)


def notification_body(body: object) -> Mapping[str, str] | None:
    """Check the body that shows a notice on a resource, or clears it with null."""
    notice = _object(body, "body", required={"notification"})["notification"]
    if notice is None:
        return None
    fields = _object(notice, "notification", required={"level", "title"}, optional={"message", "href"})
    for key, longest in (("level", 5), ("title", 100), ("message", 500), ("href", 2048)):
        if key in fields:
            _text(fields[key], f"notification.{key}", longest)
    if fields["level"] not in LEVELS:
        raise BadBodyError("notification.level: unknown")
    return {key: str(value) for key, value in fields.items()}


def event_body(body: object) -> Mapping[str, str]:
    """Check the body of an event."""
    event = _object(_object(body, "body", required={"event"})["event"], "event", required={"type", "resourceId"}, optional={"productId"})
    if event["type"] != "resource.updated":
        raise BadBodyError("event.type: unknown")
    return {key: _text(value, f"event.{key}", LONGEST_NAME) for key, value in event.items()}


def _secret(item: object, place: str) -> HeldSecret:
    fields = _object(item, place, required={"name", "value"}, optional={"prefix", "environmentOverrides"})
    name = _text(fields["name"], f"{place}.name", LONGEST_NAME)
    prefix = _text(fields["prefix"], f"{place}.prefix", LONGEST_NAME) if "prefix" in fields else None
    for part, text in (("name", name), ("prefix", prefix)):
        if text is not None and not _NAME.fullmatch(text):
            raise BadBodyError(f"{place}.{part}: not a variable's name")
    return HeldSecret(name, _text(fields["value"], f"{place}.value", LONGEST_VALUE), prefix, dict(_overrides(fields, place)))


def _overrides(fields: Mapping[str, object], place: str) -> Iterator[tuple[str, str]]:
    place = f"{place}.environmentOverrides"
    for environment, value in _object(fields.get("environmentOverrides", {}), place, optional=ENVIRONMENTS).items():
        yield environment, _text(value, f"{place}.{environment}", LONGEST_VALUE)


def _object(
    value: object,
    place: str,
    *,
    required: AbstractSet[str] = frozenset(),
    optional: AbstractSet[str] = frozenset(),
) -> dict[str, object]:
    if not isinstance(value, dict):
        raise BadBodyError(f"{place}: must be an object")
    if missing := required - value.keys():
        raise BadBodyError(f"{place}: {min(missing)} is missing")
    if unknown := value.keys() - required - optional:
        raise BadBodyError(f"{place}: should NOT have additional property `{min(unknown)[:64]}`")
    return value


def _text(value: object, place: str, longest: int) -> str:
    if not isinstance(value, str):
        raise BadBodyError(f"{place}: must be a string")
    if not value:
        raise BadBodyError(f"{place}: must not be empty")
    if len(value) > longest:
        raise BadBodyError(f"{place}: longer than {longest}")
    return value
