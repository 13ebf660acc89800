"""What `make canary` prints at its end: what was searched, driven, planted and refused, added up over all tests."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

FIGURES = (
    "sinks searched",
    "bytes searched",
    "failures driven",
    "leaks found",
    "planted leaks found",
    "ciphertext swaps refused",
    "rows re-wrapped",
    "kills while re-wrapping",
    "hostile messages",
    "bad TLS servers refused",
    "audit tamperings detected",
)


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Adds to a figure of the table."""

    def add(name: str, count: int) -> None:
        assert name in FIGURES
        record_property(name, count)

    return add


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares a house runs in one process. First, since xdist then reads the marks."""
    for item in items:
        if item.path.parent.name == "canary" and item.path.stem == "test_leaks":
            store = next((store for store in ("sqlite", "postgresql") if store in item.name), "")
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} {store}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table. Only tests that passed count."""
    total: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        total.update({name: count for name, count in report.user_properties if name in FIGURES})
    if total:
        terminalreporter.section("canary")
        for name in FIGURES:
            if name in total:
                terminalreporter.write_line(f"{name:28} {total[name]:>14,}")
