"""`rollover sandbox`: a place to rehearse in, and a local Vercel to try things against."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import output, session

if TYPE_CHECKING:
    from worker.sandbox.vercel import SandboxVercel

app = typer.Typer(name="sandbox", help="Stand-ins for rehearsals.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app)


@app.callback()
def _sandbox() -> None:
    """Stand-ins for rehearsals."""


@app.command()
def vercel(
    *,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 0,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="Without Vercel's rate limit.")] = False,
) -> None:
    """Serve a local Vercel until Ctrl-C: as strict as the real one, with faults to order. Its first line is its address and admin token."""
    from worker.sandbox.vercel import serve  # noqa: PLC0415 - imported when it runs
    from worker.sandbox.vercel_world import DEFAULT_PER_MINUTE  # noqa: PLC0415

    serve(_ready, port=port, per_minute=None if unlimited else DEFAULT_PER_MINUTE)


def _ready(vercel: "SandboxVercel") -> None:
    output.show({"url": vercel.url, "admin_token": vercel.admin_token})


@app.command()
def rehearse(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="A new one; it gets every file that you need.")],
) -> None:
    """Serve a place to rehearse in, until Ctrl-C: a database server, two customers who use it, and a local Vercel.

    Your own database servers and the real Vercel are not touched. Nothing rotates until you say so.
    """
    from worker.sandbox.rehearsal import rehearse as play  # noqa: PLC0415 - imported when it runs

    programs = session.settings().sandbox_postgresql_bin
    play(directory, lambda: _invite(directory.resolve()), _tell, programs)
    output.line(f"Ended. Remove {directory} when you do not need it any more.")


def _invite(directory: Path) -> None:
    output.line(f"Two customers, orders and accounts, are at work. What you need is in {directory}. In a second terminal:")
    for command in (f"cd {shlex.quote(str(directory))}", ". ./env", "rollover up"):
        output.line(f"  {command}")
    output.line("In a third one, begin in the same way, and then:")
    for command in (
        "rollover server add server.toml",
        "rollover installation add icfg_demo --token-file installation.token",
        "rollover resource add orders.toml accounts.toml",
        "rollover resource adopt store_orders",
        "rollover rotate store_orders --grace 20s --wait",
        "rollover credential list store_orders",
    ):
        output.line(f"  {command}")
    output.line("Ctrl-C here ends the rehearsal.")


def _tell(line: str) -> None:
    output.line(f"{datetime.now(UTC).astimezone():%H:%M:%S}  {line}")
