"""What keeps one dead system from holding up everything else: circuit breakers and bulkheads. Of a process; nothing is shared.

A breaker counts the calls in a row that got no answer. After a few it opens: nobody asks any more, for a while that doubles. Then one
caller at a time may try, and the first answer closes it. An answer is any answer: what it says is not the breaker's concern.

A bulkhead bounds how many threads one system may keep busy. While that is prompt, who finds no place waits for one, as for a connection;
once the oldest call takes long, nobody waits any more.

No library, since there is nothing to take from one: those for Python (purgatory, pybreaker) call a function and sort its exceptions. Here
asking and hearing are two steps with an attempt's row between them, "nothing learned" is an outcome of its own, and the clock is a port.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from rotation.ports import Clock, Entropy

PROMPT_SECONDS = 1.0
"""A system whose oldest unanswered call is younger than this is worth waiting for."""

MOST_KEPT = 10_000
"""Of the breakers of many systems, those that were used last are kept; one that is forgotten begins anew, closed."""

Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Temper:
    """After how many unanswered calls in a row a breaker opens, for how long at first and at most, and how long a try may take.

    `longest` bounds how late it is noticed that the system is back.
    """

    failures: int = 3
    first: timedelta = timedelta(seconds=2)
    longest: timedelta = timedelta(seconds=15)
    try_lasts: timedelta = timedelta(seconds=30)


class Breaker:
    """The breaker of one system."""

    def __init__(self, clock: Clock, entropy: Entropy, temper: Temper) -> None:
        self._clock = clock
        self._entropy = entropy
        self._temper = temper
        self._lock = threading.Lock()
        self._failures = 0
        self._openings = 0
        self._open_until = 0.0
        self._opened_at = 0.0
        self._broke_at = 0.0
        self._tried_at = 0.0
        self._tried_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether nobody may ask but who is let in to try."""
        return self._openings > 0

    @property
    def open_for(self) -> timedelta:
        """How long the system has not answered by now; nothing while the breaker is closed."""
        return timedelta(seconds=self._clock.monotonic() - self._broke_at) if self.is_open else timedelta(0)

    def holds_back(self, *, emergency: bool = False) -> timedelta | None:
        """For how long not to ask; None: go on to `begin`. An emergency does not wait for the pause to end, only for one who is trying."""
        with self._lock:
            if not self._openings:
                return None
            until = self._tried_until if emergency else max(self._open_until, self._tried_until)
            left = until - self._clock.monotonic()
            return timedelta(seconds=left) if left > 0 else None

    def begin(self) -> float | None:
        """A call begins now. Gives the time for `heard_nothing`; None: do not call.

        While the breaker is open one call at a time may begin, as a try, and has to tell what came of it.
        """
        with self._lock:
            now = self._clock.monotonic()
            if self._openings:
                if now < self._tried_until:
                    return None
                self._tried_at, self._tried_until = now, now + self._temper.try_lasts.total_seconds()
            return now

    def heard(self) -> bool:
        """The system answered. Whether that closed the breaker."""
        with self._lock:
            was_open = self._openings > 0
            self._failures = self._openings = 0
            self._tried_until = 0.0
            return was_open

    def heard_nothing(self, began_at: float) -> bool:
        """A call that began then got no answer. Whether that opened the breaker, which was closed.

        While it is open, a call that began before says nothing new; one that was a try opens it anew. A try in the pause, which only an
        emergency begins, leaves the pause as it is.
        """
        with self._lock:
            now = self._clock.monotonic()
            if self._openings and began_at < self._opened_at:
                return False
            if self._openings and began_at < self._open_until:
                self._tried_until = 0.0
                return False
            self._failures += 1
            if self._failures == 1:
                self._broke_at = now
            if self._failures < self._temper.failures:
                return False
            self._openings += 1
            self._opened_at = now
            self._open_until = now + self._pause()
            self._tried_until = 0.0
            return self._openings == 1

    def learned_nothing(self, began_at: float) -> None:
        """A call that began then cannot tell whether the system answers: if it was the try, another may."""
        with self._lock:
            if began_at == self._tried_at:
                self._tried_until = 0.0

    def _pause(self) -> float:
        """Doubled each time, and of that between a half and the whole, so that many processes do not try at the same time."""
        doubled = min(self._temper.first * (1 << min(self._openings - 1, 16)), self._temper.longest).total_seconds()
        return doubled * (0.5 + draw(self._entropy) / 2)


class Bulkhead:
    """The places of one system: how many threads may be busy with it at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._busy: list[float] = []
        """When each call that is under way began."""

    def take(self, places: int) -> float | None:
        """A place, of so many, to be left by `leave`. None when there is none, and the system is not prompt enough to wait for one."""
        with self._changed:
            patience = PROMPT_SECONDS
            while len(self._busy) >= places:
                asked_at = self._clock.monotonic()
                left = min(patience, PROMPT_SECONDS - (asked_at - min(self._busy)))
                if left <= 0 or not self._changed.wait(left):
                    return None
                patience -= self._clock.monotonic() - asked_at
            began = self._clock.monotonic()
            self._busy.append(began)
            return began

    def leave(self, place: float) -> None:
        """The place is free for another."""
        with self._changed:
            self._busy.remove(place)
            self._changed.notify()


class ByName(Generic[Kept]):
    """One of each system, made when it is first asked for."""

    def __init__(self, make: Callable[[], Kept]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def of(self, name: str) -> Kept:
        """The one of this system."""
        with self._lock:
            if name not in self._kept:
                self._kept[name] = self._make()
                if len(self._kept) > MOST_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(name)
            return self._kept[name]


def draw(entropy: Entropy) -> float:
    """From [0, 1)."""
    return int.from_bytes(entropy.bytes(4)) / 2**32
