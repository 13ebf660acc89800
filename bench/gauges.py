"""What a process has cost so far, as the kernel counts it (proc(5))."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    own: int
    waited_for: int
    """Ticks of the children that have ended."""


def cpu_seconds(*pids: int) -> float:
    """The CPU time of these processes and of all that they started, user and system, those that have ended since included."""
    stats = {pid: stat for place in PROC.glob("[0-9]*") if (stat := _stat(pid := int(place.name))) is not None}
    wanted = set(pids)
    for pid in sorted(stats):  # parents come before their children, but where the numbers have wrapped around
        if stats[pid].parent in wanted:
            wanted.add(pid)
    return sum(stats[pid].own + stats[pid].waited_for for pid in wanted if pid in stats) / TICKS


def resident_bytes(pid: int) -> int:
    """How much memory a process holds now (VmRSS)."""
    fields = dict(line.split(":", 1) for line in (PROC / str(pid) / "status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def _stat(pid: int) -> _Stat | None:
    try:
        # The name in parentheses may hold anything; what follows it begins with the third field.
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return _Stat(parent=int(fields[1]), own=int(fields[11]) + int(fields[12]), waited_for=int(fields[13]) + int(fields[14]))
