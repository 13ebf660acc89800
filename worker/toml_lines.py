"""On which line of a TOML file each key stands, so that a fault can be found. The standard library's parser does not say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Part = str | int
Path = tuple[Part, ...]
"""A key with the tables above it; a number is the place in a list of tables, from 0."""

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\\\n]*"|'[^'\n]*')"""
_KEY = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_KEY})\s*\]")
_PAIR = re.compile(rf"\s*({_KEY})\s*=(.*)")
_QUOTES = re.compile(r'"""|\'\'\'')


def lines_of(text: str) -> Mapping[Path, int]:
    """The line, from 1, of every table and key of a well-formed file. Keys within inline tables and lists are not told apart."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for number, line in _outside_long_texts(text):
        header = _HEADER.match(line)
        if header:
            table = _parts(header[2])
            if header[1] == "[[":
                index = counts.get(table, 0)
                counts[table] = index + 1
                lines.setdefault(table, number)
                table = (*table, index)
            else:
                table = _within(table, counts)
            lines.setdefault(table, number)
            continue
        pair = _PAIR.match(line)
        if pair:
            lines.setdefault((*table, *_parts(pair[1])), number)
    return lines


def line_of(lines: Mapping[Path, int], path: Path) -> int | None:
    """The line of a key or, where it has none of its own, of the nearest table above it."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _outside_long_texts(text: str) -> Iterator[tuple[int, str]]:
    """The lines that do not begin inside a text of several lines."""
    within: str | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        if within is None:
            yield number, line
        for quotes in _QUOTES.findall(line):
            if within is None:
                within = quotes
            elif within == quotes:
                within = None


def _within(table: Path, counts: Mapping[Path, int]) -> Path:
    """`[secrets.x]` after `[[secrets]]` belongs to the latest of them."""
    found: list[Part] = []
    for part in table:
        found.append(part)
        if tuple(found) in counts:
            found.append(counts[tuple(found)] - 1)
    return tuple(found)


def _parts(key: str) -> Path:
    return tuple(part.strip("\"'") for part in re.findall(_PART, key))
