"""How a server's `sslmode` and `sslrootcert` are told to libpq and to Python: the words and meanings are libpq's."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import pq

if TYPE_CHECKING:
    from rotation.model import Server

PLAIN = frozenset({"disable", "allow"})
"""Modes that begin without TLS."""

FALLS_BACK = "prefer"

METHODS_SINCE = 160000
"""libpq can be told by which methods it may log in since 16."""


def tls_parameters(server: Server) -> dict[str, str]:
    """For libpq. Where the server must be verified and no root is named, the system's roots are used, as for the web."""
    parameters = {"sslmode": server.sslmode, "gssencmode": "disable"}
    if not is_verified(server) and pq.version() >= METHODS_SINCE:
        parameters["require_auth"] = "!password"
    root = server.sslrootcert
    if root is None and server.sslmode.startswith("verify"):
        root = _system_roots()
    if root is not None:
        parameters["sslrootcert"] = root
    return parameters


def is_verified(server: Server) -> bool:
    """Whether the server has to prove who it is. One that has not is never told a password in plain text, should it ask for that.

    libpq verifies with `require`, too, when a root is named (libpq's manual, "SSL Mode Descriptions").
    """
    return server.sslmode.startswith("verify") or (server.sslmode == "require" and server.sslrootcert is not None)


def _system_roots() -> str:
    """The file of Python's OpenSSL: the one inside of psycopg's wheel looks where another system keeps its roots."""
    paths = ssl.get_default_verify_paths()
    for name in (paths.cafile, paths.openssl_cafile):
        if name and Path(name).exists():
            return name
    return "system"


@lru_cache(maxsize=64)
def tls_context(sslmode: str, sslrootcert: str | None) -> ssl.SSLContext:
    """For Python's own sockets. Kept, because loading the system's roots takes 20 ms."""
    context = ssl.create_default_context(cafile=sslrootcert)
    context.check_hostname = sslmode == "verify-full"
    # libpq verifies with `require`, too, when a root is named (libpq's manual, "SSL Mode Descriptions").
    if not sslmode.startswith("verify") and (sslrootcert is None or sslmode != "require"):
        context.verify_mode = ssl.CERT_NONE
    return context
