"""The command `rollover`: every command in one place, and the one place where a failure becomes text and an exit code.

A module of commands imports nothing heavy: what a command needs is imported when it runs, so that help comes at once.
"""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rotation.errors import RolloverError
from worker.cli import (
    audit,
    demo,
    doctor,
    history,
    installation,
    keys,
    output,
    processes,
    reconcile,
    resource,
    rotate,
    rotation,
    sandbox,
    server,
    settings,
    status,
    store,
    up,
    web,
)
from worker.machine import leave_no_core


class Commands(TyperGroup):
    """All commands; what the program raises on purpose is told as one readable block, never as a traceback."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - Typer's own context, whose class is private
        """Run a command. Exit code 1 for a failure, 2 for an input with faults; only bugs of ours end in a traceback."""
        try:
            return super().invoke(ctx)
        except RolloverError as error:
            raise typer.Exit(output.tell(error)) from None


app = typer.Typer(
    name="rollover",
    cls=Commands,
    help="Rotates the database credentials of a provider on the Vercel Marketplace.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help comes in half the time, and can be searched
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,  # locals hold secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - an option's callback
    if wanted:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - only for this option

        try:
            typer.echo(f"rollover {version('rollover')}")
        except PackageNotFoundError:
            typer.echo("rollover 0+unknown")  # not installed: nobody can say which version a directory is
        raise typer.Exit


@app.callback()
def _rollover(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)] = False,
) -> None:
    """Rotates the database credentials of a provider on the Vercel Marketplace."""


for commands in (
    demo,
    up,
    status,
    doctor,
    reconcile,
    rotate,
    resource,
    server,
    installation,
    rotation,
    history,
    keys,
    audit,
    store,
    settings,
    processes,
    web,
    sandbox,
):
    commands.register(app)


def main() -> None:
    """The console script."""
    leave_no_core()
    app(prog_name="rollover")
