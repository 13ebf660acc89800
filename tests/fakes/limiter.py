"""A limiter that answers what a test tells it to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from rotation.ports import Clock


class FakeLimiter:
    """Gives the scripted answers in order, then "now", and keeps what it was asked. What it learned it respects, script or not."""

    def __init__(self, clock: Clock, answers: Iterable[datetime | None] = ()) -> None:
        self._clock = clock
        self.answers = list(answers)
        self.reserved: list[tuple[str, bool]] = []
        self.blocked_until: dict[str, datetime] = {}

    def reserve(self, scope: str, *, urgent: bool) -> datetime | None:
        self.reserved.append((scope, urgent))
        answer = self.answers.pop(0) if self.answers else None
        blocked = self.blocked_until.get(scope)
        if blocked is not None and blocked > self._clock.now():
            return max(answer, blocked) if answer else blocked
        return answer

    def learn(self, scope: str, *, blocked_until: datetime) -> None:
        known = self.blocked_until.get(scope)
        self.blocked_until[scope] = max(known, blocked_until) if known else blocked_until
