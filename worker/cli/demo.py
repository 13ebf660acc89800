"""`rollover demo`: the whole of it before your eyes, on servers of its own, for as long as you like."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import output
from worker.durations import parse_duration

if TYPE_CHECKING:
    from worker.sandbox.demonstration import Plan
    from worker.sandbox.scoreboard import Summary

SHORTEST = timedelta(seconds=1)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    *,
    lasts: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="End by itself after this, e.g. 60s. Default: Ctrl-C ends it.")
    ] = "",
    resources: Annotated[int, typer.Option(min=1, max=10, help="How many databases, each with a customer of its own.")] = 5,
    every: Annotated[str, typer.Option(metavar="DURATION", help="How often each gets a new login.")] = "20s",
    grace: Annotated[str, typer.Option(metavar="DURATION", help="How long an old login keeps working.")] = "15s",
    as_json: output.Json = False,
) -> None:
    """Watch real logins being made, pushed, used and retired, on servers that this command starts and ends.

    Exits with 0 only if every promise was held.
    """
    from worker.sandbox.demonstration import Plan  # noqa: PLC0415 - imported when it runs, as everything that help does not need

    plan = Plan(
        resources=resources,
        every=_duration("--every", every),
        grace=_duration("--grace", grace),
        lasts=_duration("--for", lasts) if lasts else None,
    )
    summary = _shown(plan, as_json=as_json)
    raise typer.Exit(0 if summary.held else output.FAILED)


def _shown(plan: "Plan", *, as_json: bool) -> "Summary":
    """Run it before who looks on: a machine wants the summary alone, a person at a terminal a board, a log lines."""
    from worker.sandbox.demonstration import demonstrate  # noqa: PLC0415

    if as_json:
        summary = demonstrate(plan, lambda _: None)
        output.show(summary.figures())
        return summary
    from rich.console import Console  # noqa: PLC0415 - rich is not for machines

    from worker.sandbox import display  # noqa: PLC0415
    from worker.sandbox.audience import AtTerminal, InLines  # noqa: PLC0415

    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        with AtTerminal(plan, console) as audience:
            summary = demonstrate(plan, audience.show)
    else:
        summary = demonstrate(plan, InLines(console).show)
    console.print(display.summary(summary), soft_wrap=True)
    return summary


def _duration(option: str, text: str) -> timedelta:
    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    if duration < SHORTEST:
        raise typer.BadParameter("is shorter than a second", param_hint=option)
    return duration
