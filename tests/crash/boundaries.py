"""Where a worker can die: every call that crosses a port, by what the worker had in hand; and what can go wrong there.

The list of boundaries is what a run without faults wrote down (`journal`). Nobody writes one by hand.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

NOTHING_IN_HAND = "nothing in hand"

STORE, ENGINE, SINK, SEALER, LIMITER, BROKER = "store", "engine", "sink", "sealer", "limiter", "broker"

COMPUTED = frozenset({(ENGINE, "mint"), (ENGINE, "verifier"), (SINK, "render"), (SINK, "pause"), (SEALER, "seal"), (SEALER, "open")})
"""Calls that cross no network, so that nothing but the process itself, or a refusal, comes between them and their caller."""

NEVER_FAIL = frozenset(
    {(ENGINE, "mint"), (ENGINE, "verifier"), (SINK, "pause"), (SEALER, "seal"), (LIMITER, "reserve"), (LIMITER, "learn")}
)
"""Calls for which the port names no error."""

READS = frozenset(
    {
        *("now", "due_resources", "server", "resource", "may_send", "owed_logins", "credentials_by_id", "standings"),
        *("check", "parity", "usage", "prove_refused", "list_logins", "find_logins", "clock"),
        *("resource_exists", "depth"),
    }
)
"""Calls that change nothing, so that there is no doubt about what they did."""


class Position(StrEnum):
    """When it happens."""

    BEFORE = "before"
    """Nothing of the call was done."""
    LOST = "lost"
    """All of it was done, and the worker never hears of it."""
    AFTER = "after"
    """The worker has heard, and is about to go on."""


class Kind(StrEnum):
    """What happens."""

    KILL = "kill"
    """SIGKILL of the process."""
    RESET = "reset"
    """Every connection of the process to that server is cut."""
    TIMEOUT = "timeout"
    """The call takes as long as a call may, and is given up."""
    ERROR = "error"
    """The other side answers with an error, as the port's contract sorts it."""


@dataclass(frozen=True, slots=True, order=True)
class Boundary:
    """One call across a port: which, what the worker had in hand, and the how manieth of its kind since it took that in hand.

    `gives` tells calls apart that look for work: those that found some, and those that found none.
    """

    port: str
    method: str
    where: str = NOTHING_IN_HAND
    nth: int = 1
    gives: str = ""

    def __str__(self) -> str:
        nth = f" #{self.nth}" if self.nth > 1 else ""
        gives = f" (gives {self.gives})" if self.gives else ""
        return f"{self.port}.{self.method}{nth}{gives}, {self.where}"

    @classmethod
    def read(cls, written: dict[str, Any]) -> Boundary:
        return cls(**written)

    def may_become(self, other: Boundary) -> bool:
        """Whether this call, before it is made, may turn out to be that one: what it will give is not known yet."""
        same = (self.port, self.method, self.nth) == (other.port, other.method, other.nth)
        return same and (self.where == other.where or other.gives == "none")


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What goes wrong, once: at which boundary, when, and what."""

    boundary: Boundary
    position: Position
    kind: Kind

    def __str__(self) -> str:
        return f"{self.kind} {self.position} {self.boundary}"

    def written(self) -> dict[str, Any]:
        """As it travels to the worker."""
        return asdict(self)

    @classmethod
    def read(cls, written: dict[str, Any]) -> Fault:
        return cls(Boundary.read(written["boundary"]), Position(written["position"]), Kind(written["kind"]))


def faults_at(boundary: Boundary) -> list[Fault]:
    """Everything that can go wrong there, each once.

    * A call that is only computed changes nothing outside, so that before, lost and after are one; it has no other side to wait for.
    * A call that changes nothing has no answer whose loss would matter: lost is as before.
    * Only over HTTP is an error said of what was done, by a gateway. Elsewhere an answer is lost with its connection, or waited for.
    * An error or a time-out after a call is one before the next call to the same port, which is a boundary of its own.
    """
    call = boundary.port, boundary.method
    return [
        Fault(boundary, position, kind)
        for kind in Kind
        for position in Position
        if not (kind is Kind.ERROR and call in NEVER_FAIL)
        and not (call in COMPUTED and (position is not Position.BEFORE or kind in (Kind.RESET, Kind.TIMEOUT)))
        and not (position is Position.LOST and (changes_nothing(boundary) or (kind is Kind.ERROR and boundary.port != SINK)))
        and not (position is Position.AFTER and kind in (Kind.ERROR, Kind.TIMEOUT))
    ]


def changes_nothing(boundary: Boundary) -> bool:
    """Whether the call leaves everything outside as it was."""
    return boundary.method in READS or (boundary.port, boundary.method) in COMPUTED or boundary.gives == "none"
