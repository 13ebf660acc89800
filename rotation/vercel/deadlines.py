"""A total deadline for an HTTP call.

httpx's time-outs are for each read: a server that sends one byte now and then holds a call for as long as it likes. So every connect,
read and write below httpx is clamped here to what is left of the call.

The call is found through a context variable. A request's extensions reach httpcore's connections, but not the streams below them, where
the bytes move; and the synchronous httpcore does all work for a call on the caller's own thread, so the variable is always the right one.
"""

from __future__ import annotations

import errno
import ipaddress
import queue
import socket
import ssl
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rotation.cases import Deadline
    from rotation.ports import Clock

Resolved = tuple[str, ...] | OSError | UnicodeError


class MayNotSendError(Exception):
    """The caller's last check forbade the request."""


@dataclass(slots=True)
class Call:
    """One HTTP call: when it must have ended, how far it came, and what stopped it while it connected."""

    deadline: Deadline
    clock: Clock
    may_send: Callable[[], bool] | None = None
    """Asked when the next byte is the first of the request."""
    sent: bool = False
    """Whether the first byte of the request may have left: set before the write, so that it is never wrong on the safe side."""
    trouble: str = ""

    def left(self) -> float:
        """Seconds that are left; zero or less when it is over."""
        return self.deadline.left(self.clock.monotonic())

    def clamp(self, timeout: float | None, over: type[httpcore.TimeoutException]) -> float:
        """The smaller of `timeout` and what is left. Raises `over` when nothing is left."""
        left = self.left()
        if left <= 0:
            raise over("the call's deadline is over")
        return left if timeout is None else min(timeout, left)


_CALL: ContextVar[Call] = ContextVar("rollover_vercel_call")


@contextmanager
def during(call: Call) -> Iterator[None]:
    """Everything that httpx does on this thread inside belongs to `call`."""
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


class DeadlineTransport(httpx.HTTPTransport):
    """httpx's transport over HTTP/1.1 with the clamping backend. Every request must be sent inside `during`."""

    def __init__(self, ssl_context: ssl.SSLContext, limits: httpx.Limits) -> None:
        # httpx has no parameter for the backend, so the pool is made here as HTTPTransport.__init__ makes it.
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            http1=True,
            http2=False,
            retries=0,
            network_backend=DeadlineBackend(),
        )


class DeadlineBackend(httpcore.NetworkBackend):
    """httpcore's socket backend, with every wait clamped to the call's deadline."""

    def __init__(self) -> None:
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first of the host's addresses that answers, all of it within the call's deadline."""
        call = _CALL.get()
        failure: httpcore.ConnectError | httpcore.ConnectTimeout = httpcore.ConnectError("the name has no address")
        for address in _addresses(host, call):
            try:
                within = call.clamp(timeout, httpcore.ConnectTimeout)
                return DeadlineStream(self._sockets.connect_tcp(address, port, within, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                call.trouble = f"could not connect{cause_of(error)}"
                failure = error
        raise failure


class DeadlineStream(httpcore.NetworkStream):
    """A connection whose reads and writes end by the deadline of the call that makes them."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._served = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes."""
        self._served = True
        return self._stream.read(max_bytes, _CALL.get().clamp(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of `buffer`. The time is clamped anew for each piece that the kernel takes: a server can read slowly, too."""
        call = _CALL.get()
        call.clamp(timeout, httpcore.WriteTimeout)
        if not call.sent:
            if call.may_send is not None and not call.may_send():
                raise MayNotSendError
            # On a kept connection nothing can be readable before a request but the server's goodbye. Sending into it would make an unknown
            # outcome out of nothing. (Not on a new one: TLS 1.3 sends session tickets of its own accord.)
            if self._served and self._stream.get_extra_info("is_readable"):
                call.trouble = "the kept connection was closed"
                raise httpcore.ConnectError(call.trouble)
            call.sent = True
        connection: socket.socket = self._stream.get_extra_info("socket")
        while buffer:
            connection.settimeout(call.clamp(timeout, httpcore.WriteTimeout))
            try:
                buffer = buffer[connection.send(buffer) :]
            except TimeoutError as error:
                raise httpcore.WriteTimeout(error) from None
            except OSError as error:
                raise httpcore.WriteError(error) from None

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Secure the connection. Python's handshake counts its time-out over all reads and writes together."""
        call = _CALL.get()
        try:
            within = call.clamp(timeout, httpcore.ConnectTimeout)
            return DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, within))
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            call.trouble = f"TLS failed{cause_of(error)}"
            raise

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - the interface of httpcore
        """Facts about the socket."""
        return self._stream.get_extra_info(info)


def cause_of(error: BaseException) -> str:
    """The name that the system or OpenSSL has for what happened, as a short text; never a message, which may quote the other side."""
    cause = error.args[0] if error.args else None
    if isinstance(cause, TimeoutError) or isinstance(error, httpcore.TimeoutException):
        return ": timed out"
    if isinstance(cause, ssl.SSLError):
        return f": {cause.reason}" if cause.reason else ""
    if isinstance(cause, OSError) and cause.errno is not None:
        return f": {errno.errorcode.get(cause.errno, cause.errno)}"
    return ""


def _addresses(host: str, call: Call) -> tuple[str, ...]:
    """The addresses of a host, by a thread of its own, because the system's resolver takes no time-out."""
    try:
        return (str(ipaddress.ip_address(host)),)
    except ValueError:
        pass
    answers: queue.SimpleQueue[Resolved] = queue.SimpleQueue()
    threading.Thread(target=_resolve, args=(host, answers), name="resolve", daemon=True).start()
    try:
        resolved = answers.get(timeout=call.clamp(None, httpcore.ConnectTimeout))
    except queue.Empty:
        call.trouble = "could not resolve the name: timed out"
        raise httpcore.ConnectTimeout(call.trouble) from None
    if isinstance(resolved, tuple):
        return resolved
    call.trouble = "could not resolve the name"
    raise httpcore.ConnectError(call.trouble)


def _resolve(host: str, answers: queue.SimpleQueue[Resolved]) -> None:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        answers.put(error)
    else:
        answers.put(tuple(dict.fromkeys(str(entry[4][0]) for entry in found)))
