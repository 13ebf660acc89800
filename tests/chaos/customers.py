"""Customers in a hurry: as `tests.witnesses`, but many logins a second, by the direct door where a proxy stands before the server.

They know only what Vercel holds, and go on with an old value up to the end of its grace, as those do who redeploy late. A login that
a proxy spoilt would say nothing about us, so they go past it. A customer for whom somebody may ask for an emergency is promised no
grace: what Vercel holds must log in all the same. So must what it holds for those that nobody watches; they are visited in turn.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from tests.witnesses import Diary, Tally, Witness

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta
    from types import TracebackType

    from tests.witnesses import Held
    from worker.sandbox.customers import Address
    from worker.sandbox.vercel_client import SandboxVercelClient
    from worker.sandbox.vercel_world import World

NEWS_SECONDS = 0.05
"""How often Vercel is asked what is new. A login with what was replaced a moment ago is judged by what is known after it."""
VISIT_SECONDS = 0.1
"""From one of those that are visited in turn to the next."""


class DirectDiary(Diary):
    """What Vercel has held, each value with the door that a customer uses: `direct` are the ports to use instead of others."""

    def __init__(self, vercel: World | SandboxVercelClient, direct: Mapping[int, int]) -> None:
        super().__init__(vercel)
        self._direct = direct

    def _door(self, value: str) -> Address:
        door = super()._door(value)
        return replace(door, port=self._direct.get(door.port, door.port))


class Customers(Witness):
    """A thread for each customer who is watched, one that visits the others, and one that reads Vercel's history for all of them."""

    turn = 0.04

    def __init__(
        self,
        vercel: World | SandboxVercelClient,
        promises: Mapping[str, timedelta],
        direct: Mapping[int, int],
        visited: Sequence[str] = (),
    ) -> None:
        super().__init__(vercel, promises)
        self.diary = DirectDiary(vercel, direct)
        self.visited = tuple(visited)
        self.watched = tuple(promises)
        self.tallies |= {name: Tally() for name in visited}
        self._promises |= dict.fromkeys(visited, 0.0)
        self._threads.append(self._thread("news", self._read_news))
        self._threads.append(self._thread("visits", self._visit))
        self._began = time.monotonic()
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return super().__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        super().__exit__(kind, error, traceback)
        self.seconds = time.monotonic() - self._began

    @property
    def late(self) -> int:
        return sum(tally.late for tally in self.tallies.values())

    def tried(self, names: Iterable[str]) -> int:
        """How many logins of these resources were tried."""
        tallies = [self.tallies[name] for name in names]
        return sum(one.accepted + one.unreachable + one.late + len(one.refused) for one in tallies)

    def _read_news(self) -> None:
        while not self._ending.wait(NEWS_SECONDS):
            self.diary.read()

    def _visit(self) -> None:
        for name in itertools.cycle(self.visited):
            if self._ending.wait(VISIT_SECONDS):
                return
            for held in self._promised(name, self._known(name)):
                self._try(name, held)

    def _known(self, resource: str) -> tuple[Held, ...]:
        return self.diary.lately(resource)
