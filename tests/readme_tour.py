"""The tour in the README, taken apart: what is typed in each terminal, and what the page says comes of it.

Between `<!-- tour -->` and `<!-- end of tour -->`, the first two blocks are a terminal each, whose last command runs on; all others are
the third. Lines of output may be left out of the page, never changed: only numbers, times and ids may differ from what is printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ID = re.compile(r"\b[a-z]+_[0-9a-f]{20,}\b")
_CHANGING = (
    (re.compile(r"\b(current|previous|blocked|retired)\b.*(?=cred_)"), r"\1 "),  # when a login was last seen, and by whom
    (re.compile(r"[0-9a-f]{16,}"), "H"),
    (re.compile(r"cli:\S+"), "cli:WHO"),
    (re.compile(r"/\S*/rehearsal\b"), "REHEARSAL"),
    (re.compile(r"\b(?:in )?\d+[smhd]\b(?: ago)?|\bnow\b"), "T"),
    (re.compile(r"\d[\d,]*"), "N"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One command, and the lines that the page shows under it."""

    command: str
    shown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tour:
    """All three terminals."""

    rehearsal: tuple[Step, ...]
    up: tuple[Step, ...]
    steps: tuple[Step, ...]


def read(text: str) -> Tour:
    """The tour of a page."""
    (told,) = re.findall(r"<!-- tour -->(.*)<!-- end of tour -->", text, re.DOTALL)
    first, second, *others = (tuple(_steps(block)) for block in _BLOCK.findall(told))
    return Tour(first, second, tuple(step for block in others for step in block))


def _steps(block: str) -> list[Step]:
    commands = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    parts = [one.strip("\n").split("\n") for one in commands]
    return [Step(command, tuple(line for line in shown if line.strip())) for command, *shown in parts]


def missing(step: Step, printed: str) -> list[str]:
    """The lines that the page shows and that were not printed."""
    there = {blurred(line) for line in printed.splitlines()}
    return [line for line in step.shown if blurred(line) not in there]


def names(step: Step, printed: str) -> dict[str, str]:
    """What the ids on the page are called in what was printed: those of the first line that is the same otherwise."""
    found: dict[str, str] = {}
    for line in step.shown:
        same = next((one for one in printed.splitlines() if blurred(one) == blurred(line)), "")
        found.update(zip(_ID.findall(line), _ID.findall(same), strict=False))
    return found


def blurred(line: str) -> str:
    """A line without what is different each time."""
    for pattern, word in _CHANGING:
        line = pattern.sub(word, line)
    return line.strip()
