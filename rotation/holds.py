"""Holding a resource back: nothing of it begins, is offered or is retired until somebody lets it go on.

A person may *pause* it, and what was offered goes on then. We *hold* it where its rows are known to be the past: an offer among them may
be of a login that was retired since, so nothing is pushed either.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from rotation import generations
from rotation.cases import Move, Wait
from rotation.model import Event
from rotation.states import BEFORE_OFFER, ResourceState

if TYPE_CHECKING:
    from datetime import datetime

    from rotation.cases import ResourceCase
    from rotation.model import Resource
    from rotation.ports import Ports

ACTOR = "rollover"

HELD_LOOK = timedelta(minutes=15)


def held_back(case: ResourceCase, event: Event, *, because: str = "") -> Move:
    """The move that pauses a resource: by a person, or by ourselves with a reason. Only a pause lets go on what was offered.

    One that a person had paused is paused again when we hold it no more.
    """
    begun = case.open_rotation if case.open_rotation is not None and (because or case.open_rotation.state in BEFORE_OFFER) else None
    return Move(
        event=event,
        resource_state=ResourceState.PAUSED,
        held_because=because,
        held_over_pause=bool(because) and case.resource.state is ResourceState.PAUSED,
        rotation=begun or case.requested_rotation,  # written as it is: who works on it looks again before it is offered, or pushed
        credentials=generations.with_time_to_undo_stopped(case.credentials, case.now),
    )


def hold(resource_id: str, username: str, ports: Ports) -> bool:
    """Hold a resource of which its server shows a login that is newer than every row: the store was set back. False when it is held.

    Vercel may hold that login, and what our rows say may be long over. So nothing begins, nothing is retired, and nothing is made again.
    """

    def decide(case: ResourceCase) -> tuple[Move | None, bool]:
        if case.resource.state not in (ResourceState.ACTIVE, ResourceState.PAUSED) or case.resource.held_because:
            return None, False
        why = f"its server has the login {username}, which is newer than all that the store knows"
        return held_back(case, Event("resource_held", ACTOR, why), because=why), True

    return ports.store.amend(resource_id, decide)


def while_held(resource: Resource, now: datetime) -> Wait | None:
    """What a rotation does whose resource is held by us, in whatever state it is: wait for the person who brings the resource on."""
    if not resource.held_because:
        return None
    return Wait(
        until=now + HELD_LOOK,
        problem=f"the resource is held, as {resource.held_because}",
        advice="`rollover reconcile --after-restore`",
    )
