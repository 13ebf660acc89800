"""What a store insists on, whatever database it runs on. Pure: values in, verdicts out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rotation.errors import Conflict, IllegalMove
from rotation.states import ALIVE_STAGES, ROTATION_MOVES, STAGE_MOVES, AttemptState, RotationState

if TYPE_CHECKING:
    from datetime import datetime

    from rotation.cases import AttemptTerms, Move
    from rotation.model import Attempt, Credential, ResourceSpec, Rotation

ENDED_STATES = frozenset(state for state, moves in ROTATION_MOVES.items() if not moves)
"""A rotation in one of these is history: it is never claimed or written again."""

INSTALLATIONS = "installations"
"""The name of the audit chain of everything that is not about one resource: installations, servers, keys."""

STORE_ACTOR = "rollover"
"""Who does what the store does by itself."""

INSTALLATION_PARKED = "installation_parked"
INSTALLATION_UNPARKED = "installation_unparked"


def check_rotation(before: Rotation, after: Rotation) -> None:
    """Raise `IllegalMove` unless a rotation may go from one to the other. Staying is legal until it has ended."""
    if before.resource_id != after.resource_id:
        raise IllegalMove(f"rotation {after.id} belongs to another resource")
    stays = before.state is after.state and before.state not in ENDED_STATES
    if not stays and after.state not in ROTATION_MOVES[before.state]:
        raise IllegalMove(f"rotation {after.id} cannot go from {before.state} to {after.state}")


def check_credential(before: Credential, after: Credential) -> None:
    """Raise `IllegalMove` unless a credential may go from one to the other. Staying is legal until it has ended."""
    if before.resource_id != after.resource_id:
        raise IllegalMove(f"credential {after.id} belongs to another resource")
    stays = before.stage is after.stage and before.stage in ALIVE_STAGES
    if not stays and after.stage not in STAGE_MOVES[before.stage]:
        raise IllegalMove(f"credential {after.id} cannot go from {before.stage} to {after.stage}")


def prefixed(spec: ResourceSpec) -> tuple[str, str]:
    """Where the names of a resource's logins must be nobody else's, and what they begin with."""
    return spec.database.server, spec.database.login_prefix


def prefix_taken(spec: ResourceSpec, other: str) -> Conflict:
    """The error for a prefix that another resource has."""
    server, prefix = prefixed(spec)
    return Conflict(f"database.login_prefix: on {server} the logins of {other} are named {prefix} already, so choose another")


def check_outcome(before: Attempt, after: Attempt) -> None:
    """Raise `IllegalMove` when an attempt that has its outcome would be given another one."""
    if before.state not in (AttemptState.OPEN, after.state):
        raise IllegalMove(f"attempt {after.id} is {before.state} and cannot become {after.state}")


def check_rows(move: Move, resource_id: str) -> None:
    """Raise `IllegalMove` when a move writes a row of another resource, or a request that belongs to no rotation."""
    single = (move.rotation, move.superseded, move.new_rotation, move.new_credential, move.attempt, move.presumed)
    for row in (*single, *move.credentials, *move.found, *move.new_requests):
        if row is not None and row.resource_id != resource_id:
            raise IllegalMove(f"{row.id} belongs to another resource")
    for request in move.new_requests:
        if request.rotation_id is None:
            raise IllegalMove(f"request {request.id} belongs to no rotation")


def check_offered(rotation: Rotation) -> str:
    """The credential whose values may be pushed. Raises `IllegalMove` unless the intent to push is on record."""
    if rotation.state is not RotationState.OFFERED or rotation.credential_id is None:
        raise IllegalMove(f"rotation {rotation.id} is {rotation.state}: nothing may be pushed for it")
    return rotation.credential_id


def attempt_times(now: datetime, claimed_until: datetime, terms: AttemptTerms) -> tuple[datetime, datetime]:
    """Until when an attempt may be sent, never beyond the claim, and until when it may be on its way."""
    send_before = min(now + terms.send_within, claimed_until)
    return send_before, send_before + terms.travels_for


def subjects(move: Move, rotation_id: str | None, credential_id: str | None) -> tuple[str | None, str | None]:
    """The rotation and the credential that an event is about, so that each can show its own history."""
    if rotation_id is None and move.rotation is not None:
        rotation_id = move.rotation.id
    if rotation_id is None and move.new_rotation is not None:
        rotation_id = move.new_rotation.id
    if rotation_id is None and move.new_requests:
        rotation_id = move.new_requests[0].rotation_id
    if credential_id is None and move.new_credential is not None:
        credential_id = move.new_credential.id
    if credential_id is None and move.rotation is not None:
        credential_id = move.rotation.credential_id
    if credential_id is None and len(move.credentials) == 1:
        credential_id = move.credentials[0].id
    return rotation_id, credential_id
