"""What each thread of a worker has in hand, so that a call across a port can be told from the same call elsewhere."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rotation import generations
from rotation.cases import CredentialCase, Move, RotationCase
from rotation.states import ResourceState, Stage
from tests.crash.boundaries import BROKER, NOTHING_IN_HAND, STORE, Boundary

if TYPE_CHECKING:
    from collections.abc import Sequence

CLAIMS = frozenset({"claim_rotation", "claim_credential"})
A_WAIT = " a wait"
LEADS_NOWHERE = (A_WAIT, " previous", " retired", " discarded")
"""What is recorded with nothing new to follow from it. Of two credentials that end side by side, either may be the first."""
RECORDS = frozenset({"record_rotation", "record_credential"})
MENDS = frozenset({"begin_mending", "end_mending"})
SWEEPS = frozenset({"due_rotations", "due_credentials", "due_servers", "due_resources"})
OF_NO_ROW = SWEEPS | {"amend", "server", "checkpoint", "begin_mending"}
"""Calls that are never made for a row that is in hand."""


@dataclass(slots=True)
class Hand:
    """What one thread has in hand, and how often it has made each call since it took it."""

    where: str | None = None
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)

    def take(self, where: str | None) -> None:
        self.where = where
        self.calls.clear()


class Hands:
    """Names every call. One for a process; each thread has its own hand."""

    def __init__(self) -> None:
        self._hands = threading.local()
        self._rested = "at first"

    def before(self, port: str, method: str, arguments: Sequence[object]) -> Boundary:
        """What a call is called before it is made."""
        hand = self._hand()
        call = method + _variant(method, arguments)
        if port == BROKER or (port == STORE and method in OF_NO_ROW):
            hand.take(None)
        if port == STORE and method in CLAIMS:
            hand.take(None)
            return Boundary(port, call, self._rested)
        if hand.where is None:
            return Boundary(port, call, self._rested if _is_for_rows(call) else NOTHING_IN_HAND)
        hand.calls[port, method] += 1
        return Boundary(port, call, hand.where, hand.calls[port, method])

    def after(self, boundary: Boundary, method: str, result: object) -> Boundary:
        """What it is called now that it is known what it gave; and what the thread has in hand from here on."""
        hand = self._hand()
        if method in CLAIMS | RECORDS:
            if result is None and method in RECORDS and not boundary.method.endswith(LEADS_NOWHERE):
                self._rested = f"after {boundary.method.partition(' ')[2]}"
            hand.take(_where(result))
        if method in MENDS:
            hand.take(_where(result))
        if method in SWEEPS:
            return replace(boundary, gives="rows") if result else replace(boundary, gives="none", where=NOTHING_IN_HAND)
        return boundary

    def _hand(self) -> Hand:
        hand = getattr(self._hands, "hand", None)
        if not isinstance(hand, Hand):
            hand = self._hands.hand = Hand()
        return hand


def _is_for_rows(call: str) -> bool:
    """Whether it is made for certain rows, though none is in hand yet, so that it matters how far these have come."""
    return call in SWEEPS - {"due_servers"} or call == "amend" or call.startswith("send advance")


def _variant(method: str, arguments: Sequence[object]) -> str:
    """Which of several calls of one name this is: which task is sent, what is recorded."""
    if method == "send":
        return " " + str(arguments[1]).removeprefix("rollover.")
    if method not in RECORDS:
        return ""
    decision = arguments[1]
    if not isinstance(decision, Move):
        return A_WAIT
    if decision.superseded is not None:
        return " superseded"
    if decision.rotation is not None:
        return f" {decision.rotation.state}"
    return f" {decision.credentials[0].stage}" if decision.credentials else ""


def _where(case: object) -> str | None:
    match case:
        case RotationCase():
            return f"rotation {case.rotation.state}{_circumstances(case)}"
        case CredentialCase():
            # The last login of a resource that leaves takes it along; up to there it ends like any other.
            is_last = case.credential.stage is Stage.BLOCKED and case.resource.state is ResourceState.LEAVING
            return f"credential {case.credential.stage}{', leaving' if is_last else ''}"
        case _:
            return None


def _circumstances(case: RotationCase) -> str:
    """What makes this rotation another story than the common one."""
    told = []
    if case.ahead is not None:
        told.append("behind another")
    if any(generations.clock_stopped(one) for one in case.credentials):
        told.append("gone past another")
    if case.pushes_again or (case.rotation.credential_id is not None and case.rotation.state == "requested"):
        told.append("pushing again")
    return "".join(f", {one}" for one in told)
