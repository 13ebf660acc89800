"""How the command line speaks: calm tables, JSON for machines, errors as one block that says what to do next.

What is shown may come from a server or a file: control characters are replaced, so that nobody else writes on the terminal.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, NoReturn

import typer

from rotation.errors import Invalid, Refused, RolloverError, Unavailable
from worker.durations import format_duration

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

WIDE = 200
"""Columns where the output is no terminal: nothing is folded, so that lines can be searched."""

NOTHING = "-"
"""Stands for a value that is not there."""

FAILED = 1
WRONG_USE = 2


# -- data


def show(data: object) -> None:
    """Print JSON: times in ISO 8601, durations as people write them. A secret in it is a bug, and raises `TypeError`."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=_encoded))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, nothing: str) -> None:
    """Print rows under their heads; `nothing` is said where there is no row, and names the next command.

    A head that begins with `>` has its column to the right.
    """
    from rich.table import Table  # noqa: PLC0415 - rich is not for workers and help

    cells = [[text(cell) for cell in row] for row in rows]
    if not cells:
        typer.echo(nothing)
        return
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        drawn.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*row)
    _print(drawn)


def details(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one a line, for a single thing; what is not there is left out."""
    from rich.table import Table  # noqa: PLC0415

    drawn = Table.grid(padding=(0, 2, 0, 0))
    drawn.add_column(style="dim", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, "", ()):
            drawn.add_row(name, text(value))
    _print(drawn)


def _print(drawn: Any) -> None:  # noqa: ANN401 - whatever rich can draw
    from rich.console import Console  # noqa: PLC0415

    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE, markup=False, highlight=False, emoji=False)
    with console.capture() as capture:
        console.print(drawn)
    for line in capture.get().splitlines():
        typer.echo(line.rstrip())


# -- words


def text(value: object) -> str:
    """A value for a person, without anything that could steer a terminal."""
    match value:
        case None | "":
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case datetime():
            return moment(value)
        case timedelta():
            return format_duration(value)
        case tuple() | list():
            return ", ".join(text(one) for one in value)
        case _:
            return "".join(one if one.isprintable() or one == "\n" else "�" for one in str(value))


def moment(at: datetime | None) -> str:
    """A time in this machine's zone, to the second."""
    return NOTHING if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def moment_and_distance(at: datetime | None, now: datetime | None = None) -> str:
    """A time, and how far away it is: `2026-03-01 12:00:00 (in 3h)`."""
    return NOTHING if at is None else f"{moment(at)} ({distance(at, now)})"


def distance(at: datetime | None, now: datetime | None = None) -> str:
    """How far away a time is, in its largest unit: `in 3h`, `20s ago`, `now`."""
    if at is None:
        return NOTHING
    seconds = (at - (now or datetime.now(UTC))).total_seconds()
    if abs(seconds) < 1:
        return "now"
    amount = largest_unit(timedelta(seconds=abs(seconds)))
    return f"in {amount}" if seconds > 0 else f"{amount} ago"


def largest_unit(duration: timedelta) -> str:
    """About how long: `3d`, `20h`, `45m`, `8s`. Two units are named only where one says too little."""
    seconds = int(duration.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _encoded(value: object) -> object:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat()
        case time():
            return value.isoformat()
        case timedelta():
            return format_duration(value)
        case Mapping():
            return dict(value)
        case frozenset() | set():
            return sorted(value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            return asdict(value)
        case _:
            raise TypeError(f"{type(value).__name__} is not for output")


def heading(words: str) -> None:
    """Begin another part of the same answer."""
    typer.echo(f"\n{text(words)}")


def line(words: str) -> None:
    """Print a line of data."""
    typer.echo(text(words))


@contextmanager
def progress(doing: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the error stream while something goes on, where that is a terminal; gives what to call with each part that is done."""
    from rich.console import Console  # noqa: PLC0415 - rich is not for workers and help
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda count: bar.advance(task, count)


# -- what happened


def warn(sentence: str) -> None:
    """Say what is doubtful, though it was done."""
    typer.echo(f"rollover: warning: {text(sentence)}", err=True)


def done(sentence: str) -> None:
    """Say what was done. It goes to the error stream, so that the output holds data alone."""
    typer.echo(text(sentence), err=True)


def tell(error: RolloverError) -> int:
    """Say what went wrong and what to do next; gives the exit code."""
    if isinstance(error, Invalid):
        _complain("there is one fault" if len(error.faults) == 1 else f"there are {len(error.faults)} faults")
        for fault in error.faults:
            typer.echo(f"  {text(str(fault))}", err=True)
        return WRONG_USE
    _complain(str(error))
    if isinstance(error, Refused) and error.advice:
        typer.echo(f"  {text(error.advice)}", err=True)
    if isinstance(error, Unavailable) and error.retry_after is not None:
        typer.echo(f"  try again in {largest_unit(error.retry_after)}", err=True)
    return FAILED


def fail(sentence: str, advice: str = "") -> NoReturn:
    """End with exit code 1, saying why and what to do next."""
    _complain(sentence)
    if advice:
        typer.echo(f"  {text(advice)}", err=True)
    raise typer.Exit(FAILED)


def _complain(sentence: str) -> None:
    typer.echo(f"rollover: {text(sentence)}", err=True)
