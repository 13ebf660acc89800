"""PostgreSQL past SQLAlchemy and psycopg's cursors: for the few statements that every rotation makes, at less than half of their cost.

Values go as text, and each parameter says in the statement of which type it is: `$1::timestamptz`. So a statement is prepared once a
connection, and one call of libpq (PQexecPrepared) sends it and waits for the answer, with every other thread free to run. Each statement
stands alone, in a transaction of its own.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import psycopg
from psycopg import pq
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.sql.compiler import SQLCompiler

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ClauseElement, Engine

MOST = 32
"""Connections of one process: as many as SQLAlchemy's pool has, which is another one."""
SECONDS = 10
"""How long a thread waits for one."""

NUMBERED = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # not annotated there

GOOD = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK})


class NoneFree(Exception):
    """All connections are in use."""


class ConnectionLost(Exception):
    """The server is gone, or has ended the connection: whether it has done what it was asked is not known. Holds no more than a code."""


@dataclass(slots=True)
class _Direct:
    """One connection, and the names of what it has prepared."""

    connection: psycopg.Connection
    names: dict[str, bytes] = field(default_factory=dict)

    def answer(self, text: str, values: Sequence[str | None]) -> str | None:
        pgconn = self.connection.pgconn
        name = self.names.get(text)
        if name is None:
            name = f"direct{len(self.names)}".encode()
            self._expect_good(pgconn.prepare(name, text.encode()))
            self.names[text] = name
        encoded = [None if value is None else value.encode() for value in values]
        result = pgconn.exec_prepared(name, cast("list[bytes]", encoded))  # NULL is None: the stubs forget it
        self._expect_good(result)
        found = result.get_value(0, 0) if result.ntuples else None
        return None if found is None else found.decode()

    def _expect_good(self, result: pq.abc.PGresult) -> None:
        if result.status not in GOOD:
            raise psycopg.errors.error_from_result(result, encoding="utf-8")

    @property
    def fit(self) -> bool:
        """Whether the next statement can use it."""
        return self.connection.pgconn.transaction_status == pq.TransactionStatus.IDLE


class CompiledStatement:
    """A statement of SQLAlchemy's as `DirectConnections` takes it, compiled once. Every value is given as PostgreSQL reads it from text."""

    def __init__(self, statement: ClauseElement, around: tuple[str, str] = ("", "")) -> None:
        """`around` is constant text before and after the statement, of which it becomes a part."""
        compiled = statement.compile(dialect=NUMBERED)
        if not isinstance(compiled, SQLCompiler):
            raise TypeError("it is no statement that takes parameters")
        self.text = f"{around[0]}{compiled}{around[1]}"
        self._names = tuple(compiled.positiontup or ())
        self._constants = {name: str(value) for name, value in compiled.params.items() if value is not None}

    def values(self, given: Mapping[str, str]) -> list[str]:
        """The values of its parameters, in the order of their numbers."""
        return [given[name] if name in given else self._constants[name] for name in self._names]


class DirectConnections:
    """The connections of one engine for such statements. Safe for any number of threads; `let_go` after a fork."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._places = threading.BoundedSemaphore(MOST)
        self._idle: deque[_Direct] = deque()

    def answer(self, text: str, values: Sequence[str | None]) -> str | None:
        """The first column of the first row of what the statement answers, as text; None where there is none.

        Raises `NoneFree`, `ConnectionLost`, SQLAlchemy's errors for a connection that does not come about, and psycopg's for whatever
        the server says.
        """
        if not self._places.acquire(timeout=SECONDS):
            raise NoneFree
        try:
            idle = self._idle
            direct = _popped(idle) or self._opened()
            try:
                return direct.answer(text, values)
            except psycopg.Error as error:
                if not direct.connection.closed:
                    raise
                raise ConnectionLost(error.sqlstate or "the connection broke") from None
            finally:
                if direct.fit:
                    idle.append(direct)
                else:
                    direct.connection.close()
                if idle is not self._idle:  # all were let go of meanwhile
                    _close(idle)
        finally:
            self._places.release()

    def let_go(self, *, close: bool) -> None:
        """Forget the idle connections, and close them unless they belong to a parent; those in use are closed when they are done."""
        idle, self._idle = self._idle, deque()
        if close:
            _close(idle)

    def _opened(self) -> _Direct:
        """By the engine, which learns the server's ways at its first connection while all others wait for that."""
        pooled = self._engine.raw_connection()
        connection = cast("psycopg.Connection", pooled.driver_connection)
        pooled.detach()
        connection.autocommit = True
        return _Direct(connection)


def _popped(idle: deque[_Direct]) -> _Direct | None:
    """The one that was used last: it is the least likely to have been lost meanwhile."""
    try:
        return idle.pop()
    except IndexError:
        return None


def _close(idle: deque[_Direct]) -> None:
    while (direct := _popped(idle)) is not None:
        direct.connection.close()
