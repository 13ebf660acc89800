"""Connections to the store: how they are set up, what their errors mean, and that none of them tells a secret."""

from __future__ import annotations

import multiprocessing
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy.exc
from sqlalchemy import insert, select, text, update

from rotation.errors import Conflict, IllegalMove, OutcomeUnknown, Refused, RolloverError, Unavailable
from rotation.model import Schedule
from rotation.ports import Terms
from rotation.store.database import make_engine, sort_error
from rotation.store.sql import SqlStore
from rotation.store.tables import installations, requests, rotations
from tests.fakes.clock import FakeClock
from tests.sql_stores import AUDIT_KEY
from tests.store_samples import INSTALLATION, SERVER, ask, event, offered, planned, present, spec, verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rotation.cases import RotationCase
    from tests.sql_stores import SqlBench

SECRET = "hunter2-canary"


@pytest.fixture
def store(sql_bench: SqlBench) -> SqlStore:
    store = sql_bench.store
    store.add_installation(INSTALLATION, event("installation_added"))
    store.add_server(SERVER, event("server_added"))
    store.register(spec(), "res_1", Schedule(), None, event("resource_registered"))
    return store


def setting(store: SqlStore, name: str) -> Any:  # noqa: ANN401 - whatever the database answers
    with store.database.writing() as connection:
        return connection.scalar(text(name))


def test_sqlite_does_not_lose_a_commit(sqlite_bench: SqlBench) -> None:
    values = {
        name: setting(sqlite_bench.store, f"PRAGMA {name}") for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    }
    assert values == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5_000}


def test_postgresql_does_not_lose_a_commit_nor_wait_for_ever(postgresql_bench: SqlBench) -> None:
    names = ("synchronous_commit", "lock_timeout", "statement_timeout", "timezone", "transaction_isolation", "application_name")
    assert [setting(postgresql_bench.store, f"SHOW {name}") for name in names] == ["on", "5s", "15s", "UTC", "read committed", "rollover"]


def test_on_sqlite_a_reader_does_not_wait_for_a_writer(sqlite_bench: SqlBench) -> None:
    with sqlite_bench.store.database.writing() as connection:
        connection.execute(insert(installations), {"id": "icfg_9", "parked_reason": ""})
        assert sqlite_bench.store.installations() == ()
    assert len(sqlite_bench.store.installations()) == 1


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "postgresql+psycopg2://localhost/x", "mysql://localhost/x"])
def test_a_store_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        make_engine(url)


def test_a_server_that_cannot_be_reached_is_unavailable_and_no_password_is_told() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"postgresql+psycopg://rollover:{SECRET}@127.0.0.1:{nobody.getsockname()[1]}/rollover"
        store = SqlStore(url, clock=FakeClock(), terms=Terms(), audit_key=AUDIT_KEY)
        with pytest.raises(Unavailable) as caught:
            store.now()
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert caught.value.__suppress_context__
    store.dispose()


def test_a_refused_statement_tells_no_parameter(store: SqlStore) -> None:
    row = {"id": "req_1", "resource_id": SECRET, "rotation_id": "rot_9", "trigger": "manual", "actor": "x", "received_at": store.now()}
    with pytest.raises(IllegalMove) as caught, store.database.writing() as connection:
        connection.execute(insert(requests), {**row, "reason": ""})
    assert SECRET not in str(caught.value)


def test_a_lock_that_is_held_too_long_makes_the_store_unavailable(postgresql_bench: SqlBench) -> None:
    store = postgresql_bench.store

    def wait_a_moment() -> None:
        with store.database.writing() as other:
            other.execute(text("SET LOCAL lock_timeout = '10ms'"))
            store.audit.lock(store.database, other, "installations")

    with store.database.writing() as one:
        store.audit.lock(store.database, one, "installations")
        with pytest.raises(Unavailable):
            wait_a_moment()


def test_a_writer_that_cannot_begin_makes_the_store_unavailable(sqlite_bench: SqlBench) -> None:
    store = sqlite_bench.store

    def wait_a_moment() -> None:
        with store.database.reading() as other:
            other.execute(text("PRAGMA busy_timeout = 1"))
            other.execute(update(installations).values(parked_reason="x"))

    with store.database.writing() as one:
        store.audit.lock(store.database, one, "installations")
        with pytest.raises(Unavailable):
            wait_a_moment()


def test_a_connection_that_the_server_ended_is_unavailable_once(postgresql_bench: SqlBench) -> None:
    store = postgresql_bench.store
    store.now()
    end_sessions(store)
    with pytest.raises(Unavailable):
        store.now()
    assert store.now().tzinfo is not None


def end_sessions(store: SqlStore) -> None:
    """End every session of the store's database but our own, from outside of the pool."""
    url = store.database.engine.url.set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_commit_whose_answer_is_lost_is_unknown(postgresql_bench: SqlBench) -> None:
    store = postgresql_bench.store

    def lose_the_answer() -> None:
        with store.database.writing() as connection:
            connection.execute(select(installations))
            end_sessions(store)

    with pytest.raises(OutcomeUnknown):
        lose_the_answer()


def test_every_error_of_a_driver_is_one_of_ours() -> None:
    def wrapped(error: Exception, kind: type[sqlalchemy.exc.DBAPIError], *, lost: bool = False) -> sqlalchemy.exc.DBAPIError:
        return kind("SELECT 1", None, error, connection_invalidated=lost)

    cases: list[tuple[sqlalchemy.exc.DBAPIError, bool, type[RolloverError]]] = [
        (wrapped(psycopg.errors.UniqueViolation(), sqlalchemy.exc.IntegrityError), False, Conflict),
        (wrapped(psycopg.errors.ForeignKeyViolation(), sqlalchemy.exc.IntegrityError), False, IllegalMove),
        (wrapped(psycopg.errors.UndefinedTable(), sqlalchemy.exc.ProgrammingError), False, Unavailable),
        (wrapped(psycopg.errors.SyntaxError(), sqlalchemy.exc.ProgrammingError), False, IllegalMove),
        (wrapped(psycopg.errors.DeadlockDetected(), sqlalchemy.exc.OperationalError), False, Unavailable),
        (wrapped(psycopg.errors.SerializationFailure(), sqlalchemy.exc.OperationalError), True, Unavailable),
        (wrapped(psycopg.errors.CharacterNotInRepertoire(), sqlalchemy.exc.DataError), False, Refused),
        (wrapped(psycopg.OperationalError(), sqlalchemy.exc.OperationalError, lost=True), False, Unavailable),
        (wrapped(psycopg.OperationalError(), sqlalchemy.exc.OperationalError, lost=True), True, OutcomeUnknown),
    ]
    for error, commits, kind in cases:
        assert type(sort_error(error, commits=commits)) is kind


def test_may_send_says_no_when_the_store_does_not_answer(store: SqlStore) -> None:
    case = offer(store)
    (attempt,) = case.attempts
    assert store.may_send(case.claim, attempt)
    with store.database.writing() as connection:
        connection.execute(text("ALTER TABLE attempts RENAME TO hidden"))
    try:
        assert not store.may_send(case.claim, attempt)
    finally:
        with store.database.writing() as connection:
            connection.execute(text("ALTER TABLE hidden RENAME TO attempts"))


def offer(store: SqlStore) -> RotationCase:
    case = present(store.claim_rotation(store.amend("res_1", ask)))
    steps: tuple[Callable[[RotationCase], Any], ...] = (planned, verified, offered)
    for step in steps:
        case = present(store.record_rotation(case, step(case)))
    return case


def test_a_state_of_a_newer_version_is_left_alone(store: SqlStore) -> None:
    rotation_id = store.amend("res_1", ask)
    with store.database.writing() as connection:
        connection.execute(update(rotations).values(state="rehearsed"))
    assert store.due_rotations(10, urgent=False) == ()
    assert store.claim_rotation(rotation_id) is None
    with pytest.raises(Refused, match="rehearsed"):
        store.views.rotation(rotation_id)


def test_a_forked_worker_uses_connections_of_its_own(store: SqlStore) -> None:
    store.now()
    known = store.installations()
    fork = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[int] = fork.Queue()

    def child() -> None:
        store.dispose(close=False)
        answers.put(len(store.installations()))

    process = fork.Process(target=child)
    process.start()
    assert answers.get(timeout=30) == len(known)
    process.join(30)
    assert process.exitcode == 0
    assert store.installations() == known


def test_many_threads_share_the_pool(store: SqlStore) -> None:
    together = threading.Barrier(24)
    failures: list[RolloverError] = []

    def work() -> None:
        together.wait(10)
        try:
            for _ in range(5):
                store.amend("res_1", ask)
        except RolloverError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.views.rotation(store.views.rotations()[0].rotation.id).requests) == 120


@pytest.fixture(autouse=True)
def _threads_are_over() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() <= before + 1


def test_a_time_without_a_zone_is_not_stored(store: SqlStore) -> None:
    parked = replace(INSTALLATION, id="icfg_2", parked_at=store.now().replace(tzinfo=None))
    with pytest.raises((ValueError, sqlalchemy.exc.StatementError)):
        store.add_installation(parked, event("installation_added"))
