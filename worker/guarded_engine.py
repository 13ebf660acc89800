"""An engine behind a bulkhead and a circuit breaker for each server: one that hangs keeps few threads busy, and not for long.

While a server's breaker is open, calls to it are kept to ourselves (`NotAsked`). From time to time one caller asks the server's clock
first, within a few seconds; if it answers, everybody's calls go through again with all the time that they have.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from rotation.cases import Deadline
from rotation.errors import AdminRefused, NotAsked, OutcomeUnknown, Refused, Unreachable
from rotation.ports import Engine
from rotation.states import Alarm
from worker.breakers import Breaker, Bulkhead, ByName, Temper, draw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from rotation.errors import Fault
    from rotation.model import Capabilities, Credential, KnownLogin, Login, Minted, RenderedSecret, Resource, Server, Session
    from rotation.ports import Clock, Entropy
    from rotation.sensitive import Sensitive
    from worker.alarms import StandingAlarms

TRY_SECONDS = 4.0
"""How long a server gets to tell its clock before anybody else is let through."""

TEMPER = Temper(longest=timedelta(seconds=10), try_lasts=timedelta(seconds=2 * TRY_SECONDS))
"""A server is tried by one quick question of ours, not by somebody's call, so more often than Vercel is."""

SPREAD = timedelta(seconds=20)
"""Over how long those come back who were kept from a server: not all at once, and with the breaker's pause well within a minute."""

BUSY, BUSY_SPREAD = timedelta(seconds=2), timedelta(seconds=8)
"""When those come back who found no place: its calls take long, so that looking every second would cost more than it gains."""

PERSON_AFTER = timedelta(minutes=1)
"""A server that has not answered for so long is a matter for a person."""

log = structlog.get_logger()


class ClosingEngine(Engine, Protocol):
    """An engine that keeps connections."""

    def close(self) -> None:
        """Close the idle connections; the engine stays usable."""
        ...


class GuardedEngine:
    """`rotation.ports.Engine` around another. `threads` is how many of this process may be busy with one server.

    A server's own number of connections bounds that as well.
    """

    def __init__(self, engine: ClosingEngine, clock: Clock, entropy: Entropy, alarms: StandingAlarms, *, threads: int) -> None:
        self._engine = engine
        self._clock = clock
        self._entropy = entropy
        self._alarms = alarms
        self._threads = threads
        self._breakers = ByName(lambda: Breaker(clock, entropy, TEMPER))
        self._bulkheads = ByName(lambda: Bulkhead(clock))

    def close(self) -> None:
        """As the engine's own."""
        self._engine.close()

    @property
    def capabilities(self) -> Capabilities:
        """As the engine's own."""
        return self._engine.capabilities

    def mint(self, resource: Resource, generation: int, entropy: Entropy) -> Minted:
        """As in the port; it needs no server."""
        return self._engine.mint(resource, generation, entropy)

    def preflight(self, resource: Resource, deadline: Deadline) -> tuple[Fault, ...]:
        """As in the port."""
        with self._asking(resource.server, deadline):
            return self._engine.preflight(resource, deadline)

    def adopt(self, resource: Resource, username: str, deadline: Deadline, *, dry_run: bool) -> tuple[str, ...]:
        """As in the port."""
        with self._asking(resource.server, deadline):
            return self._engine.adopt(resource, username, deadline, dry_run=dry_run)

    def rehearse(self, resource: Resource, username: str, like: str | None, deadline: Deadline) -> tuple[str, ...]:
        """As in the port."""
        with self._asking(resource.server, deadline):
            return self._engine.rehearse(resource, username, like, deadline)

    def admit(
        self, resource: Resource, credential: Credential, verifier: Sensitive, like: str | None, deadline: Deadline
    ) -> tuple[Fault, ...]:
        """As in the port."""
        with self._asking(resource.server, deadline):
            return self._engine.admit(resource, credential, verifier, like, deadline)

    def check(self, resource: Resource, login: Login, secrets: Sequence[RenderedSecret], deadline: Deadline) -> None:
        """As in the port."""
        with self._asking(resource.server, deadline):
            self._engine.check(resource, login, secrets, deadline)

    def parity(self, resource: Resource, username: str, like: str, deadline: Deadline) -> tuple[Fault, ...]:
        """As in the port."""
        with self._asking(resource.server, deadline):
            return self._engine.parity(resource, username, like, deadline)

    def block(self, resource: Resource, credential: Credential, deadline: Deadline) -> None:
        """As in the port."""
        with self._asking(resource.server, deadline):
            self._engine.block(resource, credential, deadline)

    def unblock(self, resource: Resource, credential: Credential, deadline: Deadline) -> None:
        """As in the port."""
        with self._asking(resource.server, deadline):
            self._engine.unblock(resource, credential, deadline)

    def withdraw(self, resource: Resource, credential: Credential, keep: Sequence[str], deadline: Deadline) -> None:
        """As in the port."""
        with self._asking(resource.server, deadline):
            self._engine.withdraw(resource, credential, keep, deadline)

    def prove_refused(self, resource: Resource, login: Login, control: Login | None, deadline: Deadline) -> None:
        """As in the port."""
        with self._asking(resource.server, deadline):
            self._engine.prove_refused(resource, login, control, deadline)

    def usage(self, server: Server, deadline: Deadline) -> tuple[Session, ...]:
        """As in the port."""
        with self._asking(server, deadline):
            return self._engine.usage(server, deadline)

    def list_logins(self, server: Server, deadline: Deadline) -> tuple[KnownLogin, ...]:
        """As in the port."""
        with self._asking(server, deadline):
            return self._engine.list_logins(server, deadline)

    def find_logins(self, server: Server, usernames: Sequence[str], deadline: Deadline) -> tuple[KnownLogin, ...]:
        """As in the port."""
        with self._asking(server, deadline):
            return self._engine.find_logins(server, usernames, deadline)

    def verifier(self, password: Sensitive, entropy: Entropy) -> Sensitive:
        """As in the port; it needs no server."""
        return self._engine.verifier(password, entropy)

    def clock(self, server: Server, deadline: Deadline) -> datetime:
        """As in the port."""
        with self._asking(server, deadline):
            return self._engine.clock(server, deadline)

    @contextmanager
    def _asking(self, server: Server, deadline: Deadline) -> Iterator[None]:
        """A call to the server. Raises `NotAsked` where it should not be asked now."""
        breaker, bulkhead = self._breakers.of(server.name), self._bulkheads.of(server.name)
        self._go_on(server, breaker)
        place = bulkhead.take(max(1, min(self._threads, server.connections)))
        if place is None:
            raise NotAsked(f"{server.name}: enough of this worker's threads wait for it", retry_after=self._later(BUSY, BUSY_SPREAD))
        try:
            self._go_on(server, breaker)  # while one waits for a place, others may find out that there is no answer
            if breaker.is_open:
                self._try(server, breaker, deadline)
            with self._listening(server, breaker):
                yield
        finally:
            bulkhead.leave(place)

    def _go_on(self, server: Server, breaker: Breaker) -> None:
        """Raises `NotAsked` while the server is left alone."""
        pause = breaker.holds_back()
        if pause is not None:
            raise self._kept_back(server, pause)

    def _try(self, server: Server, breaker: Breaker, deadline: Deadline) -> None:
        """Ask the server's clock before anything else. Raises `NotAsked` when it does not answer."""
        try:
            with self._listening(server, breaker):
                self._engine.clock(server, Deadline(min(deadline.at, self._clock.monotonic() + TRY_SECONDS)))
        except (Unreachable, OutcomeUnknown):
            raise self._kept_back(server, TEMPER.first) from None

    @contextmanager
    def _listening(self, server: Server, breaker: Breaker) -> Iterator[None]:
        """One call, whose end tells the breaker whether the server answers; of a mere `Unavailable` another endpoint may be the cause."""
        began_at = breaker.begin()
        if began_at is None:
            raise self._kept_back(server, TEMPER.first)
        try:
            yield
        except (Unreachable, OutcomeUnknown) as error:
            self._not_answered(server, breaker, began_at, str(error))
            raise
        except AdminRefused as error:
            self._answered(server, breaker)
            # It falls by itself: a call that goes well may have a connection from before, or be for a database that still lets us in.
            self._alarms.raised(Alarm.ADMIN_REFUSED, server.name, problem=str(error), advice=error.advice)
            raise
        except Refused:
            self._answered(server, breaker)
            raise
        except BaseException:
            breaker.learned_nothing(began_at)
            raise
        self._answered(server, breaker)

    def _answered(self, server: Server, breaker: Breaker) -> None:
        if breaker.heard():
            log.info("breaker_closed", server=server.name)
            self._alarms.over(Alarm.SERVER_UNREACHABLE, server.name)

    def _not_answered(self, server: Server, breaker: Breaker, began_at: float, problem: str) -> None:
        if breaker.heard_nothing(began_at):
            log.warning("breaker_opened", server=server.name, problem=problem)
        if breaker.open_for >= PERSON_AFTER:
            self._alarms.raised(Alarm.SERVER_UNREACHABLE, server.name, problem=problem)

    def _kept_back(self, server: Server, pause: timedelta) -> NotAsked:
        return NotAsked(f"{server.name} has not answered lately", retry_after=self._later(pause, SPREAD))

    def _later(self, soonest: timedelta, spread: timedelta) -> timedelta:
        return soonest + draw(self._entropy) * spread
