"""How soon things came to their end, by the store's own dates: rotations after the chaos, logins after their graces and after emergencies.

While everything goes wrong nobody promises when, so that is told and not judged. What is still to end when the chaos is over is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rotation.states import InUse, Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from rotation.model import Credential, Rotation


class Took(NamedTuple):
    """What ended, and after how many seconds. None: not by now."""

    name: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Ends:
    """Of old logins, how long after the instant from which nothing but us kept them: where that was in the chaos, and after it."""

    meanwhile: tuple[Took, ...]
    afterwards: tuple[Took, ...]


def ends_of_rotations(rotations: Iterable[Rotation], over: datetime) -> Iterator[Took]:
    """Those that were asked for while the chaos lasted and had not ended when it was over."""
    for one in rotations:
        if one.requested_at <= over and (one.ended_at is None or one.ended_at > over):
            yield Took(one.id, None if one.ended_at is None else (one.ended_at - over).total_seconds())


def ends_of_graces(credentials: Iterable[Credential], over: datetime) -> Ends:
    """Until each login was blocked. One whose time came in the chaos and that lived on counts from when the chaos was over."""
    meanwhile, afterwards = [], []
    for one in credentials:
        free = _free_from(one)
        if free is None:
            continue
        if one.blocked_at is not None and one.blocked_at <= over:
            meanwhile.append(Took(one.username, max((one.blocked_at - free).total_seconds(), 0.0)))
        else:
            took = None if one.blocked_at is None else max((one.blocked_at - max(free, over)).total_seconds(), 0.0)
            afterwards.append(Took(one.username, took))
    return Ends(tuple(meanwhile), tuple(afterwards))


def _free_from(credential: Credential) -> datetime | None:
    """When its grace was over and nobody used it any more; None while it has no end."""
    if credential.grace_ends_at is None or credential.stage is Stage.DISCARDED:
        return None
    if credential.in_use is InUse.PROCEED or credential.compromised or credential.last_seen_at is None:
        return credential.grace_ends_at
    return max(credential.grace_ends_at, credential.last_seen_at + credential.quiet)


def end_after_emergency(credentials: Iterable[Credential], asked_at: datetime) -> Iterator[Took]:
    """Until the login was blocked that was current when an emergency of its resource was asked for."""
    for one in credentials:
        began = one.recorded_at if one.adopted else one.current_at
        if began is None or began > asked_at or (one.previous_at is not None and one.previous_at <= asked_at):
            continue
        yield Took(one.username, None if one.blocked_at is None else (one.blocked_at - asked_at).total_seconds())


def longer_than(seconds: float, ends: Iterable[Took]) -> Iterator[str]:
    """What took longer, or has not ended."""
    for one in ends:
        if one.seconds is None:
            yield f"{one.name} has not ended"
        elif one.seconds > seconds:
            yield f"{one.name} took {one.seconds:.0f} s"


def seconds_of(ends: Iterable[Took]) -> Iterator[float]:
    """Of those that ended."""
    yield from (one.seconds for one in ends if one.seconds is not None)
