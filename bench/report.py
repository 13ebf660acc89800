"""What was measured: medians, ratios, and a table that a README can quote."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was measured, by both sides or by the worker alone; the values are the medians of the rounds."""

    what: str
    unit: str
    worker: float
    floor: float | None = None
    rounds: int = 1

    @property
    def ratio(self) -> float | None:
        """The worker's share of the floor's speed, or its multiple of the floor's cost."""
        return self.worker / self.floor if self.floor else None


def line(what: str, unit: str, worker: Sequence[float], floor: Sequence[float] = ()) -> Line:
    """The medians of the rounds."""
    return Line(what, unit, median(worker), median(floor) if floor else None, rounds=len(worker))


def percentile(values: Sequence[float], percent: int) -> float:
    """The value below which so many percent lie."""
    return values[0] if len(values) == 1 else quantiles(values, n=100, method="inclusive")[percent - 1]


def as_json(lines: Iterable[Line]) -> str:
    """For machines."""
    return json.dumps([asdict(one) | {"ratio": one.ratio} for one in lines], indent=2)


def as_table(lines: Iterable[Line]) -> str:
    """For people: Markdown whose columns are aligned."""
    rows = [("", "worker", "floor", "worker / floor")]
    rows += [
        (
            f"{one.what}, {one.unit}",
            _number(one.worker),
            "" if one.floor is None else _number(one.floor),
            "" if one.ratio is None else f"{one.ratio:.2f}",
        )
        for one in lines
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    drawn = ["| " + " | ".join(_aligned(row, widths)) + " |" for row in rows]
    return "\n".join([drawn[0], "| " + " | ".join(ruler) + " |", *drawn[1:]])


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _number(value: float) -> str:
    """Three digits are more than the rounds agree on."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"  # noqa: PLR2004 - the digits before the point
