"""What went wrong, sorted by what may be done next.

An adapter sorts its own errors, because only it knows the other side. Everything above it decides on these classes alone:

* RolloverError
  · Refused         definitely not applied, and will not be: do not repeat it as it is
    · NameClash       a login of that name is somebody else's
    · AdminRefused    a server does not let our admin login in: nothing can be done there until a person mends it
  · Unavailable     definitely not applied, may work later: repeat it after a while
    · KeyMissing      the key that sealed this is not in the keyring: held until it comes back or is abandoned
    · Unreachable     the other side gave no answer at all, or not in time
    · NotAsked        we did not even ask, since it has not answered others lately, or enough of us are asking
  · OutcomeUnknown  perhaps applied: the next try looks first
  · LostClaim       somebody else moved the row, or our time for it is over: stop, nothing is wrong
  · IllegalMove     a bug of ours: stop loudly
  · Invalid         an input has faults; all of them are listed
  · NotFound        a name that the store does not know
  · Conflict        the request is well formed, but the state of things forbids it

A message names the system and the code. It never holds a secret, a body, a parameter or a URL with credentials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta


class RolloverError(Exception):
    """Everything that this program raises on purpose."""


class Refused(RolloverError):
    """Definitely not applied, and the same call will be refused again.

    `advice` says what a person should do.
    """

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice


class NameClash(Refused):
    """A login of that name exists and does not carry our marker for this credential: it is left alone."""


class AdminRefused(Refused):
    """The admin login of a server is refused: its password was changed, or it was removed or may not log in any more."""


class Unavailable(RolloverError):
    """Definitely not applied; the same call may work later, after `retry_after` where the other side named a time."""

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class KeyMissing(Unavailable):
    """The key that sealed this value is not in the keyring."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"the key {key_id} is not in the keyring")
        self.key_id = key_id


class Unreachable(Unavailable):
    """Nobody was there, or no answer came in time: a sign that the whole system is down, not that it minds this call."""


class NotAsked(Unavailable):
    """We kept the call to ourselves, so it says nothing about what it was for, and is no setback. It always has a `retry_after`."""

    def __init__(self, message: str, *, retry_after: timedelta) -> None:
        super().__init__(message, retry_after=retry_after)


class OutcomeUnknown(RolloverError):
    """The act was perhaps applied. The next try looks before it acts."""


class LostClaim(RolloverError):
    """Somebody else moved the row, or the time to act on it is over. Whoever holds it now goes on."""


class IllegalMove(RolloverError):
    """A move that the state forbids: a bug of ours."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an input: the field, what is wrong (never a secret's value), and what to do."""

    field: str
    problem: str
    advice: str = ""

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.field}: {self.problem}" + (f" ({self.advice})" if self.advice else "")


class Invalid(RolloverError):
    """An input with faults, all of them listed at once."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))


class NotFound(RolloverError):
    """The store knows nothing by that name."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is no {kind} {name!r}")
        self.kind = kind
        self.name = name


class Conflict(RolloverError):
    """The request is well formed, but the state of things forbids it; the message says why and what to do."""
