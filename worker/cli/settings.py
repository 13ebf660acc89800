"""`rollover settings`: what is in force, with every secret masked."""

import typer

from worker.cli import output, session


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("settings")(show_settings)


def show_settings(*, as_json: output.Json = False) -> None:
    """Show every setting in force.

    Each with where it comes from; secrets are masked.
    """
    rows = session.settings().effective()
    if as_json:
        output.show([{"name": row.name, "value": row.value, "source": row.source} for row in rows])
    else:
        output.table(("setting", "value", "from"), rows, nothing="there are no settings")
