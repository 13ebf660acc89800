"""The next case from the last one and what was written since, without reading it again.

Every move of a resource adds one event to its chain, under the chain's lock. While the chain is as long as it was when a case was read,
nobody else has moved anything, so what was read and what we wrote is what the store holds. Five readings a rotation are saved.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from rotation.model import Credential, Rotation
from rotation.states import ALIVE_STAGES, RotationState
from rotation.store.moves import LOOKED_AT

if TYPE_CHECKING:
    from datetime import datetime

    from rotation.cases import Claim, CredentialCase, Move, RotationCase
    from rotation.model import Attempt, Resource


Row = TypeVar("Row", bound=Rotation | Credential)


def fenced(row: Row, fence: int) -> Row:
    """The row as it is under this fence."""
    return row if row.fence == fence else replace(row, fence=fence)


def next_rotation_case(
    case: RotationCase, row: Rotation, claim: Claim, now: datetime, move: Move, *, head: bytes, opened: Attempt | None
) -> RotationCase:
    """The case of a rotation after its own move; `row` is the rotation as it was written, `opened` the attempt that was inserted,
    `head` the new end of the resource's chain.
    """
    return replace(
        case,
        claim=claim,
        now=now,
        rotation=_rotation_after(case.rotation, row, opened),
        resource=_resource_after(case.resource, move),
        attempts=_attempts_after(case.attempts, move.attempt, opened),
        credentials=_credentials_after(case.credentials, move, None),
        ahead=case.ahead if row.state is RotationState.REQUESTED and move.superseded is None else None,
        generations=case.generations if move.new_credential is None else move.new_credential.generation,
        version=case.version + 1,
        head=head,
    )


def with_attempt(case: RotationCase, claim: Claim, now: datetime, opened: Attempt) -> RotationCase:
    """The case after an attempt was opened, which used up the place that was kept for it."""
    rotation = replace(case.rotation, reserved_at=None)
    return replace(case, claim=claim, now=now, rotation=rotation, attempts=(*case.attempts, opened))


def next_credential_case(case: CredentialCase, row: Credential, claim: Claim, now: datetime, move: Move, *, head: bytes) -> CredentialCase:
    """The case of a credential after its own move."""
    return replace(
        case,
        claim=claim,
        now=now,
        credential=row,
        resource=_resource_after(case.resource, move),
        credentials=_credentials_after(case.credentials, move, row),
        version=case.version + 1,
        head=head,
    )


def _rotation_after(before: Rotation, written: Rotation, opened: Attempt | None) -> Rotation:
    """Urgency only rises, and an attempt uses up the place that was kept for it."""
    if written.urgent >= before.urgent and not (opened and written.reserved_at):
        return written
    return replace(written, urgent=written.urgent or before.urgent, reserved_at=None if opened else written.reserved_at)


def _resource_after(resource: Resource, move: Move) -> Resource:
    if move.resource_state is None and move.schedule is None:
        return resource
    scheduled = replace(resource, schedule=move.schedule or resource.schedule)
    if move.resource_state is None:
        return scheduled
    return replace(scheduled, state=move.resource_state, held_because=move.held_because, held_over_pause=move.held_over_pause)


def _attempts_after(attempts: tuple[Attempt, ...], answered: Attempt | None, opened: Attempt | None) -> tuple[Attempt, ...]:
    known = tuple(answered if answered is not None and one.id == answered.id else one for one in attempts)
    return known if opened is None else (*known, opened)


def _credentials_after(credentials: tuple[Credential, ...], move: Move, held: Credential | None) -> tuple[Credential, ...]:
    """Rows that are not held took the next fence, as the store wrote them; what only looking tells, no move writes."""
    written = {one.id: one for one in move.credentials}
    after = [_written(one, written[one.id], held) if one.id in written else one for one in credentials]
    if move.new_credential is not None:
        after.append(move.new_credential)
    return tuple(one for one in after if one.stage in ALIVE_STAGES)


def _written(before: Credential, after: Credential, held: Credential | None) -> Credential:
    fence = before.fence if held is not None and before.id == held.id else before.fence + 1
    return replace(after, fence=fence, **{name: getattr(before, name) for name in LOOKED_AT})
