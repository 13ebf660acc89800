"""Statements that go to PostgreSQL past SQLAlchemy: prepared once, answered as text, and what becomes of a connection afterwards."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import text

from rotation.errors import OutcomeUnknown, Unavailable
from rotation.store import direct
from rotation.store.direct import ConnectionLost, DirectConnections, NoneFree
from tests.processes import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sql_stores import SqlBench

WHO = "SELECT pg_backend_pid()"
PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'direct%'"
WAITING = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
END_MYSELF = "SELECT pg_terminate_backend(pg_backend_pid())"


@pytest.fixture
def connections(postgresql_bench: SqlBench) -> Iterator[DirectConnections]:
    made = DirectConnections(postgresql_bench.store.database.engine)
    yield made
    made.let_go(close=True)


def test_values_come_back_as_they_were_given(connections: DirectConnections) -> None:
    given = ["Zürich 'quoted' \\ ☃", "", None]
    assert [connections.answer("SELECT $1::text", [value]) for value in given] == given
    assert connections.answer("SELECT 1 WHERE $1::bool", ["false"]) is None


def test_a_statement_is_prepared_once_and_its_connection_used_again(connections: DirectConnections) -> None:
    assert len({connections.answer(WHO, []) for _ in range(3)}) == 1
    assert connections.answer(PREPARED, []) == "2"


def test_what_the_server_refuses_leaves_the_connection_as_it_was(connections: DirectConnections) -> None:
    before = connections.answer(WHO, [])
    with pytest.raises(psycopg.errors.DivisionByZero):
        connections.answer("SELECT 1 / $1::int", ["0"])
    assert connections.answer(WHO, []) == before


def test_a_connection_that_is_lost_is_not_used_again(connections: DirectConnections) -> None:
    before = connections.answer(WHO, [])
    with pytest.raises(ConnectionLost, match="the connection broke"):
        connections.answer(END_MYSELF, [])
    assert connections.answer(WHO, []) != before


def test_for_the_store_a_lost_answer_is_an_unknown_outcome(postgresql_bench: SqlBench) -> None:
    database = postgresql_bench.store.database
    with pytest.raises(OutcomeUnknown, match="the store's answer was lost: the connection broke"), database.direct() as connections:
        connections.answer(END_MYSELF, [])
    with database.direct() as connections:
        assert connections.answer("SELECT 1", []) == "1"


def test_who_finds_no_connection_free_does_not_wait_for_ever(postgresql_bench: SqlBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "MOST", 1)
    monkeypatch.setattr(direct, "SECONDS", 0)
    database = postgresql_bench.store.database
    connections = DirectConnections(database.engine)
    monkeypatch.setattr(database, "_direct", connections)
    with database.writing() as holder:
        holder.execute(text("SELECT pg_advisory_xact_lock(7)"))
        waiting = threading.Thread(target=connections.answer, args=("SELECT pg_advisory_lock(7)", []))
        waiting.start()
        assert eventually(lambda: holder.execute(WAITING).scalar_one(), within=30)
        with pytest.raises(NoneFree):
            connections.answer(WHO, [])
        with pytest.raises(Unavailable, match="all connections are in use"), database.direct() as busy:
            busy.answer(WHO, [])
    waiting.join()
    assert connections.answer("SELECT pg_advisory_unlock(7)", []) == "t", "the place was not given back"
    connections.let_go(close=True)


def test_one_that_is_in_use_when_all_are_let_go_is_closed_afterwards(postgresql_bench: SqlBench) -> None:
    database = postgresql_bench.store.database
    connections = DirectConnections(database.engine)
    pid = connections.answer(WHO, [])
    with database.writing() as holder:
        holder.execute(text("SELECT pg_advisory_xact_lock(8)"))
        waiting = threading.Thread(target=connections.answer, args=("SELECT pg_advisory_lock(8)", []))
        waiting.start()
        assert eventually(lambda: holder.execute(WAITING).scalar_one(), within=30)
        connections.let_go(close=True)
    waiting.join()
    assert connections.answer(WHO, []) != pid
    connections.let_go(close=True)
