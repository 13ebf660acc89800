"""Bringing the store's tables up to date. Apart from the store, so that a worker does not load Alembic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy.exc
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from rotation.store.database import BEGIN, make_engine, sort_error

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

HEAD = "head"


def migrations_directory() -> Path:
    """Where the migrations are: inside the package when it was installed from a wheel, else beside it in the checkout."""
    packaged = Path(__file__).with_name("migrations")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "migrations"


def _config() -> Config:
    config = Config()
    # Alembic expands % in its options, and a directory may have one in its name.
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    return config


def migrate(url: str | URL, revision: str = HEAD) -> tuple[str | None, str | None]:
    """Bring the store to a revision, the newest by default, in one transaction. Gives the revision before and after.

    Any number of processes may do it at once: one of them does it. Raises `Unavailable` when the database does not answer, or when a
    table stays locked: nothing has changed then, try again.
    """
    engine = make_engine(url)
    try:
        return _migrate(engine, revision)
    except sqlalchemy.exc.DBAPIError as error:
        raise sort_error(error, commits=True) from None
    finally:
        engine.dispose()


def _migrate(engine: Engine, revision: str) -> tuple[str | None, str | None]:
    config = _config()
    with engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"}).begin() as connection:
        before = MigrationContext.configure(connection).get_current_revision()
        config.attributes["connection"] = connection
        if revision == "base" or _is_older(config, revision, before):
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)
        return before, MigrationContext.configure(connection).get_current_revision()


def _is_older(config: Config, revision: str, present: str | None) -> bool:
    """Whether the revision is one that the store has been through."""
    if present is None or revision == HEAD:
        return False
    older = [one.revision for one in ScriptDirectory.from_config(config).iterate_revisions(present, "base")]
    return revision in older and revision != present


def is_current(url: str | URL) -> bool:
    """Whether the store has the newest tables: for `doctor`, and for a worker's start."""
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            present = MigrationContext.configure(connection).get_current_revision()
    except sqlalchemy.exc.DBAPIError as error:
        raise sort_error(error, commits=False) from None
    finally:
        engine.dispose()
    return present == ScriptDirectory.from_config(_config()).get_current_head()
