"""This machine's clocks and randomness, as the ports want them."""

from __future__ import annotations

import resource
import secrets
import time
from datetime import UTC, datetime


class MachineClock:
    """The operating system's clocks."""

    def now(self) -> datetime:
        """The wall clock, aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some instant, counting on while the machine sleeps, so that a claim ends for a frozen machine as for others."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class MachineEntropy:
    """The operating system's randomness."""

    def bytes(self, count: int) -> bytes:
        """`count` bytes, fit for a password."""
        return secrets.token_bytes(count)


def leave_no_core() -> None:
    """From now on this process and its children leave no core when they crash: it would hold their secrets in plain text, on a disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
