"""The open connections to one server, shared by the threads of one process: at most as many as the server allows us."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rotation.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rotation.engines.deadlines import BoundedConnection, TimeLeft

IDLE_SECONDS = 60.0
"""How long a connection is kept that nobody uses."""


class ServerPool:
    """Connections to the databases of one server. Counts all of them, idle or not, against `size`."""

    def __init__(self, system: str, size: int, open_connection: Callable[[str, TimeLeft], BoundedConnection]) -> None:
        self._system = system
        self._size = max(size, 1)
        self._open = open_connection
        self._changed = threading.Condition()
        self._busy = 0
        self._idle: defaultdict[str, list[tuple[float, BoundedConnection]]] = defaultdict(list)

    @contextmanager
    def connection(self, database: str, time_left: TimeLeft) -> Iterator[BoundedConnection]:
        """A connection to the database for this block alone; whoever leaves it in another state than idle has it closed.

        Raises `Unavailable` when none is free in time, and what opening one raises.
        """
        connection = self._take(database, time_left)
        try:
            connection.time_left = time_left
            yield connection
        finally:
            self._give_back(database, connection)

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back."""
        with self._changed:
            self._size = 0
            while self._count_idle():
                self._idle_longest().close()

    def _take(self, database: str, time_left: TimeLeft) -> BoundedConnection:
        known = self._claim_place(database, time_left)
        try:
            if known and known.fresh:
                return known
            if known:
                known.end(time_left)
            return self._open(database, time_left)
        except BaseException:
            with self._changed:
                self._busy -= 1
                self._changed.notify()
            raise

    def _claim_place(self, database: str, time_left: TimeLeft) -> BoundedConnection | None:
        """One more connection is in use: the one that comes back, or one that the caller opens."""
        leaving: list[BoundedConnection] = []
        try:
            with self._changed:
                leaving += self._too_old()
                while not self._idle[database] and self._busy + self._count_idle() >= self._size:
                    if self._count_idle():
                        leaving.append(self._idle_longest())
                    elif not self._changed.wait(max(time_left(), 0.0)):
                        raise Unavailable(f"{self._system}: all {self._size} connections that it allows us are in use")
                self._busy += 1
                return self._idle[database].pop()[1] if self._idle[database] else None
        finally:
            for connection in leaving:
                connection.end(time_left)

    def _give_back(self, database: str, connection: BoundedConnection) -> None:
        kept = self._size and connection.fresh
        if not kept:
            connection.end(connection.time_left)
        with self._changed:
            self._busy -= 1
            if kept and self._size:
                self._idle[database].append((time.monotonic(), connection))
            else:
                connection.close()
            self._changed.notify()

    def _count_idle(self) -> int:
        return sum(len(connections) for connections in self._idle.values())

    def _idle_longest(self) -> BoundedConnection:
        """Makes room: gives the connection that goes."""
        database = min((name for name, idle in self._idle.items() if idle), key=lambda name: self._idle[name][0][0])
        return self._idle[database].pop(0)[1]

    def _too_old(self) -> Iterator[BoundedConnection]:
        limit = time.monotonic() - IDLE_SECONDS
        for idle in self._idle.values():
            while idle and idle[0][0] < limit:
                yield idle.pop(0)[1]
