"""Mistakes that the program does not make, to see whether the crash points would find them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rotation import endings

if TYPE_CHECKING:
    from datetime import datetime

    from rotation.cases import Move, RotationCase
    from rotation.model import Attempt
    from rotation.ports import Ports


def gives_up(
    case: RotationCase, attempt: Attempt, now: datetime, ports: Ports, *, problem: str, alarm: str | None = None, **_: object
) -> Move:
    """In the place of `endings._again`: a push without an answer ends the rotation, and the new login is removed."""
    return endings.fail(case, ports, problem, alarm or "", attempt=attempt)
