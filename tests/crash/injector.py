"""The faults of a real worker: it writes down every call, and lets one fault happen, once."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from tests.crash.boundaries import BROKER, Kind
from tests.crash.cables import cut
from tests.crash.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from tests.crash.boundaries import Boundary, Fault
    from tests.crash.journal import Journal

GOES_ON_FOR = 0.005
"""Seconds at most between an answer and a SIGKILL `after` it: the worker dies in the middle of what it does next."""


class Injector(Faults):
    """`servers` are the TCP ports by the name of the port; `patience` is how long a call may take.

    `chance`, from [0, 1), draws how far a worker gets before it is killed after a call.
    """

    def __init__(self, journal: Journal, fault: Fault | None, servers: Mapping[str, int], patience: timedelta, chance: float) -> None:
        super().__init__()
        self._journal = journal
        self._fault = fault
        self._servers = servers
        self._patience = patience.total_seconds()
        self._chance = chance
        self._still_to_come = threading.Lock()
        """Taken by the thread in which the fault happens."""

    def broker(self, method: str, act: Callable[..., Any]) -> Callable[..., Any]:
        """A function that talks to the broker, watched. Sending nothing is no call."""

        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - it stands for any function
            if method == "send" and not arguments[-1]:
                return act(*arguments, **named)
            return self.call(BROKER, method, arguments, lambda: act(*arguments, **named))

        return call

    def due(self) -> Fault | None:
        return self._fault

    def happens(self, fault: Fault) -> bool:
        if not self._still_to_come.acquire(blocking=False):
            return False
        self._journal.fired()
        return True

    def note(self, boundary: Boundary) -> None:
        self._journal.passed(boundary)

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def wait(self) -> None:
        time.sleep(self._patience)

    def disconnect(self, port: str) -> bool:
        return cut(self._servers[port]) > 0

    def afterwards(self, port: str, fault: Fault) -> None:
        if fault.kind is Kind.KILL:
            threading.Thread(target=self._die_soon, daemon=True).start()
        elif not self.disconnect(port):
            self.in_vain()

    def in_vain(self) -> None:
        self._journal.in_vain()

    def _die_soon(self) -> None:
        time.sleep(self._chance * GOES_ON_FOR)
        self.die()
