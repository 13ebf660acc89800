"""What a secret's URL says, taken apart strictly: no foreign text is ever handed to a driver as a connection string."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from rotation.errors import Refused
from rotation.model import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rotation.model import Login, RenderedSecret, Resource
    from rotation.sensitive import Sensitive

SCHEMES = ("postgresql://", "postgres://")
DEFAULT_PORT = 5432
_PLAIN = re.compile(r"[!-~]+")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_REDIRECTING = frozenset({"host", "hostaddr", "port", "user", "password", "passfile", "dbname", "service", "servicefile"})
"""Options by which a URL would log in somewhere else, or as somebody else, than its own parts say."""


def endpoints(resource: Resource) -> tuple[Endpoint, ...]:
    """Every place where the resource's database is published; the first is the server itself unless the spec names it otherwise."""
    named = resource.spec.database.endpoints
    if any(endpoint.name == "" for endpoint in named):
        return named
    return (Endpoint("", resource.server.host, resource.server.port), *named)


def targets(resource: Resource, login: Login, secrets: Sequence[RenderedSecret]) -> tuple[Endpoint, ...]:
    """Where to log in so that every URL and every endpoint is covered, each once.

    Raises `Refused` when a URL is not well formed, or names another host, user, password or database than it must. The message names
    the secret and the part, never a value.
    """
    places = endpoints(resource)
    for name, value in _values(secrets):
        if value.reveal().lower().startswith(SCHEMES):
            _expect(name, value, resource, login, places)
    return places


def _values(secrets: Sequence[RenderedSecret]) -> Iterator[tuple[str, Sensitive]]:
    for secret in secrets:
        yield secret.name, secret.value
        for environment, value in secret.overrides:
            yield f"{secret.name} for {environment}", value


def _expect(name: str, value: Sensitive, resource: Resource, login: Login, places: Sequence[Endpoint]) -> None:
    parts = _parts(name, value.reveal())
    host, port = (parts.hostname or "").lower(), parts.port or DEFAULT_PORT
    if not any((host, port) == (place.host.lower(), place.port) for place in places):
        raise _wrong(name, "names a host and port that are none of the resource's endpoints")
    if unquote(parts.username or "", errors="strict") != login.username:
        raise _wrong(name, "names another user than the login")
    if unquote(parts.password or "", errors="strict") != login.password.reveal():
        raise _wrong(name, "holds another password than the login's, or one that is not encoded for a URL")
    if unquote(parts.path[1:], errors="strict") != resource.spec.database.name:
        raise _wrong(name, "names another database than the resource's")


def _parts(name: str, text: str) -> SplitResult:
    """The URL's parts where every reader of URLs would see the same ones."""
    if not _PLAIN.fullmatch(text) or _BROKEN_ESCAPE.search(text):
        raise _wrong(name, "holds characters that a URL must encode")
    try:
        parts = urlsplit(text)
        port_is_sound = parts.port is None or parts.port > 0
        unquote(text, errors="strict")
    except ValueError:
        raise _wrong(name, "is not a well formed URL") from None
    if parts.netloc.count("@") != 1 or "," in parts.netloc or not port_is_sound or parts.fragment or text.endswith("#"):
        raise _wrong(name, "is not a URL of one user at one host")
    if parts.path.count("/") != 1:
        raise _wrong(name, "names no database, or more than one")
    if _REDIRECTING & {key.lower() for key, _ in parse_qsl(parts.query, keep_blank_values=True)}:
        raise _wrong(name, "has an option that would replace its host, user, password or database")
    return parts


def _wrong(name: str, problem: str) -> Refused:
    return Refused(f"the URL in the secret {name} {problem}", advice="mend the template of this secret")
