"""Connections to the store's database: how they are set up, how transactions begin and end, and what their errors mean."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg
import sqlalchemy.exc
from sqlalchemy import Engine, Interval, bindparam, create_engine, event, func, select, type_coerce
from sqlalchemy.engine import make_url
from sqlalchemy.pool import QueuePool

from rotation.errors import Conflict, IllegalMove, OutcomeUnknown, Refused, RolloverError, Unavailable
from rotation.model import APPLICATION_NAME
from rotation.store.direct import ConnectionLost, DirectConnections, NoneFree
from rotation.store.tables import UtcTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime, timedelta

    from sqlalchemy import URL, ColumnElement, Connection

    from rotation.ports import Clock

Statement = TypeVar("Statement")

POOL_SIZE = 16
POOL_OVERFLOW = 16
POOL_SECONDS = 10
"""How long a thread waits for a connection before the store counts as unavailable."""

LOCK_MILLISECONDS = 5_000
STATEMENT_MILLISECONDS = 15_000
CONNECT_SECONDS = 5

SESSION_SETTINGS = {
    "timezone": "UTC",
    # An answer that a crash of the server takes back would be a pushed password that is on record nowhere.
    "synchronous_commit": "on",
    "default_transaction_isolation": r"read\ committed",
    "lock_timeout": str(LOCK_MILLISECONDS),
    "statement_timeout": str(STATEMENT_MILLISECONDS),
    "idle_in_transaction_session_timeout": str(STATEMENT_MILLISECONDS),
}

SQLITE_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    # NORMAL can lose the last commit in a power cut.
    "PRAGMA synchronous = FULL",
    f"PRAGMA busy_timeout = {LOCK_MILLISECONDS}",
    "PRAGMA foreign_keys = ON",
)

BEGIN = "store_begin"
"""The execution option that says how a transaction begins on SQLite, whose driver leaves that to us."""

UNIQUE = "23505"
UNDEFINED_TABLE = "42P01"
SQLITE_UNIQUE = {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"}

NONE_FREE = "the store: all connections are in use"
ANSWER_LOST = "the store's answer was lost"
NOT_MIGRATED = "the store has no tables, or older ones: run `rollover migrate`"


def make_engine(url: str | URL) -> Engine:
    """An engine for PostgreSQL (`postgresql+psycopg://`) or SQLite (`sqlite:///`). It connects only when it is used.

    Raises `Refused` for any other kind of URL.
    """
    parsed = make_url(url)
    pool: dict[str, Any] = {"poolclass": QueuePool, "pool_size": POOL_SIZE, "max_overflow": POOL_OVERFLOW, "pool_timeout": POOL_SECONDS}
    match parsed.get_backend_name(), parsed.get_driver_name():
        case "postgresql", "psycopg":
            return create_engine(parsed, hide_parameters=True, pool_use_lifo=True, connect_args=_postgresql_arguments(), **pool)
        case "sqlite", "pysqlite" if parsed.database not in (None, "", ":memory:"):
            engine = create_engine(parsed, hide_parameters=True, pool_use_lifo=True, **pool)
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
    raise Refused(f"the store cannot be on {parsed.drivername}", advice="use postgresql+psycopg://user@host/name or sqlite:///a/file")


def _postgresql_arguments() -> dict[str, Any]:
    return {
        "application_name": APPLICATION_NAME,
        "client_encoding": "utf8",
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": STATEMENT_MILLISECONDS,
        "options": " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items()),
    }


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own transactions begin late and never with IMMEDIATE: None leaves them to `_begin_sqlite`.
    connection.isolation_level = None
    for pragma in SQLITE_PRAGMAS:
        connection.execute(pragma)


def _begin_sqlite(connection: Connection) -> None:
    begin = connection.get_execution_options().get(BEGIN, "BEGIN")
    if begin is not None:
        connection.exec_driver_sql(begin)


SERVER_NOW = select(func.clock_timestamp(type_=UtcTime()))


def per_dialect(build: Callable[[ColumnElement[datetime], ColumnElement[datetime]], Statement]) -> Mapping[str, Statement]:
    """A statement for each database, made of the store's clock and of the time until which something lasts.

    PostgreSQL's clock is read once by a subquery, so that an index can be used for a comparison with it.
    """
    server_now = SERVER_NOW.scalar_subquery()
    now, until = bindparam("now", type_=UtcTime()), bindparam("until", type_=UtcTime())
    return {
        "postgresql": build(server_now, type_coerce(server_now + bindparam("until", type_=Interval()), UtcTime())),
        "sqlite": build(now, until),
    }


class Database:
    """Transactions on one engine, with every error sorted. Safe for any number of threads; `dispose` after a fork."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.engine = engine
        self.clock = clock
        self.dialect = engine.dialect.name
        self._single: Engine
        self._write: Engine
        self._snapshot: Engine
        self._direct = DirectConnections(engine)
        if self.dialect == "sqlite":
            self._single = engine.execution_options(**{BEGIN: None})
            self._write = engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
            self._snapshot = engine
        else:
            self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
            self._write = engine
            self._snapshot = engine.execution_options(isolation_level="REPEATABLE READ")

    def now(self) -> datetime:
        """The store's clock: the server's on PostgreSQL, this machine's on SQLite."""
        if self.dialect == "sqlite":
            return self.clock.now()
        with self.reading() as connection:
            return self.now_in(connection)

    def now_in(self, connection: Connection) -> datetime:
        """The store's clock, asked within a transaction."""
        if self.dialect == "sqlite":
            return self.clock.now()
        return connection.execute(SERVER_NOW).scalar_one()

    def moment(self, lasting: timedelta | None = None) -> dict[str, datetime | timedelta]:
        """The parameters `now` and `until` of a statement that was made by `per_dialect`."""
        if self.dialect != "sqlite":
            return {} if lasting is None else {"until": lasting}
        now = self.clock.now()
        return {"now": now} if lasting is None else {"now": now, "until": now + lasting}

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which each statement stands alone."""
        with _sorted_errors(), self._single.connect() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection on which all statements see the same instant."""
        with _sorted_errors(), self._snapshot.connect() as connection:
            yield connection

    @contextmanager
    def single_write(self) -> Iterator[Connection]:
        """A connection for one statement that writes. Raises `OutcomeUnknown` when its answer was lost."""
        with _sorted_errors(commits=True), self._single.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction: everything or nothing. Raises `OutcomeUnknown` when the answer to its commit was lost."""
        with _sorted_errors(), self._write.connect() as connection:
            yield connection
            with _sorted_errors(commits=True):
                connection.commit()

    @contextmanager
    def direct(self) -> Iterator[DirectConnections]:
        """PostgreSQL past SQLAlchemy, for a statement of which every rotation makes several.

        Each stands alone. Raises `OutcomeUnknown` when its answer was lost.
        """
        try:
            with _sorted_errors():
                yield self._direct
        except NoneFree:
            raise Unavailable(NONE_FREE) from None
        except ConnectionLost as lost:
            self.dispose()  # the others were lost with it
            raise OutcomeUnknown(f"{ANSWER_LOST}: {lost}") from None
        except psycopg.Error as error:
            raise _sorted(error) from None

    def dispose(self, *, close: bool = True) -> None:
        """Close all idle connections. With `close=False` only let go of them: right after a fork they belong to the parent."""
        self.engine.dispose(close=close)
        self._direct.let_go(close=close)


@contextmanager
def _sorted_errors(*, commits: bool = False) -> Iterator[None]:
    try:
        yield
    except sqlalchemy.exc.DBAPIError as error:
        raise sort_error(error, commits=commits) from None  # the cause holds the statement's parameters
    except sqlalchemy.exc.TimeoutError:
        raise Unavailable(NONE_FREE) from None


def _sorted(error: psycopg.Error) -> RolloverError:
    """An error that came past SQLAlchemy, sorted as if SQLAlchemy had wrapped it."""
    wrapped = sqlalchemy.exc.DBAPIError.instance(None, None, error, psycopg.Error, hide_parameters=True)
    return sort_error(cast("sqlalchemy.exc.DBAPIError", wrapped), commits=False)


def sort_error(error: sqlalchemy.exc.DBAPIError, *, commits: bool) -> RolloverError:
    """What an error of the driver means: the code, never a parameter."""
    code = _code(error.orig)
    if code == UNIQUE or code in SQLITE_UNIQUE:
        return Conflict(f"the store has such a row already ({_constraint(error.orig)})")
    if code == UNDEFINED_TABLE or "no such table" in str(error.orig) or "no such column" in str(error.orig):
        return Unavailable(NOT_MIGRATED)
    if isinstance(error, sqlalchemy.exc.IntegrityError | sqlalchemy.exc.ProgrammingError):
        return IllegalMove(f"the store refused a statement: {code}")
    if isinstance(error, sqlalchemy.exc.DataError):
        return Refused(f"the store cannot hold this value: {code}", advice="leave out control characters")
    if commits and error.connection_invalidated:
        return OutcomeUnknown(f"{ANSWER_LOST}: {code}")
    return Unavailable(f"the store does not answer: {code}")


def _code(error: BaseException | None) -> str:
    if isinstance(error, psycopg.Error):
        return error.sqlstate or type(error).__name__
    if isinstance(error, sqlite3.Error):
        return str(getattr(error, "sqlite_errorname", type(error).__name__))
    return type(error).__name__


def _constraint(error: BaseException | None) -> str:
    """Which row: the names of the index or the columns, never their values."""
    if isinstance(error, psycopg.Error):
        return error.diag.constraint_name or UNIQUE
    return str(error).removeprefix("UNIQUE constraint failed: ")
