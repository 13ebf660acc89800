"""Holding a resource back: nothing of it begins, is offered or is retired until somebody lets it go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rotation import generations
from rotation.cases import Move
from rotation.model import Event
from rotation.states import BEFORE_OFFER, ResourceState

if TYPE_CHECKING:
    from rotation.cases import ResourceCase
    from rotation.ports import Ports

ACTOR = "rollover"


def held_back(case: ResourceCase, event: Event, *, because: str = "") -> Move:
    """The move that pauses a resource: by a person, or by ourselves with a reason. What was offered goes on."""
    begun = case.open_rotation if case.open_rotation is not None and case.open_rotation.state in BEFORE_OFFER else None
    return Move(
        event=event,
        resource_state=ResourceState.PAUSED,
        held_because=because,
        rotation=begun or case.requested_rotation,  # written as it is: who works on it looks again before it is offered
        credentials=generations.with_time_to_undo_stopped(case.credentials, case.now),
    )


def hold(resource_id: str, username: str, ports: Ports) -> bool:
    """Hold a resource of which its server shows a login that is newer than every row: the store was set back. False when it is held.

    Vercel may hold that login, and what our rows say may be long over. So nothing begins, nothing is retired, and nothing is made again.
    """

    def decide(case: ResourceCase) -> tuple[Move | None, bool]:
        if case.resource.state is not ResourceState.ACTIVE:
            return None, False
        why = f"its server has the login {username}, which is newer than all that the store knows"
        return held_back(case, Event("resource_held", ACTOR, why), because=why), True

    return ports.store.amend(resource_id, decide)
