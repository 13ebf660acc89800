"""A connection to PostgreSQL whose every wait ends in time, also when the server is frozen and answers nothing at all.

Time-outs of the server do nothing against a frozen server, and psycopg's and libpq's own count whole seconds of single steps.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import psycopg
from psycopg import pq
from psycopg.rows import TupleRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg.abc import PQGen

Result = TypeVar("Result")
TimeLeft = Callable[[], float]
"""Seconds that are left of a deadline; zero or less when it is over."""

SLICE_SECONDS = 0.1
"""How often a wait looks up, so that a signal is handled."""


FAREWELL_SECONDS = 1.0
"""How long the server gets to let go of a session that we closed."""


class NoConnection(Exception):
    """No connection came about. Holds nothing of the attempt: libpq's own error holds the password."""


class BoundedConnection(psycopg.Connection[TupleRow]):
    """A connection that raises `psycopg.OperationalError` when its time is over; it is good for nothing after that."""

    time_left: TimeLeft
    prepared: set[str]
    """The names of the statements that the server keeps for it."""

    def __del__(self, _warn: object = None) -> None:
        """Without psycopg's warning: a pool goes with its process, and a forked child must not touch what it inherited."""

    def wait(self, gen: PQGen[Result], interval: float = SLICE_SECONDS, timeout: float | None = None) -> Result:
        """Every exchange with the server goes through here."""
        left = max(self.time_left(), 0.0)
        return super().wait(gen, interval, left if timeout is None else min(timeout, left))

    @property
    def fresh(self) -> bool:
        """Whether it is between transactions and the server has said nothing on its own, which is only ever a farewell."""
        if self.closed or self.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            return False
        return not _ready(self.pgconn.socket, select.POLLIN, 0)

    def end(self, time_left: TimeLeft) -> None:
        """Close, and wait until the server has let go as well: it counts a session against its limits until then."""
        if self.closed:
            return
        until = time.monotonic() + min(FAREWELL_SECONDS, max(time_left(), 0.0))
        with suppress(OSError), socket.socket(fileno=os.dup(self.pgconn.socket)) as twin:
            self.close()
            while _ready(twin.fileno(), select.POLLIN, until - time.monotonic()) and twin.recv(4096):
                pass
        # Where no descriptor was left for the twin.
        self.close()


def connect(parameters: Mapping[str, str], time_left: TimeLeft) -> BoundedConnection:
    """A connection in autocommit mode. Raises `NoConnection`, also when the time is over before it stands."""
    pgconn = pq.PGconn.connect_start(_conninfo(parameters).encode())
    try:
        _establish(pgconn, time_left)
    except NoConnection:
        pgconn.finish()
        raise
    pgconn.nonblocking = 1
    connection = BoundedConnection(pgconn)
    connection.time_left = time_left
    connection.prepared = set()
    connection.autocommit = True
    connection.prepare_threshold = None
    return connection


@contextmanager
def bounded(wire: socket.socket, time_left: TimeLeft) -> Iterator[None]:
    """Shut the connection down when the time is over, whoever reads from it then and however. `wire` may be wrapped in the meantime."""
    with wire.dup() as twin:
        watchdog = threading.Timer(max(time_left(), 0.0), _shut_down, [twin])
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()
            # Until it has ended it may still use the descriptor, which somebody else might get next.
            watchdog.join()


def _conninfo(parameters: Mapping[str, str]) -> str:
    """As libpq's manual has it ("Keyword/Value Connection Strings"). psycopg's own has libpq read it, twice, before it is used."""
    escaped = ((name, value.replace("\\", "\\\\").replace("'", "\\'")) for name, value in parameters.items())
    return " ".join(f"{name}='{value}'" for name, value in escaped)


def _shut_down(wire: socket.socket) -> None:
    with suppress(OSError):
        wire.shutdown(socket.SHUT_RDWR)


def _establish(pgconn: pq.abc.PGconn, time_left: TimeLeft) -> None:
    """The loop that libpq's manual gives for PQconnectPoll."""
    wanted = select.POLLOUT
    while pgconn.status != pq.ConnStatus.BAD:
        if not _ready(pgconn.socket, wanted, time_left()):
            break
        match pgconn.connect_poll():
            case pq.PollingStatus.OK:
                return
            case pq.PollingStatus.READING:
                wanted = select.POLLIN
            case pq.PollingStatus.WRITING:
                wanted = select.POLLOUT
            case _:
                break
    raise NoConnection


def _ready(descriptor: int, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(max(seconds, 0) * 1000))
