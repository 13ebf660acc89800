"""No secret is readable anywhere, whatever fails: every failure is driven with everything logging aloud, then every sink is searched.

That the search means something is seen by planting leaks: in each sink, in each form, one that must be found.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.canary.failures import drive
from tests.canary.house import House, loud_postgresql
from tests.canary.needles import CANARY, ENCODINGS, Needle
from tests.canary.sinks import TaskDashboard, sinks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.canary.sinks import Sink

SINKS = (
    "logs",
    "broker's traffic",
    "broker's keys",
    "store's rows",
    "store's files",
    "customers' server's log",
    "customers' server's statistics",
    "customers' server's files",
    "command line",
    "Flower",
    "processes",
    "other files",
)
OF_A_SERVER = ("store's server's log", "store's server's statistics")
"""What a store on PostgreSQL has besides."""

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True, slots=True)
class Searched:
    """A house after everything went wrong, and what was found in it."""

    kind: str
    sinks: dict[str, Sink]
    driven: int
    size: int
    leaks: list[str]
    cores: dict[str, str]
    """By process, how large a core it may leave."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def searched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    """One house logs for machines, the other for people, so that each failure is told in both ways."""
    directory = tmp_path_factory.mktemp("canary")
    kind, log_format = request.param, {"sqlite": "json", "postgresql": "console"}[request.param]
    with ExitStack() as servers:
        customers = servers.enter_context(loud_postgresql(directory / "customers"))
        store = servers.enter_context(loud_postgresql(directory / "store")) if kind == "postgresql" else None
        house = servers.enter_context(House(directory, customers, store, log_format))
        house.listen()
        house.start_worker("worker")
        house.start_beat()
        house.wait("Flower is ready", TaskDashboard(house).is_ready)
        driven = drive(house)
        sinks = {sink.name: sink for sink in sinks_of(house)}
        size, leaks = 0, []
        for sink in sinks.values():
            for place, data in sink.pieces():
                size += len(data)
                leaks += [f"{sink.name}, {place}: {form}" for form in Needle(CANARY).found_in(data)]
        yield Searched(kind, sinks, driven, size, leaks, {one.name: core_limit(one.pid) for one in house.processes if one.runs})


@pytest.fixture(scope="module")
def planted(searched: Searched) -> dict[str, set[str]]:
    """By sink, the forms in which a leak was planted and found there."""
    found: dict[str, set[str]] = {}
    for place, (name, sink) in enumerate(searched.sinks.items()):
        needles = {form: Needle(f"Zaunkoenig{place:02}{number}") for number, form in enumerate(ENCODINGS)}
        sink.plant([ENCODINGS[form](needle.text) for form, needle in needles.items()])
        found[name] = set()
        for _, data in sink.pieces():
            found[name] |= {form for form, needle in needles.items() if needle.is_in(data, form)}
            if len(found[name]) == len(needles):
                break
    return found


def test_no_secret_is_readable_in_any_sink(searched: Searched, figure: Callable[[str, int], None]) -> None:
    assert searched.leaks == []
    expected = {*SINKS, *(OF_A_SERVER if searched.kind == "postgresql" else ())}
    assert set(searched.sinks) == expected
    figure("sinks searched", len(searched.sinks))
    figure("bytes searched", searched.size)
    figure("failures driven", searched.driven)
    figure("leaks found", len(searched.leaks))


def test_no_process_leaves_a_core(searched: Searched) -> None:
    assert searched.cores == dict.fromkeys(("flower", "worker", "beat"), "0 0")


def core_limit(pid: int) -> str:
    """The soft and the hard limit, as proc(5) writes them."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    (limits,) = (line.removeprefix("Max core file size").split() for line in lines if line.startswith("Max core file size"))
    return " ".join(limits[:2])


@pytest.mark.parametrize("form", ENCODINGS)
@pytest.mark.parametrize("sink", [*SINKS, *OF_A_SERVER])
def test_a_planted_leak_is_found(
    searched: Searched, planted: dict[str, set[str]], sink: str, form: str, figure: Callable[[str, int], None]
) -> None:
    if sink in OF_A_SERVER and searched.kind == "sqlite":
        assert sink not in searched.sinks
        return
    assert form in planted[sink]
    figure("planted leaks found", 1)
