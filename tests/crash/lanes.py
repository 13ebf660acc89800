"""Several runs at once, each lane a process of its own with a nursery of its own, so that runs do not wait for each other."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Self

from structlog.testing import capture_logs

from tests.crash.nursery import Nursery, die_with_the_parent
from tests.crash.runs import Order, Verdict, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess

    from tests.crash.runs import Servers

FAREWELL_SECONDS = 10.0
_FORK = multiprocessing.get_context("fork")


class Lanes:
    """So many runs at once. It must be entered while the process has one thread."""

    def __init__(self, count: int, servers: Servers) -> None:
        self._count = count
        self._servers = servers
        self._lanes: dict[Connection[Any, Any], ForkProcess] = {}

    def __enter__(self) -> Self:
        for number in range(self._count):
            ours, theirs = _FORK.Pipe()
            process = _FORK.Process(target=_serve, args=(theirs, self._servers, number), daemon=True)
            process.start()
            theirs.close()
            self._lanes[ours] = process
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lanes:
            line.send(None)
        for process in self._lanes.values():
            process.join(FAREWELL_SECONDS)
            process.kill()

    def verdicts(self, orders: Iterable[Order]) -> Iterator[Verdict]:
        """What came of each order, the first that is done first."""
        waiting = list(reversed(list(orders)))
        at_work = 0
        for line in self._lanes:
            if waiting:
                line.send(waiting.pop())
                at_work += 1
        while at_work:
            for line in [one for one in self._lanes if one in connection.wait(list(self._lanes))]:
                yield line.recv()
                at_work -= 1
                if waiting:
                    line.send(waiting.pop())
                    at_work += 1


def _serve(line: Connection[Any, Any], servers: Servers, number: int) -> None:
    """A lane: one run after the other, until it is told that there are no more."""
    die_with_the_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["SSL_CERT_FILE"] = os.devnull  # nothing here is TLS, and to read the system's certificates for each context takes long
    with Nursery() as nursery, capture_logs():  # what this process itself would log is nobody's news
        while (order := line.recv()) is not None:
            line.send(run(order, servers, number, nursery))
    os._exit(0)
