"""Going past a rotation that cannot be worked on any more, and asking for the one that makes up for it.

For what a person declares about the past of a resource: that a key is gone (`losses`), that the store was set back (`restores`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rotation.requests import new_request, new_rotation
from rotation.states import BEFORE_OFFER, RotationState

if TYPE_CHECKING:
    from datetime import datetime

    from rotation.cases import ResourceCase
    from rotation.model import Request, Rotation
    from rotation.ports import Ports
    from rotation.requests import Asked


def gone_past(rotation: Rotation, now: datetime, why: str) -> Rotation:
    """The rotation as it ends: failed before the offer; after it Vercel may hold its login, so that it is superseded."""
    state = RotationState.FAILED if rotation.state in BEFORE_OFFER else RotationState.SUPERSEDED
    return replace(rotation, state=state, ended_at=now, due_at=None, tries=0, problem=why, advice="", alarm=None)


def replacement(case: ResourceCase, asked: Asked, due_at: datetime, ports: Ports) -> tuple[Rotation, Request]:
    """The rotation that is asked for already, which must mint a new login by now, or a new one; with one more request for it."""
    waiting = case.requested_rotation or new_rotation(case, ports, urgent=True)
    request = replace(new_request(case, asked, ports), rotation_id=waiting.id)
    return replace(waiting, urgent=True, credential_id=None, due_at=due_at, reserved_at=None), request
