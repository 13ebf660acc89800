"""Logging in to PostgreSQL as somebody, and hearing why it was refused.

libpq's error of a failed login has no SQLSTATE, only words in the server's language. So the quick way in is psycopg, and when it fails,
pg8000 asks once more and hears the code.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pg8000.core
import pg8000.exceptions
from psycopg import pq

from rotation.engines.deadlines import BoundedConnection, NoConnection, bounded, connect
from rotation.engines.scram import login_keys, salting_of
from rotation.engines.tls import FALLS_BACK, PLAIN, is_verified, tls_context, tls_parameters
from rotation.errors import Refused, RolloverError, Unavailable, Unreachable
from rotation.model import APPLICATION_NAME

if TYPE_CHECKING:
    from rotation.engines.deadlines import TimeLeft
    from rotation.engines.hosts import Hosts
    from rotation.model import Endpoint, Login, Server

BAD_PASSWORD = "28P01"  # noqa: S105 - an SQLSTATE
NOT_PERMITTED = "28000"
"""The role may not log in or does not exist; also that pg_hba.conf has no entry for it."""
PROTOCOL_VIOLATION = "08P01"
"""What newer PgBouncers say of a bad password, and of other things."""
KEYS_SINCE = 180000
"""libpq logs in with SCRAM keys since 18."""
NO_TLS = "Server refuses SSL"
"""pg8000's words."""
REFUSING = frozenset({BAD_PASSWORD, NOT_PERMITTED, "3D000", "42501"})
"""Codes that will be the same the next time; the last two: no such database, no right to connect to it."""


class LoginRefused(Refused):
    """The server does not let this login in."""


PLAIN_TEXT = b"\0\0\0\3"
"""AuthenticationCleartextPassword in the message of an authentication request (PostgreSQL's manual, "Message Formats")."""


class AskedInPlainText(Exception):
    """A server that has not proved who it is asked for the password itself."""


class Probe(pg8000.core.CoreConnection):  # type: ignore[misc]  # pg8000 has no types
    """A login that tells the password itself only where it may, and that leaves no socket open when it fails."""

    _usock: socket.socket | None = None

    def __init__(self, *given: object, plain_text: bool, **named: object) -> None:
        self._plain_text = plain_text
        try:
            super().__init__(*given, **named)
        except BaseException:
            if self._usock is not None:
                self._usock.close()
            raise

    def handle_AUTHENTICATION_REQUEST(self, data: bytes, context: object) -> None:  # noqa: N802 - the library's name
        """Raises `AskedInPlainText` where pg8000 would answer and must not."""
        if data[:4] == PLAIN_TEXT and not self._plain_text:
            raise AskedInPlainText
        super().handle_AUTHENTICATION_REQUEST(data, context)


@dataclass(frozen=True, slots=True)
class Door:
    """One way in: a database of a server, at one of its endpoints."""

    server: Server
    place: Endpoint
    database: str

    def __str__(self) -> str:
        """How messages call it."""
        return f"{self.server.name} (endpoint {self.place.name})" if self.place.name else self.server.name

    def unreachable(self, how: str) -> Unavailable:
        """The error for a door at which nobody answers: only the server's own says something about the server."""
        return Unavailable(f"{self} {how}") if self.place.name else Unreachable(f"{self} {how}")


class Logins:
    """Logging in at any door, by the TLS settings of its server."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    def log_in(self, door: Door, login: Login, time_left: TimeLeft, *, options: str = "") -> BoundedConnection:
        """An open connection. Raises `Refused` when the server says no for good, `Unavailable` for anything else."""
        ways = [{"password": login.password.reveal()}]
        # Should it have another salt by now, the password will do.
        if login.verifier is not None and not door.place.name and pq.version() >= KEYS_SINCE:
            ways.insert(0, login_keys(login.password, salting_of(login.verifier)))
        for way in ways:
            for address in self._hosts.addresses(door.place.host, time_left()):
                parameters = {
                    "host": door.place.host,
                    "hostaddr": address,
                    "port": str(door.place.port),
                    "user": login.username,
                    "dbname": door.database,
                    "application_name": APPLICATION_NAME,
                    "options": options,
                    **tls_parameters(door.server),
                    **way,
                }
                with contextlib.suppress(NoConnection):
                    return connect(parameters, time_left)
        raise self._reason(door, login, time_left)

    def refusal(self, door: Door, login: Login, time_left: TimeLeft) -> str | None:
        """The SQLSTATE with which the login is refused; None when it gets in.

        Raises `Unreachable` when the server did not answer, `Unavailable` when another endpoint did not, `Refused` when what did
        answer has the wrong certificate.
        """
        for address in self._hosts.addresses(door.place.host, time_left()):
            with contextlib.suppress(NoConnection):
                return _answer(address, door, login, time_left)
        raise door.unreachable("cannot be reached")

    def _reason(self, door: Door, login: Login, time_left: TimeLeft) -> RolloverError:
        code = self.refusal(door, login, time_left)
        if code is None:
            return Unavailable(f"{door}: the login {login.username} failed once, and then worked")
        if code in REFUSING:
            refused = LoginRefused if code in (BAD_PASSWORD, NOT_PERMITTED) else Refused
            return refused(f"{door} refused the login {login.username} with {code}")
        return Unavailable(f"{door} did not take the login {login.username}: {code}")


def _answer(address: str, door: Door, login: Login, time_left: TimeLeft) -> str | None:
    """What the server at this address says: an SQLSTATE, or None when it lets the login in. Raises `NoConnection` when it says nothing."""
    mode, root = door.server.sslmode, door.server.sslrootcert
    try:
        try:
            return _code(address, door, login, time_left, False if mode in PLAIN else tls_context(mode, root))
        except pg8000.exceptions.InterfaceError as error:
            if str(error) != NO_TLS:
                raise
            if mode != FALLS_BACK:
                raise Refused(f"{door} offers no TLS", advice="turn TLS on there, or set sslmode") from None
            return _code(address, door, login, time_left, False)
    except AskedInPlainText:
        raise Refused(
            f"{door} asks for the password in plain text, and has not proved who it is", advice="set sslmode to verify-full"
        ) from None
    except ssl.SSLCertVerificationError:
        raise Refused(
            f"{door} shows a certificate that cannot be verified", advice="set sslrootcert to its root, or mend the host"
        ) from None
    except (OSError, pg8000.exceptions.InterfaceError, pg8000.core.scramp.ScramException, struct.error, LookupError, ValueError):
        # Nobody there, cut off by our own deadline, or not PostgreSQL.
        raise NoConnection from None


def _code(address: str, door: Door, login: Login, time_left: TimeLeft, tls: ssl.SSLContext | Literal[False]) -> str | None:
    with socket.create_connection((address, door.place.port), timeout=max(time_left(), 0.001)) as wire, bounded(wire, time_left):
        # Else each of pg8000's small messages waits 40 ms for the acknowledgement of the one before.
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            Probe(
                login.username,
                host=door.place.host,
                database=door.database,
                password=login.password.reveal(),
                application_name=APPLICATION_NAME,
                sock=wire,
                ssl_context=tls,
                plain_text=is_verified(door.server),
            ).close()
        except pg8000.exceptions.DatabaseError as refusal:
            return str(refusal.args[0].get("C", ""))
    return None
