"""An in-memory Vercel behind the `SecretsSink` port, whose answers and effects a test writes beforehand."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from rotation.model import PushOutcome, PushVerdict
from rotation.vercel import secrets as templates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime, timedelta

    from rotation.cases import Deadline
    from rotation.model import Installation, Login, RenderedSecret, Resource

Key = tuple[str, str]
"""Installation and the provider's id of the resource."""


class Effect(StrEnum):
    """What becomes of the values of a push, whatever its answer says."""

    NOW = "now"
    NEVER = "never"
    LATER = "later"
    """Still on its way: applied when the test calls `deliver`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one push is answered, and what it does."""

    outcome: PushOutcome
    effect: Effect


APPLIED = Answer(PushOutcome(PushVerdict.APPLIED, 201), Effect.NOW)
APPLIED_BUT_UNKNOWN = Answer(PushOutcome(PushVerdict.UNKNOWN, 504, "504"), Effect.NOW)
LOST_AND_UNKNOWN = Answer(PushOutcome(PushVerdict.UNKNOWN, None, "timed out"), Effect.NEVER)
ON_ITS_WAY = Answer(PushOutcome(PushVerdict.UNKNOWN, None, "timed out"), Effect.LATER)
REFUSED = Answer(PushOutcome(PushVerdict.REFUSED, 400, "400"), Effect.NEVER)
UNAUTHORIZED = Answer(PushOutcome(PushVerdict.UNAUTHORIZED, 401, "401"), Effect.NEVER)
MISSING = Answer(PushOutcome(PushVerdict.MISSING, 404, "404"), Effect.NEVER)
CONFLICT = Answer(PushOutcome(PushVerdict.CONFLICT, 409, "409"), Effect.NEVER)
UNREACHABLE = Answer(PushOutcome(PushVerdict.UNSENT, None, "connection refused"), Effect.NEVER)


def limited(retry_at: datetime) -> Answer:
    """A 429 that names a time."""
    return Answer(PushOutcome(PushVerdict.LIMITED, 429, "429", retry_at), Effect.NEVER)


@dataclass(frozen=True, slots=True)
class Push:
    """A push that was sent: what for, with which values by their bare names, and how it was answered."""

    key: Key
    values: dict[str, str] = field(repr=False)
    owns_all: bool
    answer: Answer


@dataclass
class FakeSink:
    """The sink's double. `script` holds the answers of the next pushes, in order; when it is empty, a push is `otherwise`.

    `held` is what Vercel holds now. `in_flight` are requests that were sent, answered as unknown and not yet applied.
    """

    script: deque[Answer] = field(default_factory=deque)
    otherwise: Answer = APPLIED
    held: dict[Key, dict[str, str]] = field(default_factory=dict)
    pushes: list[Push] = field(default_factory=list)
    in_flight: list[Push] = field(default_factory=list)
    not_sent: int = 0
    """How often `may_send` forbade a push."""
    exists: bool | None = True
    paused_for: timedelta | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def answers(self, *answers: Answer) -> None:
        """Write the answers of the next pushes behind those that are already written."""
        self.script.extend(answers)

    def close(self) -> None:
        """Nothing is kept open."""

    def render(self, resource: Resource, login: Login) -> tuple[RenderedSecret, ...]:
        return templates.render(resource.spec, resource.server, login)

    def pause(self, installation: Installation, *, emergency: bool) -> timedelta | None:
        return self.paused_for

    def push(
        self,
        resource: Resource,
        installation: Installation,
        secrets: Sequence[RenderedSecret],
        may_send: Callable[[], bool],
        deadline: Deadline,
    ) -> PushOutcome:
        with self._lock:
            scripted = self.script.popleft() if self.script else None
        answer = scripted or self.otherwise
        if answer.outcome.verdict is PushVerdict.UNSENT:
            return answer.outcome
        # Asked without the lock, as the real sink does: what it asks may push as well.
        if not may_send():
            with self._lock:
                self.not_sent += 1
                self.script.extendleft([scripted] if scripted else [])  # nobody was asked, so nobody has answered
            return PushOutcome(PushVerdict.UNSENT, None, "not allowed to send")
        values = {secret.name: secret.value.reveal() for secret in secrets}
        push = Push((installation.id, resource.spec.external_id), values, resource.spec.owns_all_secrets, answer)
        with self._lock:
            self.pushes.append(push)
            if answer.effect is Effect.NOW:
                self._apply(push)
            elif answer.effect is Effect.LATER:
                self.in_flight.append(push)
        return answer.outcome

    def resource_exists(self, resource: Resource, installation: Installation, deadline: Deadline) -> bool | None:
        return self.exists

    def deliver(self, which: Iterable[Push] | None = None) -> int:
        """Let requests that are on their way arrive, in the order given (all of them, oldest first, when not said). How many arrived."""
        with self._lock:
            arriving = list(self.in_flight if which is None else which)
            for push in arriving:
                self.in_flight.remove(push)
                self._apply(push)
        return len(arriving)

    def value(self, resource: Resource, name: str = "DATABASE_URL") -> str | None:
        """What Vercel holds under this name; None when there is nothing."""
        with self._lock:
            return self.held.get((resource.spec.installation_id, resource.spec.external_id), {}).get(name)

    def _apply(self, push: Push) -> None:
        kept = {} if push.owns_all else self.held.get(push.key, {})
        self.held[push.key] = {**kept, **push.values}
