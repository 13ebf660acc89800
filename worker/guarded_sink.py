"""Vercel behind circuit breakers, one for each installation and one for Vercel as a whole, and a bulkhead: the retry budget.

While Vercel answers nothing, or nothing but 5xx, waiting rotations do not each try again and again. They ask `pause` before an attempt is
opened, and while a breaker is open one push at a time is let through to find out; its answer lets all the others go on.

Vercel as a whole counts as down when pushes of several installations in a row were not answered: one that is broken by itself holds up
nobody else.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from rotation.model import PushOutcome, PushVerdict
from rotation.ports import SecretsSink
from rotation.states import Alarm
from worker.breakers import Breaker, Bulkhead, ByName, Temper, draw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rotation.cases import Deadline
    from rotation.model import Installation, Login, RenderedSecret, Resource
    from rotation.ports import Clock, Entropy
    from worker.alarms import StandingAlarms

TEMPER = Temper()

SPREAD = timedelta(seconds=25)
"""Over how long those come back who were kept from pushing: together with the breaker's pause well within a minute."""

PERSON_AFTER = timedelta(minutes=5)
"""Vercel is watched by Vercel: when it has not answered for so long, our own side should be looked at as well."""

VERCEL = "vercel"

log = structlog.get_logger()


class ClosingSink(SecretsSink, Protocol):
    """A sink that keeps connections."""

    def close(self) -> None:
        """Close the idle connections; the sink stays usable."""
        ...


class GuardedSink:
    """`rotation.ports.SecretsSink` around another. `threads` is how many of this process may be waiting for Vercel at once."""

    def __init__(self, sink: ClosingSink, clock: Clock, entropy: Entropy, alarms: StandingAlarms, *, threads: int) -> None:
        self._sink = sink
        self._clock = clock
        self._entropy = entropy
        self._alarms = alarms
        self._threads = threads
        self._whole = Breaker(clock, entropy, TEMPER)
        self._breakers = ByName(lambda: Breaker(clock, entropy, TEMPER))
        self._bulkhead = Bulkhead(clock)
        self._silent_for = ""
        """The installation whose push was not answered, where the last push was not."""
        self._heard_at = clock.monotonic()

    def close(self) -> None:
        """As the sink's own."""
        self._sink.close()

    def render(self, resource: Resource, login: Login) -> tuple[RenderedSecret, ...]:
        """As the sink's own."""
        return self._sink.render(resource, login)

    def pause(self, installation: Installation, *, emergency: bool) -> timedelta | None:
        """As in the port."""
        for breaker in self._breakers_of(installation):
            held = breaker.holds_back(emergency=emergency)
            if held is not None:
                return held if emergency else held + draw(self._entropy) * SPREAD
        return None

    def push(
        self,
        resource: Resource,
        installation: Installation,
        secrets: Sequence[RenderedSecret],
        may_send: Callable[[], bool],
        deadline: Deadline,
    ) -> PushOutcome:
        """As in the port. Nothing is sent where too many are pushing, or another is trying whether Vercel answers again."""
        held = self._held(installation)  # who comes all the same does not wait for the pause to end
        place = self._bulkhead.take(self._threads)
        if place is None:
            return _unsent("enough of this worker's threads are pushing")
        try:
            if self._held(installation) and not held:
                return _unsent("others have had no answer meanwhile")
            return self._push(resource, installation, secrets, may_send, deadline)
        finally:
            self._bulkhead.leave(place)

    def resource_exists(self, resource: Resource, installation: Installation, deadline: Deadline) -> bool | None:
        """As in the port; no definite answer while there is no use in asking."""
        if any(breaker.is_open for breaker in self._breakers_of(installation)):
            return None
        place = self._bulkhead.take(max(1, self._threads // 2))  # pushes find a place however many look
        if place is None:
            return None
        try:
            return self._sink.resource_exists(resource, installation, deadline)
        finally:
            self._bulkhead.leave(place)

    def _push(
        self,
        resource: Resource,
        installation: Installation,
        secrets: Sequence[RenderedSecret],
        may_send: Callable[[], bool],
        deadline: Deadline,
    ) -> PushOutcome:
        begun = [(breaker, began) for breaker in self._breakers_of(installation) if (began := breaker.begin()) is not None]
        if len(begun) < len(self._breakers_of(installation)):
            _nothing_learned(begun)
            return _unsent("another push finds out whether Vercel answers again")
        forbidden = False

        def may_still_send() -> bool:
            nonlocal forbidden
            forbidden = not may_send()
            return not forbidden

        try:
            outcome = self._sink.push(resource, installation, secrets, may_still_send, deadline)
        except BaseException:
            _nothing_learned(begun)
            raise
        if outcome.verdict not in (PushVerdict.UNKNOWN, PushVerdict.UNSENT):
            self._heard(installation)
        elif outcome.asked and not forbidden:
            self._heard_nothing(installation, min(began for _, began in begun), outcome.note)
        else:
            _nothing_learned(begun)
        return outcome

    def _held(self, installation: Installation) -> bool:
        return any(breaker.holds_back() is not None for breaker in self._breakers_of(installation))

    def _breakers_of(self, installation: Installation) -> tuple[Breaker, Breaker]:
        return self._whole, self._breakers.of(installation.id)

    def _heard(self, installation: Installation) -> None:
        self._silent_for, self._heard_at = "", self._clock.monotonic()
        whole, own = self._breakers_of(installation)
        if own.heard():
            log.info("breaker_closed", installation=installation.id)
        if whole.heard():
            log.info("breaker_closed", system=VERCEL)
        self._alarms.over(Alarm.VERCEL_UNREACHABLE, VERCEL)

    def _heard_nothing(self, installation: Installation, began_at: float, problem: str) -> None:
        whole, own = self._breakers_of(installation)
        if own.heard_nothing(began_at):
            log.warning("breaker_opened", installation=installation.id, problem=problem)
        another, self._silent_for = self._silent_for not in ("", installation.id), installation.id
        if (another or whole.is_open) and whole.heard_nothing(began_at):
            log.warning("breaker_opened", system=VERCEL, problem=problem)
        # Where nobody else pushes, nobody knows better than the installation that is not answered.
        heard_nothing_for = timedelta(seconds=self._clock.monotonic() - self._heard_at)
        if min(heard_nothing_for, max(whole.open_for, own.open_for)) >= PERSON_AFTER:
            self._alarms.raised(Alarm.VERCEL_UNREACHABLE, VERCEL, problem=problem)


def _nothing_learned(begun: Iterable[tuple[Breaker, float]]) -> None:
    for breaker, began_at in begun:
        breaker.learned_nothing(began_at)


def _unsent(why: str) -> PushOutcome:
    return PushOutcome(PushVerdict.UNSENT, note=why, asked=False)
