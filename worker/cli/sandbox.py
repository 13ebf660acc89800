"""`rollover sandbox vercel`: a local Vercel to try things against."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import output

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
