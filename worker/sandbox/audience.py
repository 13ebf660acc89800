"""Who looks on at the demo: a person at a terminal sees a board, a log gets lines."""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from rich.live import Live

from worker.sandbox import display
from worker.sandbox.scoreboard import changes, seconds

if TYPE_CHECKING:
    from rich.console import Console

    from worker.sandbox.demonstration import Plan
    from worker.sandbox.scoreboard import Board

REMEMBERED = 20
BEGINNING = "Starting PostgreSQL, a local Vercel and `rollover up` …"
LINE_EVERY = timedelta(seconds=5)


class AtTerminal:
    """A board that is drawn anew with each look."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._news: deque[str] = deque(maxlen=REMEMBERED)
        self._before: Board | None = None
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        """Say that it begins: the first board takes some seconds."""
        self._live.start()
        self._live.update(BEGINNING, refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last board on the terminal."""
        self._live.stop()

    def show(self, board: Board) -> None:
        """Draw it."""
        self._news.extend(changes(self._before, board))
        self._before = board
        plan = self._plan
        self._live.update(display.board(board, self._news, every=plan.every, grace=plan.grace, until=plan.lasts), refresh=True)


class InLines:
    """What happened, a line each, and every five seconds how things stand."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._before: Board | None = None
        self._next = timedelta()
        self._say(BEGINNING)

    def show(self, board: Board) -> None:
        """Print what is new."""
        for sentence in changes(self._before, board):
            self._say(f"{seconds(board.elapsed):>5}  {sentence}")
        if board.elapsed >= self._next:
            self._say(display.line(board))
            self._next = board.elapsed + LINE_EVERY
        self._before = board

    def _say(self, sentence: str) -> None:
        self._console.print(sentence, soft_wrap=True)
