"""`rollover audit verify`: whether the audit trail is as it was written."""

import typer

from worker.cli import output, session

app = typer.Typer(name="audit", help="The audit trail.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app)


@app.callback()
def _audit() -> None:
    """The audit trail."""


@app.command()
def verify(*, as_json: output.Json = False) -> None:
    """Read the whole trail and find every line that was changed, removed or put elsewhere. Exits with 1 when there is one."""
    with session.opened() as here:
        faults = list(here.store.verify_audit())
    if as_json:
        output.show({"ok": not faults, "faults": faults})
    elif faults:
        output.table(("chain", ">line", "what is wrong"), [(one.chain, one.number, one.problem) for one in faults], nothing="")
    else:
        output.done("the trail is whole")
    if faults:
        raise typer.Exit(output.FAILED)
