"""What a crashing worker is told to do, and what it leaves behind: a line for each boundary that it passed, and one for the fault.

A SIGKILL loses none of them.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tests.crash.boundaries import Boundary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.crash.boundaries import Fault

ORDER = "CRASH_ORDER"
FIRED = "fired"
IN_VAIN = "in vain"


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker has written so far: the boundaries that it passed, each once, in the order in which it came to them; whether the fault
    that was ordered has happened; and whether that changed nothing, as there was no connection to be cut.
    """

    passed: tuple[Boundary, ...]
    fired: bool
    in_vain: bool


def ordered(fault: Fault | None, journal: Path, servers: Mapping[str, int], chance: float) -> dict[str, str]:
    """The variable of the environment that tells a worker which fault to meet, and where its journal is."""
    order = {"fault": fault and fault.written(), "journal": str(journal), "servers": dict(servers), "chance": chance}
    return {ORDER: json.dumps(order)}


class Journal:
    """The worker's end: one write a line, so that what was written is whole and with the kernel."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def passed(self, boundary: Boundary) -> None:
        self._write(asdict(boundary))

    def fired(self) -> None:
        self._write({FIRED: True})

    def in_vain(self) -> None:
        self._write({IN_VAIN: True})

    def close(self) -> None:
        os.close(self._file)

    def _write(self, line: dict[str, object]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")


def told(path: Path) -> Told:
    """By now."""
    lines = _lines(path)
    passed = dict.fromkeys(Boundary.read(line) for line in lines if "method" in line)
    return Told(tuple(passed), any(FIRED in line for line in lines), any(IN_VAIN in line for line in lines))


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
