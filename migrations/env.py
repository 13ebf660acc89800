"""How Alembic reaches the store. A migration gives up rather than wait for a lock and hold up the service.

The connection is handed over by `rotation.store.migration.migrate`; by hand, with Alembic's own command: `alembic -x url=… upgrade head`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from alembic import context
from sqlalchemy import TypeDecorator, text

from rotation.store.database import BEGIN, make_engine
from rotation.store.tables import metadata

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from sqlalchemy import Connection

LOCK_SECONDS = 4
STATEMENT_SECONDS = 60
ADVISORY_LOCK = 7_203_417_556_120
"""Two migrations at once: the second waits for the first, and finds nothing left to do."""


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:  # noqa: ANN401 - whatever Alembic has found
    """A migration holds plain types: it stays true when ours change."""
    del autogen
    return f"sa.{item.impl!r}" if kind == "type" and isinstance(item, TypeDecorator) else False


def run(connection: Connection) -> None:
    """All migrations that are left, in one transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        connection.execute(text(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
    context.configure(
        connection=connection,
        target_metadata=metadata,
        # SQLite cannot alter most of a table: Alembic copies it.
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
        compare_type=True,
        render_item=render_item,
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    """On the connection that was handed over, else on one to the URL that was given by hand."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        run(connection)
        return
    engine = make_engine(context.get_x_argument(as_dictionary=True)["url"]).execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
    with engine.begin() as connection:
        run(connection)


main()
