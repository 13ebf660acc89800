"""The addresses of other systems that settings may name: what is accepted, and how each is shown without its secrets.

Every refusal is a `ValueError` whose text is for a person and repeats nothing of the address: it may hold a password.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pathlib import Path
    from urllib.parse import SplitResult

    from sqlalchemy import URL

_POSTGRESQL = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
_SQLITE = frozenset({"sqlite", "sqlite+pysqlite"})
_ASYNCHRONOUS = ("asyncpg", "psycopg_async", "aiosqlite")
_METADATA = frozenset({"metadata", "metadata.google.internal", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"})
BROKERS = ("redis", "rediss", "amqp", "amqps")


def store_address(text: str) -> URL:
    """The store's URL for SQLAlchemy, with the driver that this program uses: psycopg for PostgreSQL, the standard library's for SQLite."""
    from sqlalchemy import make_url  # noqa: PLC0415 - who uses no store, such as beat, does without a quarter of all imports
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):  # a port that is no number is a ValueError
        raise ValueError("is not a database URL, or has characters in its password that must be percent-encoded") from None
    if url.drivername in _POSTGRESQL:
        return _postgresql(url)
    if url.drivername in _SQLITE:
        return _sqlite(url)
    if url.drivername.endswith(_ASYNCHRONOUS):
        raise ValueError("names an asynchronous driver: begin it with postgresql:// or sqlite:///")
    raise ValueError("is neither PostgreSQL nor SQLite: begin it with postgresql:// or sqlite:///")


def _postgresql(url: URL) -> URL:
    if "password" in url.query or "passfile" in url.query:
        raise ValueError("has a password among its options, where it would be shown: write postgresql://user:password@host/database")
    if not url.host and "host" not in url.query:
        raise ValueError("names no host: write postgresql://user:password@host/database")
    return url.set(drivername="postgresql+psycopg")


def _sqlite(url: URL) -> URL:
    if not url.database or url.database.startswith((":memory:", "file:")):
        raise ValueError("names no file: every process opens the store by itself, so write sqlite:////directory/file.db")
    if not url.database.startswith("/"):
        raise ValueError("names a relative file, which each process would look for elsewhere: write sqlite:////directory/file.db")
    if url.query:
        raise ValueError("has options, which SQLite's store does not take: write sqlite:////directory/file.db")
    return sqlite_address(url.database)


def sqlite_address(path: Path | str) -> URL:
    """The URL of a SQLite file; any character may be in its path."""
    from sqlalchemy import URL  # noqa: PLC0415 - as above

    return URL.create("sqlite+pysqlite", database=str(path))


def broker_address(text: str) -> str:
    """The broker's URL, for kombu."""
    written = text.strip()
    parts = _split(written)
    if parts.scheme not in BROKERS:
        raise ValueError("is no broker that this program uses: begin it with redis://, rediss://, amqp:// or amqps://")
    return written


def service_address(text: str) -> str:
    """The URL of an HTTP service without a slash at its end: https, or http on this machine alone. It holds no login and no query."""
    written = text.strip()
    parts = _split(written)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("has a login, a query or a fragment: give scheme, host and path alone")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("is not encrypted: begin it with https:// (http:// is for this machine alone)")
    if parts.scheme not in ("http", "https"):
        raise ValueError("is not an address of a web service: begin it with https://")
    return written.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its name or number alone; no name is looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_guarded(host: str) -> bool:
    """Whether no database may be there unless a setting allows it: this machine itself, link-local addresses, a cloud's metadata service.

    By name or number alone: a name that leads there is for the engine to refuse when it has looked it up.
    """
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or name in _METADATA:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast


def masked_address(text: str) -> str:
    """The address for people: scheme, host, port and path. A login, options and whatever cannot be told apart from them are left out."""
    try:
        parts = _split(text)
    except ValueError:
        return "[hidden]"
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    login = "[hidden]@" if "@" in parts.netloc else ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{login}{shown}{port}{parts.path}"


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError("is not a URL, or has characters in its password that must be percent-encoded") from None
    # An unescaped / ? or # in a password ends the host early and leaves the rest of the password in the path.
    if parts.netloc.count("@") > 1 or "@" in parts.path + parts.query + parts.fragment:
        raise ValueError("has characters in its password that must be percent-encoded, such as @ / ? or #")
    if not has_host or any(character.isspace() for character in text):
        raise ValueError("is not a URL with a host")
    return parts
