"""A tick costs what is due, not what the fleet is large: the due queries read partial indexes, on both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text

from tests.store_samples import INSTALLATION, SERVER, event

if TYPE_CHECKING:
    from collections.abc import Callable

    from rotation.store.sql import SqlStore
    from tests.sql_stores import SqlBench

ROWS = 100_000

SERIES = {
    "postgresql": "generate_series(1, :rows) AS s(n)",
    "sqlite": "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < :rows) SELECT n FROM s) AS s",
}
NOTHING = {"postgresql": r"'\x00'::bytea", "sqlite": "x'00'"}
FLEET = (
    (
        "INSERT INTO resources (id, installation_id, external_id, server, engine, state, revision, next_rotation_at, schedule_reason,"
        " failures, registered_at) SELECT 'res_' || n, 'icfg_1', 'store_' || n, 'pg-eu-1', 'postgresql', 'active', 1,"
        " '2999-01-01 00:00:00.000000', '', 0, '2026-01-01 00:00:00.000000' FROM {series}"
    ),
    (
        "INSERT INTO credentials (id, resource_id, server, generation, username, stage, recorded_at, adopted, compromised, in_use, quiet,"
        " blocked_for, tries, problem, fence) SELECT 'cred_' || n, 'res_' || n, 'pg-eu-1', 1, 'login_' || n, 'current',"
        " '2026-01-01 00:00:00.000000', false, false, 'wait', 0, 0, 0, '', 0 FROM {series}"
    ),
    (
        "INSERT INTO rotations (id, resource_id, revision, state, urgent, requested_at, tries, problem, advice, fence)"
        " SELECT 'rot_' || n, 'res_' || n, 1, 'completed', false, '2026-01-01 00:00:00.000000', 0, '', '', 0 FROM {series}"
    ),
    ("INSERT INTO chains (id, length, head, sealed_length, sealed_head) SELECT 'res_' || n, 1, {nothing}, 1, {nothing} FROM {series}"),
)


@pytest.fixture
def store(sql_bench: SqlBench) -> SqlStore:
    """A fleet in which nothing is due."""
    store = sql_bench.store
    store.add_installation(INSTALLATION, event("installation_added"))
    store.add_server(SERVER, event("server_added"))
    with store.database.writing() as connection:
        for statement in FLEET:
            connection.execute(text(_typed(statement, store.database.dialect)), {"rows": ROWS})
    if store.database.dialect == "postgresql":
        # As its autovacuum does; SQLite has to choose well without.
        with store.database.reading() as connection:
            connection.execute(text("ANALYZE"))
    return store


def _typed(statement: str, dialect: str) -> str:
    statement = statement.format(series=SERIES[dialect], nothing=NOTHING[dialect])
    return statement.replace(":00.000000'", ":00.000000'::timestamptz") if dialect == "postgresql" else statement


def plan(store: SqlStore, query: Callable[[], Any]) -> str:
    """How the database would run the statement of this query."""
    seen: list[tuple[str, Any]] = []

    def remember(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        seen.append((statement, parameters))

    engine = store.database.engine
    sqlalchemy_event.listen(engine, "before_cursor_execute", remember)
    query()
    sqlalchemy_event.remove(engine, "before_cursor_execute", remember)
    statement, parameters = next(one for one in seen if "BEGIN" not in one[0])
    explain = "EXPLAIN" if store.database.dialect == "postgresql" else "EXPLAIN QUERY PLAN"
    with store.database.reading() as connection:
        rows = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
    return "\n".join(str(row[-1]) for row in rows)


def test_an_idle_tick_reads_no_more_than_partial_indexes(store: SqlStore) -> None:
    queries: dict[str, Callable[[], Any]] = {
        "ix_resources_due": lambda: store.due_resources(500),
        "ix_rotations_due": lambda: store.due_rotations(500, urgent=False),
        "ix_credentials_due": lambda: store.due_credentials(500),
    }
    for index, query in queries.items():
        assert query() == ()
        told = plan(store, query)
        assert index in told, told
        assert "Seq Scan on" not in told, told


def test_a_checkpoint_reads_only_chains_that_have_grown(store: SqlStore) -> None:
    store.checkpoint()
    assert "ix_chains_unsealed" in plan(store, store.checkpoint)
