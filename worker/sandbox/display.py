"""How the demo looks: a calm board of at most 80 columns and 24 lines, and the summary at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from rotation.states import Stage
from worker.sandbox.scoreboard import seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from rich.console import RenderableType

    from worker.sandbox.scoreboard import Board, Generation, Standing, Summary

LINES = 23
"""One less than the terminal has, so that the cursor below them does not make it scroll."""
AROUND = 9
"""Lines of the board that are neither a resource nor news."""
WIDTH = 79


def board(now: Board, news: Sequence[str], *, every: timedelta, grace: timedelta, until: timedelta | None) -> RenderableType:
    """The whole picture. `news` are sentences, the oldest first; as many of the latest as there is room for are shown."""
    room = max(1, LINES - AROUND - len(now.standings))
    told = list(news)[-room:]
    return Group(
        _heading(now, every, grace, until),
        Text(),
        _resources(now),
        Text(),
        _totals(now),
        Text(),
        *(Text(f"  {sentence}", style="dim", no_wrap=True, overflow="ellipsis") for sentence in told),
        *(Text() for _ in range(room - len(told))),
        Text(),
        Text(_try(now), style="dim"),
    )


def line(now: Board) -> str:
    """The same in one line, where nobody looks on at a terminal."""
    total = now.total
    figures = {
        "rotations": now.rotations,
        "retirements proved": now.retirements,
        "in grace": now.in_grace,
        "logins accepted": total.accepted,
        "refused": total.refused,
    }
    return f"{seconds(now.elapsed):>5}  " + ", ".join(f"{name} {count}" for name, count in figures.items())


def summary(run: Summary) -> RenderableType:
    """What it came to, promise by promise."""
    figures = run.figures()
    names = ("seconds", "rotations", "retirements_proved", "logins_tried", "logins_refused", "orphan_logins")
    return Group(
        Text(", ".join(f"{name.replace('_', ' ')} {figures[name]}" for name in names)),
        *(_verdict(promise, held=held) for promise, held in run.promises.items()),
    )


def _verdict(promise: str, *, held: bool) -> Text:
    return Text.assemble("  ", ("held    ", "green") if held else ("BROKEN  ", "bold red"), promise)


def _heading(now: Board, every: timedelta, grace: timedelta, until: timedelta | None) -> RenderableType:
    grid = Table.grid(expand=False)
    grid.add_column(width=WIDTH - 14)
    grid.add_column(width=14, justify="right")
    said = f"{len(now.standings)} databases, new logins every {seconds(every)}, {seconds(grace)} of grace"
    clock = seconds(now.elapsed) + ("" if until is None else f" of {seconds(until)}")
    grid.add_row(Text.assemble(("Rollover  ", "bold"), said), Text(clock, style="bold"))
    return grid


def _resources(now: Board) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", width=WIDTH)
    for head, width, justify in (
        ("resource", 9, "left"),
        ("pushed by", 9, "left"),
        ("gen", 3, "right"),
        ("rotation", 11, "left"),
        ("in grace", 17, "left"),
        ("accepted", 8, "right"),
        ("refused", 7, "right"),
    ):
        table.add_column(head, width=width, justify="right" if justify == "right" else "left", no_wrap=True, overflow="ellipsis")
    for standing in now.standings:
        tally = now.tallies[standing.name]
        table.add_row(
            standing.name,
            standing.push_by.value,
            str(standing.current or ""),
            _rotation(standing, now.now),
            _grace(standing, now.now),
            str(tally.accepted),
            Text(str(tally.refused), style="bold red" if tally.refused else "green"),
        )
    return table


def _rotation(standing: Standing, now: datetime) -> Text:
    if standing.state is not None:
        return Text(standing.state.value, style="yellow")
    if standing.next_rotation_at is None:
        return Text("")
    return Text(f"next in {seconds(standing.next_rotation_at - now)}", style="dim")


def _grace(standing: Standing, now: datetime) -> Text:
    return Text(", ".join(_countdown(one, now) for one in standing.staged(Stage.PREVIOUS, Stage.BLOCKED)), style="cyan")


def _countdown(one: Generation, now: datetime) -> str:
    if one.stage is Stage.BLOCKED:
        return f"{one.number} blocked"
    if one.grace_ends_at is None:
        return f"{one.number} held"
    return f"{one.number} ends {seconds(one.grace_ends_at - now)}" if one.grace_ends_at > now else f"{one.number} still used"


def _try(now: Board) -> str:
    worker = "" if now.worker is None else f" Try: kill -9 {now.worker} (a worker); nothing is lost."
    return f"Ctrl-C ends it all.{worker}"


def _totals(now: Board) -> Text:
    total = now.total
    failures = total.refused + total.unreachable + total.broken
    return Text.assemble(
        (str(now.rotations), "bold"),
        " rotations   ",
        (str(now.retirements), "bold"),
        " retirements proved   ",
        (str(total.accepted), "bold"),
        " logins accepted   ",
        (str(failures), "bold red" if failures else "bold green"),
        " failures",
    )
