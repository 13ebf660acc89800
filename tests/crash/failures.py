"""What a call that failed looks like to its caller, as the contract of each port says (`rotation/ports.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from rotation.errors import Fault as InputFault
from rotation.errors import Invalid, OutcomeUnknown, Refused, RolloverError, Unavailable
from rotation.model import PushOutcome, PushVerdict
from tests.crash.boundaries import BROKER, ENGINE, LIMITER, READS, SEALER, SINK, Kind, Position


@dataclass(frozen=True, slots=True)
class Gives:
    """The call does not raise: it answers this."""

    answer: object


def failure(  # noqa: PLR0911  # a table: one line for each port reads best
    port: str, method: str, position: Position, kind: Kind
) -> RolloverError | Gives | None:
    """How it fails. None: it cannot, its adapter makes do without the other side."""
    why = f"{kind} {position} {port}.{method}"
    match port:
        case _ if port == BROKER:
            return Gives(None if method == "depth" else 0)
        case _ if port == LIMITER or (port, method) == (SINK, "pause"):
            return None
        case _ if port == SEALER:
            return Refused(why)
        case _ if port == SINK:
            return _of_the_sink(method, position, kind, why)
        case _ if method == "may_send":
            return Gives(False)
        case _ if method in READS or (port != ENGINE and position is not Position.LOST):
            return Unavailable(why)
        case _ if position is not Position.LOST and kind is Kind.ERROR:
            return Refused(why)
        case _:
            return OutcomeUnknown(why)


def _of_the_sink(method: str, position: Position, kind: Kind, why: str) -> RolloverError | Gives:
    if method == "render":
        return Invalid([InputFault("secrets", why)])
    if method == "resource_exists":
        return Gives(None)
    if position is not Position.LOST and kind is Kind.RESET:
        return Gives(PushOutcome(PushVerdict.UNSENT, note=why))
    return Gives(PushOutcome(PushVerdict.UNKNOWN, 502 if kind is Kind.ERROR else None, why))
