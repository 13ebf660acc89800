"""The fleet as Prometheus reads it: its text format, version 0.0.4, of what the store knows. So any process can tell it, and all agree.

Written by hand, as these are some twenty gauges that are read off one value; a client library would keep state of its own beside it.
(https://prometheus.io/docs/instrumenting/exposition_formats/)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rotation.states import Alarm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rotation.store.views import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Gauge:
    """One metric: its name without our prefix, what it says, and a value for each value of its label, or one without any."""

    name: str
    told: str
    values: Mapping[str, float]
    label: str = ""


def gauges(status: Status) -> Iterator[Gauge]:
    """Everything that is measured."""
    yield Gauge("resources", "Resources, by state.", _named(status.resources), "state")
    yield Gauge("resources_due", "Active resources whose date has come.", {"": status.due})
    yield Gauge("resources_failing", "Resources whose last rotation failed.", {"": status.failing})
    yield Gauge("rotations_under_way", "Rotations that have not ended, by state.", _named(status.rotations), "state")
    yield Gauge("logins", "Logins that are alive beside the current ones, by stage.", _named(status.credentials), "stage")
    yield Gauge("logins_in_grace", "Previous logins whose grace is not over.", {"": status.in_grace})
    yield Gauge("logins_waiting_for_use", "Previous logins whose grace is over, and that are still used.", {"": status.waiting_for_use})
    yield Gauge("logins_astray", "Logins that must work, and do not.", {"": status.astray})
    yield Gauge("logins_without_row", "Logins that carry our mark and have no row.", {"": status.orphans})
    yield Gauge("resources_held", "Resources that are held as the store seems to have been set back.", {"": status.held})
    yield Gauge("installations_parked", "Installations whose pushes are held.", {"": status.parked})
    late = 0.0 if status.oldest_due_at is None else (status.at - status.oldest_due_at).total_seconds()
    yield Gauge("oldest_overdue_seconds", "For how long the longest overdue row waits to be moved on.", {"": late})
    every = dict.fromkeys(sorted(map(str, Alarm)), 0) | dict(status.alarms)  # an alert rule needs the zero as well
    yield Gauge("alarms", "What wants a person, by the alarm's name: docs/runbook.md says what to do.", every, "alarm")


def text(status: Status) -> str:
    """The whole page."""
    return "".join(f"{line}\n" for line in _lines(gauges(status)))


def _lines(shown: Iterable[Gauge]) -> Iterator[str]:
    for gauge in shown:
        name = f"rollover_{gauge.name}"
        yield f"# HELP {name} {_escaped(gauge.told)}"
        yield f"# TYPE {name} gauge"
        for value, number in gauge.values.items():
            labels = f'{{{gauge.label}="{_escaped(value, quotes=True)}"}}' if gauge.label else ""
            yield f"{name}{labels} {number:.15g}"


def _named(counts: Mapping[Any, int]) -> dict[str, float]:
    return {str(name): number for name, number in counts.items()}


def _escaped(text: str, *, quotes: bool = False) -> str:
    """A backslash and a line's end are written as two characters, in a label's value a quote as well."""
    plain = text.replace("\\", r"\\").replace("\n", r"\n")
    return plain.replace('"', r"\"") if quotes else plain
