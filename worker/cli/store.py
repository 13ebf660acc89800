"""`rollover migrate`: the store's tables, up to date."""

from typing import TYPE_CHECKING

import typer

from worker.cli import output, session

if TYPE_CHECKING:
    from worker.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(migrate)


def migrate(*, as_json: output.Json = False) -> None:
    """Make or update the store's tables. Any number of processes may do it at once."""
    before, after = upgrade(session.settings())
    if as_json:
        output.show({"before": before, "after": after})
    elif before == after:
        output.done(f"the store is up to date: {after}")
    else:
        output.done(f"the store is now at {after}" + (f", it was at {before}" if before else ""))


def upgrade(settings: "Settings") -> tuple[str | None, str | None]:
    """Bring the store up to date; gives the revision before and after."""
    from rotation.store.migration import migrate as migrate_store  # noqa: PLC0415 - Alembic is for this command alone

    session.make_private(settings.data_dir)
    return migrate_store(settings.store)
