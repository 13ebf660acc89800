"""One HTTP request and its answer, by a total deadline, as a value: nothing that the network or the other side does raises here."""

from __future__ import annotations

import ipaddress
import ssl
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from rotation.errors import Fault, Invalid
from rotation.vercel.deadlines import Call, DeadlineTransport, MayNotSendError, cause_of, during

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rotation.cases import Deadline
    from rotation.ports import Clock

LARGEST_BODY = 64 * 1024
"""Bytes of an answer's body that are read; the rest is left where it is."""
_HEADERS = {"User-Agent": "rollover", "Accept": "application/json", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request. `status` is None when no answer came; `whole` says that the body was read to its end.

    `sent` is False only when certainly not one byte of the request left. `problem` is a short text of ours for a person.
    """

    status: int | None
    sent: bool
    whole: bool = False
    problem: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


def check_address(field: str, url: str) -> str:
    """The address as it is. Raises `Invalid` for anything but HTTPS, except on this machine itself, and for one with credentials."""
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and parts.port != 0 and not parts.fragment and "@" not in parts.netloc
    except ValueError:
        sound = False
    if not sound:
        raise Invalid([Fault(field, "is not an address", "like https://api.vercel.com")])
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_this_machine(parts.hostname or "")):
        raise Invalid([Fault(field, "must begin with https://", "plain http:// only for 127.0.0.1, ::1 and localhost")])
    return url


class HttpClient:
    """Sends requests over kept connections: HTTP/1.1, TLS verified, no proxy, no redirect, no cookie.

    It may be used by several threads, and must be made after a fork. `keepalive_expiry` stays below the five seconds after which common
    servers close an idle connection, so that a request seldom meets a closing one.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        ca_file: str | None = None,
        connect_timeout: timedelta = timedelta(seconds=5),
        keepalive_expiry: timedelta = timedelta(seconds=4),
    ) -> None:
        self._clock = clock
        self._connect_timeout = connect_timeout.total_seconds()
        self._verify = httpx.create_ssl_context(trust_env=False) if ca_file is None else ssl.create_default_context(cafile=ca_file)
        self._verify.hostname_checks_common_name = False  # a host stands in the list of names; in the common name anything may
        self._limits = httpx.Limits(max_connections=None, max_keepalive_connections=2, keepalive_expiry=keepalive_expiry.total_seconds())
        # Without httpx's client: nothing is followed, nothing is read from the environment, and nothing is remembered from one customer
        # for another.
        self._idle: deque[DeadlineTransport] = deque()

    @contextmanager
    def _transport(self) -> Iterator[DeadlineTransport]:
        """A transport for one call alone, the one that was used last if any is free.

        A pool of httpcore's that threads share looks whether a connection is idle and then whether the server has said goodbye. If
        another thread begins a request and gets its answer between the two, its connection is closed under it (httpcore 1.0.9, tried):
        an unknown outcome out of nothing.
        """
        try:
            transport = self._idle.pop()
        except IndexError:
            transport = DeadlineTransport(self._verify, self._limits)
        try:
            yield transport
        finally:
            self._idle.append(transport)

    def send(
        self,
        method: str,
        url: str,
        deadline: Deadline,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        may_send: Callable[[], bool] | None = None,
    ) -> Answer:
        """Send one request and read its answer. `may_send` is asked once the connection stands; False means that no byte is sent."""
        call = Call(deadline, self._clock, may_send)
        left = max(call.left(), 0.001)
        timeout = {"connect": min(left, self._connect_timeout), "read": left, "write": left, "pool": left}
        request = httpx.Request(method, url, headers={**_HEADERS, **headers}, content=body, extensions={"timeout": timeout})
        with during(call), self._transport() as transport:
            try:
                response = transport.handle_request(request)
            except MayNotSendError:
                return Answer(None, sent=False, problem="not sent: the claim or the time to send is over")
            except httpx.TransportError as error:
                return Answer(None, call.sent, problem=_problem(error, call))
            return _read(response, call)

    def close(self) -> None:
        """Close every connection that no call uses."""
        while self._idle:
            self._idle.pop().close()


def _read(response: httpx.Response, call: Call) -> Answer:
    body = bytearray()
    problem = ""
    try:
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > LARGEST_BODY:
                problem = "the body is too long"
                break
    except httpx.TransportError as error:
        problem = f"the body broke off: {_problem(error, call)}"
    finally:
        response.close()
    return Answer(response.status_code, call.sent, not problem, problem, response.headers, bytes(body[:LARGEST_BODY]))


def _problem(error: httpx.TransportError, call: Call) -> str:
    if not call.sent and call.trouble:
        return call.trouble
    match error:
        case httpx.TimeoutException():
            return "timed out"
        case httpx.RemoteProtocolError():
            return "the connection was closed, or the answer is not HTTP"
        case httpx.NetworkError():
            return f"the connection broke{cause_of(error.__cause__ or error)}"
        case _:
            return "the request could not be sent"


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
