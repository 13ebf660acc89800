"""What the admin login does on a server: reads, and acts that change nothing when they come too late.

An act is one message to the server: its statements run in one transaction, whose first and last statement compare the server's clock
with the deadline, and the server has all of it or nothing. So a worker that is frozen in the middle holds no lock, and one that wakes
up too late changes nothing.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql

from rotation.engines.postgresql_errors import sort_error
from rotation.engines.postgresql_logins import Door, LoginRefused
from rotation.engines.postgresql_pool import ServerPool
from rotation.engines.server_clocks import ServerClocks
from rotation.errors import AdminRefused
from rotation.model import Endpoint, Login

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rotation.cases import Deadline
    from rotation.engines.deadlines import BoundedConnection, TimeLeft
    from rotation.engines.postgresql_logins import Logins
    from rotation.model import Server
    from rotation.ports import Clock
    from rotation.sensitive import Sensitive

SERVER_IDLE = "300s"
"""The server ends a session of ours that a dead worker left behind."""

LIMITED_SINCE = 170000
"""`transaction_timeout` came with PostgreSQL 17."""

EARLIER_LIMITS = (
    "set_config('search_path', '', true), set_config('statement_timeout', '{left:d}', true), set_config('lock_timeout', '{lock:d}', true),"
    " set_config('idle_in_transaction_session_timeout', '{left:d}', true)"
)
LIMITS = EARLIER_LIMITS + ", set_config('transaction_timeout', '{left:d}', true)"
"""In every message, so made of numbers alone without psycopg's help, which takes longer than the server does."""

USUAL = ""
"""Stands for the database that the admin's URL names: it is read when a connection is opened, not for each that is in the pool."""

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class AdminLogin:
    """The login that makes and removes the others: CREATEROLE, never a superuser. `database` is where it is when none is named."""

    username: str
    password: Sensitive
    database: str = "postgres"


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """A query that changes nothing, planned once a connection, since planning is most of what it costs.

    Its parameters `$1`, `$2`, … are texts. The server counts those of its plans that are made for the values at hand, and takes one for
    all after five, provided that it looks no dearer (manual, "PREPARE", Notes).
    """

    name: LiteralString
    parameters: int
    text: LiteralString

    @property
    def preparation(self) -> sql.Composed:
        """The statement that prepares it."""
        kinds = sql.SQL(", ").join([sql.SQL("text")] * self.parameters)
        return sql.SQL("PREPARE {name}({kinds}) AS {text}").format(name=sql.Identifier(self.name), kinds=kinds, text=sql.SQL(self.text))

    def of(self, *values: str) -> sql.Composed:
        """The statement that asks for these values."""
        return sql.SQL("EXECUTE {name}({values})").format(
            name=sql.Identifier(self.name), values=sql.SQL(", ").join(map(sql.Literal, values))
        )


class AdminSessions:
    """Sessions of the admin logins on all servers. Connections are opened when first used, in the process that uses them."""

    def __init__(self, admin_logins: Callable[[Server], AdminLogin], logins: Logins, clock: Clock) -> None:
        self._admin_logins = admin_logins
        self._logins = logins
        self._clock = clock
        self._pools: dict[tuple[int, Server], ServerPool] = {}
        self.clocks = ServerClocks(clock)
        """What is known of the servers' own clocks."""

    def username(self, server: Server) -> str:
        """Who the admin is."""
        return self._admin_logins(server).username

    def time_left(self, deadline: Deadline) -> TimeLeft:
        """The deadline as a countdown on our clock."""
        return lambda: deadline.left(self._clock.monotonic())

    @contextmanager
    def session(self, server: Server, deadline: Deadline, database: str | None = None) -> Iterator[AdminSession]:
        """The admin on this server, in its usual database unless another is named.

        Raises `Unavailable` when there is no connection in time, `Refused` when the admin itself is refused.
        """
        # A process that was forked from us must not touch our connections.
        key = (os.getpid(), server)
        pool = self._pools.get(key) or self._pools.setdefault(key, self._new_pool(server))
        time_left = self.time_left(deadline)
        with pool.connection(database or USUAL, time_left) as connection:
            yield AdminSession(server, connection, deadline, self)

    def _new_pool(self, server: Server) -> ServerPool:
        def open_connection(database: str, time_left: TimeLeft) -> BoundedConnection:
            admin = self._admin_logins(server)
            door = Door(server, Endpoint("", server.host, server.port), database if database != USUAL else admin.database)
            options = f"-c idle_session_timeout={SERVER_IDLE} -c client_encoding=UTF8"
            try:
                return self._logins.log_in(door, Login(admin.username, admin.password), time_left, options=options)
            except LoginRefused as refused:
                raise AdminRefused(str(refused), advice=f"mend the admin login of {server.name}, or give its new URL") from None

        return ServerPool(server.name, server.connections, open_connection)

    def close(self) -> None:
        """Close the connections that this process does not use just now. It may go on using others."""
        for key in [key for key in self._pools if key[0] == os.getpid()]:
            self._pools.pop(key).close()

    def now(self) -> float:
        """Our monotonic clock."""
        return self._clock.monotonic()

    def left(self, deadline: Deadline) -> float:
        """Seconds that are left of it."""
        return deadline.left(self._clock.monotonic())


class AdminSession:
    """One connection of the admin, for the length of one act."""

    def __init__(self, server: Server, connection: BoundedConnection, deadline: Deadline, sessions: AdminSessions) -> None:
        self._server = server
        self._connection = connection
        self._deadline = deadline
        self._sessions = sessions

    @property
    def version(self) -> int:
        """As in `server_version_num`, e.g. 180006."""
        return self._connection.info.server_version

    def left(self) -> float:
        """Seconds until the deadline."""
        return self._sessions.left(self._deadline)

    def rows(self, what: str, query: sql.Composed | sql.SQL) -> list[Row]:
        """The rows of a query that changes nothing. Names are looked up in `pg_catalog` alone: a tenant's objects must not answer.

        Raises `Unavailable` when there is no answer in time, `Refused` when the admin may not ask.
        """
        return self.rows_of(what, query)[0]

    def rows_of(self, what: str, *queries: sql.Composed | sql.SQL) -> list[list[Row]]:
        """The same for several queries in one message, which see the same instant but for what others commit meanwhile."""
        script = sql.SQL("SELECT clock_timestamp(), {limits}; {queries}").format(
            limits=self._limits(None), queries=sql.SQL("; ").join(queries)
        )
        asked_at = self._sessions.now()
        try:
            cursor = self._connection.execute(script)
            first = cursor.fetchone()
            answers = []
            for number in range(1, len(queries) + 1):
                cursor.set_result(number)
                answers.append(cursor.fetchall())
        except psycopg.Error as error:
            raise sort_error(error, what, self._server.name, sent=False) from None
        if first is not None:
            self._sessions.clocks.note(self._server, first[0], asked_at)
        return answers

    def asking(self, query: PreparedQuery, *values: str) -> sql.Composed:
        """The query for these values, to be sent in a message of this session; it is prepared first where this connection does not know it.

        Raises as `rows` does.
        """
        if query.name not in self._connection.prepared:
            script = sql.SQL("SELECT {limits}; {preparation}").format(limits=self._limits(None), preparation=query.preparation)
            try:
                self._connection.execute(script)
            except psycopg.Error as error:
                raise sort_error(error, "prepare a query", self._server.name, sent=False) from None
            self._connection.prepared.add(query.name)
        return query.of(*values)

    def act(self, what: str, statements: Sequence[sql.Composed | sql.SQL], *, lock_seconds: float | None = None) -> list[Row]:
        """Run the statements in one transaction, unless it is too late by the server's clock: then nothing changes.

        Gives the rows of the last statement, if it has any. Raises `LostClaim` when it is too late, `OutcomeUnknown` when the
        connection was lost with the answer still to come.
        """
        limit = self._sessions.clocks.limit(self._server, self._deadline, what, lambda: self.rows("read the clock", sql.SQL("SELECT 1")))
        in_time = sql.SQL("SELECT 1 / (clock_timestamp() < {limit})::int").format(limit=sql.Literal(limit))
        script = sql.SQL("{in_time}, {limits}; {statements}; {in_time}").format(
            in_time=in_time, limits=self._limits(lock_seconds), statements=sql.SQL("; ").join(statements)
        )
        try:
            cursor = self._connection.execute(script)
            cursor.set_result(-2)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise sort_error(error, what, self._server.name, sent=True) from None

    def _limits(self, lock_seconds: float | None) -> sql.SQL:
        """What bounds the rest of the transaction on the server's side; what is left of the deadline bounds it all."""
        left = max(self.left(), 0.001)
        lock = left if lock_seconds is None else min(left, lock_seconds)
        limits: LiteralString = LIMITS if self.version >= LIMITED_SINCE else EARLIER_LIMITS
        return sql.SQL(limits.format(left=_milliseconds(left), lock=_milliseconds(lock)))


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 1)
