"""The customers' side of every acceptance test: applications that know only what Vercel has held, and log in with it all the time.

What Vercel holds now must log in. A value that it held before must log in until its promised end: the replacement + the grace period,
which is never later than the real end (that counts from the acknowledgement). An answer is judged by the time at which it was there,
so that a slow machine makes the judgement milder, never wrong.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import psycopg

from rotation.sensitive import Sensitive
from worker.sandbox.customers import VARIABLE, Answer, address, connect, knock
from worker.sandbox.vercel_client import SandboxFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta
    from types import TracebackType

    from worker.sandbox.customers import Address
    from worker.sandbox.vercel_client import SandboxVercelClient
    from worker.sandbox.vercel_world import World

APPLICATION = "witness"
FATAL = "FATAL:"
TAKES_NOBODY = (
    "the database system is ",
    "terminating connection due to administrator command",
    "terminating connection due to immediate shutdown command",
    "terminating connection due to unexpected postmaster exit",
    "terminating connection because of crash of another server process",
    "terminating connection because of unexpected SIGQUIT signal",
)
"""What a server says that takes nobody at the moment: it starts, stops, recovers or was killed. With anything else it turns this login
away. These are PostgreSQL's texts of 15 to 18."""


@dataclass(frozen=True, slots=True)
class Held:
    """A value that Vercel held from an instant on, until another took its place; seconds since 1970."""

    door: Address
    since: float
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A login that was refused although it was promised to work."""

    resource: str
    username: str
    said: str
    """The server's words: libpq keeps the SQLSTATE to itself."""
    seconds_held: float


@dataclass(slots=True)
class Tally:
    """What became of the logins of one resource."""

    accepted: int = 0
    unreachable: int = 0
    late: int = 0
    """Refused when it was no longer promised."""
    refused: list[Refusal] = field(default_factory=list)


def refusal(error: psycopg.OperationalError) -> str | None:
    """What the server said to a login that it turned away; None if nobody has judged it: no connection, or a server that takes nobody."""
    _, is_fatal, said = str(error).partition(FATAL)
    if not is_fatal or any(words in said for words in TAKES_NOBODY):
        return None
    return said.strip().partition("\n")[0]


class Diary:
    """What Vercel has held for each resource and when, by its own history."""

    def __init__(self, vercel: World | SandboxVercelClient) -> None:
        self._vercel = vercel
        self._lock = threading.Lock()
        self._read_up_to = 0
        self._held: dict[str, list[Held]] = {}

    def of(self, resource: str) -> tuple[Held, ...]:
        """Everything that it held, the present value last. What was known before, while the local Vercel does not answer."""
        self.read()
        return self.lately(resource)

    def lately(self, resource: str) -> tuple[Held, ...]:
        """The same, by what was read last."""
        with self._lock:
            return tuple(self._held.get(resource, ()))

    def read(self) -> None:
        """Read on in the history."""
        with self._lock:
            try:
                entries = self._vercel.history(self._read_up_to)
            except SandboxFailed:
                entries = []
            for entry in entries:
                self._read_up_to = entry.number
                if entry.applied:
                    self._note(entry.resource, entry.values, entry.at.timestamp())

    def _note(self, resource: str, values: Mapping[str, str], at: float) -> None:
        held = self._held.setdefault(resource, [])
        door = self._door(values[VARIABLE])
        if held and held[-1].door == door:
            return
        if held:
            held[-1] = Held(held[-1].door, held[-1].since, at)
        held.append(Held(door, at))

    def _door(self, value: str) -> Address:
        return address(Sensitive(value))


class Witness:
    """A thread for each resource that tries its promised logins several times a second. `promises` are the grace periods by resource."""

    turn = 0.2
    """Seconds between one round and the next."""

    def __init__(self, vercel: World | SandboxVercelClient, promises: Mapping[str, timedelta]) -> None:
        self.diary = Diary(vercel)
        self.tallies = {name: Tally() for name in promises}
        self._promises = {name: grace.total_seconds() for name, grace in promises.items()}
        self._ending = threading.Event()
        self._died: list[Exception] = []
        self._threads = [self._thread(f"witness-{name}", self._watch, name) for name in promises]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        if self._died and error is None:
            raise self._died[0]

    def _thread(self, name: str, act: Callable[..., None], *arguments: str) -> threading.Thread:
        """One that is not begun. Whoever looks away has seen nothing: if it ends by an error, so does the test."""

        def run() -> None:
            try:
                act(*arguments)
            except Exception as error:  # noqa: BLE001 - whatever it is, `__exit__` raises it
                self._died.append(error)

        return threading.Thread(target=run, name=name)

    @property
    def refused(self) -> list[Refusal]:
        return [refusal for tally in self.tallies.values() for refusal in tally.refused]

    @property
    def accepted(self) -> int:
        return sum(tally.accepted for tally in self.tallies.values())

    @property
    def unreachable(self) -> int:
        return sum(tally.unreachable for tally in self.tallies.values())

    def _watch(self, resource: str) -> None:
        while not self._ending.wait(self.turn):
            for held in self._promised(resource, self._known(resource)):
                self._try(resource, held)

    def _known(self, resource: str) -> tuple[Held, ...]:
        return self.diary.of(resource)

    def _promised(self, resource: str, helds: Iterable[Held]) -> list[Held]:
        """The newest stay of each login, as a late push may have brought an old value back for a while."""
        latest = {held.door.login.username: held for held in helds}
        return [held for held in latest.values() if held.until is None or time.time() < held.until + self._promises[resource]]

    def _try(self, resource: str, held: Held) -> None:
        tally = self.tallies[resource]
        try:
            connect(held.door, APPLICATION).close()
        except psycopg.OperationalError as error:
            answered_at = time.time()
            said = refusal(error)
            if said is None:
                tally.unreachable += 1
            elif self._was_promised(resource, held.door.login.username, answered_at):
                tally.refused.append(Refusal(resource, held.door.login.username, said, answered_at - held.since))
            else:
                tally.late += 1
        else:
            tally.accepted += 1

    def _was_promised(self, resource: str, username: str, at: float) -> bool:
        """Whether it was still promised at that time, by what Vercel knows after it."""
        latest = next(held for held in reversed(self.diary.of(resource)) if held.door.login.username == username)
        return latest.until is None or at < latest.until + self._promises[resource]


class LateWitness(Witness):
    """Customers who were turned away by somebody's hand, and who count on their login from when it works again."""

    def _watch(self, resource: str) -> None:
        while not self._ending.wait(self.turn):
            if knock(self._known(resource)[-1].door) is Answer.ACCEPTED:
                break
        super()._watch(resource)


class LeavingDiary(Diary):
    """What Vercel has held until its resources left, all of them when this diary was begun."""

    def __init__(self, vercel: World | SandboxVercelClient) -> None:
        super().__init__(vercel)
        self._left_at = time.time()

    def lately(self, resource: str) -> tuple[Held, ...]:
        return tuple(held if held.until is not None else replace(held, until=self._left_at) for held in super().lately(resource))


class LeavingWitness(Witness):
    """Customers whose resource leaves at this moment: what Vercel holds is promised to work for the grace period, and no longer."""

    def __init__(self, vercel: World | SandboxVercelClient, promises: Mapping[str, timedelta]) -> None:
        super().__init__(vercel, promises)
        self.diary = LeavingDiary(vercel)
