"""The store's tables: up from nothing, down and up, and equal to what the program believes, on both databases."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from rotation.cases import Move
from rotation.errors import Unavailable
from rotation.model import Schedule
from rotation.ports import Terms
from rotation.states import ResourceState
from rotation.store.database import make_engine
from rotation.store.migration import is_current, migrate, migrations_directory
from rotation.store.sql import SqlStore
from rotation.store.tables import metadata
from tests.fakes.clock import FakeClock
from tests.sql_stores import AUDIT_KEY, new_database, sqlite_url
from tests.store_samples import INSTALLATION, SERVER, event, fresh, present, spec

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL, Engine

    from worker.sandbox.postgresql import PrivatePostgresql


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str | URL:
    """A database with nothing in it."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    server: PrivatePostgresql = request.getfixturevalue("postgresql")
    return new_database(server, fresh("migrations"))


def tables(url: str | URL) -> set[str]:
    engine = make_engine(url)
    names = set(inspect(engine).get_table_names()) - {"alembic_version"}
    engine.dispose()
    return names


def schema(engine: Engine) -> list[Any]:
    """Every table, column and index, conditions included, as the database tells it."""
    queries = {
        "sqlite": "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version' ORDER BY name",
        "postgresql": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' "
        "AND tablename <> 'alembic_version' ORDER BY indexname",
    }
    with engine.connect() as connection:
        rows = connection.execute(text(queries[engine.dialect.name])).all()
    # The order of columns and constraints within a table says nothing, nor how SQLite breaks the lines of what was added.
    return [(row[0], sorted(part for line in re.split(r"[,\n]", row[-1]) if (part := line.strip(" \t)")))) for row in rows]


def test_the_tables_come_from_nothing_go_and_come_again(url: str | URL) -> None:
    wanted = set(metadata.tables)
    assert not is_current(url)
    assert migrate(url)[0] is None
    assert tables(url) == wanted
    assert is_current(url)
    migrate(url, "base")
    assert tables(url) == set()
    before, after = migrate(url)
    assert tables(url) == wanted
    assert (before, migrate(url)) == (None, (after, after))


def test_the_migrated_tables_are_those_of_the_program(url: str | URL) -> None:
    migrate(url)
    engine = make_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    migrated = schema(engine)
    with engine.begin() as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)
    assert schema(engine) == migrated
    engine.dispose()


def test_the_prefix_of_what_is_there_already_is_taken_from_its_newest_revision(url: str | URL) -> None:
    migrate(url)
    store = SqlStore(url, clock=FakeClock(), terms=Terms(), audit_key=AUDIT_KEY)
    store.add_installation(INSTALLATION, event("installation_added"))
    store.add_server(SERVER, event("server_added"))
    resource = store.register(spec("store_1"), fresh("res"), Schedule(), None, event("resource_registered"))
    renamed = replace(resource.spec, database=replace(resource.spec.database, login_prefix="renamed"))
    store.revise(resource.id, renamed, Schedule(), event("resource_revised"))
    migrate(url, "20261128alarms")

    migrate(url)

    with store.database.reading() as connection:
        assert connection.execute(text("SELECT id, login_prefix FROM resources")).all() == [(resource.id, "renamed")]
    store.dispose()


@pytest.mark.parametrize("before", ["it was paused before, and ", ""])
def test_that_a_resource_was_paused_before_it_was_held_is_taken_from_the_words_that_told_so(url: str | URL, before: str) -> None:
    migrate(url)
    store = SqlStore(url, clock=FakeClock(), terms=Terms(), audit_key=AUDIT_KEY)
    store.add_installation(INSTALLATION, event("installation_added"))
    store.add_server(SERVER, event("server_added"))
    resource = store.register(spec("store_1"), fresh("res"), Schedule(), None, event("resource_registered"))
    held = Move(event("resource_held"), resource_state=ResourceState.PAUSED, held_because=f"{before}the store was set back")
    store.amend(resource.id, lambda _: (held, None))
    migrate(url, "20261128sampling")

    migrate(url)

    assert store.resource(resource.id).held_over_pause is bool(before)
    store.dispose()


def test_two_migrations_at_once_are_one(url: str | URL) -> None:
    program = "import sys; from rotation.store.migration import migrate; migrate(sys.stdin.read())"
    text = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    command = [sys.executable, "-W", "error", "-c", program]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=migrations_directory().parent) for _ in range(2)]  # noqa: S603 - our own interpreter
    for one in both:
        present(one.stdin).write(text)
        present(one.stdin).close()
    assert [one.wait(60) for one in both] == [0, 0]
    assert tables(url) == set(metadata.tables)


def test_a_store_without_tables_says_what_to_do(url: str | URL) -> None:
    store = SqlStore(url, clock=FakeClock(), terms=Terms(), audit_key=AUDIT_KEY)
    with pytest.raises(Unavailable, match="rollover migrate"):
        store.due_resources(1)
    store.dispose()


def test_a_migration_gives_up_rather_than_wait_for_a_lock(postgresql: PrivatePostgresql) -> None:
    url = new_database(postgresql, fresh("migrations"))
    migrate(url)
    blocker = create_engine(url)
    with blocker.begin() as connection:
        connection.execute(text("SELECT * FROM rotations"))
        with pytest.raises(Unavailable):
            migrate(url, "base")
    blocker.dispose()
    assert is_current(url)


def test_a_worker_does_not_load_alembic() -> None:
    program = "import sys, rotation.store.sql; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=migrations_directory().parent).returncode == 0  # noqa: S603 - our own interpreter
