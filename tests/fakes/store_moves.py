"""How the store in memory writes a move."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rotation.errors import Conflict, IllegalMove, LostClaim
from rotation.model import Attempt, Rotation
from rotation.states import AttemptState, ResourceState
from rotation.store.moves import LOOKED_AT, place_of
from rotation.store.rules import attempt_times, check_credential, check_offered, check_outcome, check_rotation, check_rows
from tests.fakes.store_memory import Memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rotation.cases import AttemptTerms, CredentialCase, Move, RotationCase
    from rotation.model import Credential
    from rotation.states import RotationState, Stage
    from tests.fakes.store_memory import Draft

    Places = Mapping[str, RotationState | Stage] | None
    """Where rows stood when a case was read; None when nobody has moved anything since."""


class Moves(Memory):
    """One move, checked as a whole before anything is written."""

    def _apply(
        self,
        draft: Draft,
        resource_id: str,
        move: Move,
        claimed: Rotation | Credential | None = None,
        read: RotationCase | CredentialCase | None = None,
    ) -> None:
        alone = read is not None and read.version == self._lengths[resource_id]
        places = None if alone else {} if read is None else read.places
        check_rows(move, resource_id)
        for rotation in (move.superseded, move.rotation):
            if rotation is not None:
                self._draft_rotation(draft, rotation, claimed, places)
        for value in move.credentials:
            self._draft_credential(draft, value, claimed, places)
        for new in (move.new_rotation, move.new_credential, *move.found):
            if new is not None and (new.id in self.rotations or new.id in self.credentials):
                raise Conflict(f"{new.id} exists already")
        if move.new_rotation is not None:
            draft.rotations[move.new_rotation.id] = replace(move.new_rotation, fence=0)
        for credential in (*move.found, *((move.new_credential,) if move.new_credential else ())):
            draft.credentials[credential.id] = replace(credential, fence=0, **dict.fromkeys(LOOKED_AT))
        draft.requests = {one.id: one for one in move.new_requests}
        self._answer(draft, resource_id, move.attempt)
        if move.opens_attempt is not None:
            self._open(draft, move, claimed, move.opens_attempt)
        if move.presumed is not None:
            self._draft_attempt(draft, move.presumed)
        self._draft_resource(draft, resource_id, move, read)

    def _draft_resource(self, draft: Draft, resource_id: str, move: Move, read: RotationCase | CredentialCase | None) -> None:
        resource = self.resources[resource_id]
        if (move.resource_state or move.schedule) is not None and resource.state is ResourceState.GONE:
            raise IllegalMove(f"resource {resource_id} is gone")
        if (move.resource_state or move.schedule) is not None and read is not None and read.resource.revision != resource.revision:
            raise LostClaim(f"resource {resource_id} was revised since it was read")
        draft.resource = replace(resource, schedule=move.schedule or resource.schedule)
        if move.resource_state is not None:
            draft.resource = replace(
                draft.resource, state=move.resource_state, held_because=move.held_because, held_over_pause=move.held_over_pause
            )

    def _draft_rotation(self, draft: Draft, value: Rotation, claimed: Rotation | Credential | None, places: Places) -> None:
        row = self.rotations.get(value.id)
        fence = self._next_fence(draft, row, value, claimed, places)
        if row is not None:
            check_rotation(row, value)
            draft.rotations[row.id] = replace(value, fence=fence, urgent=row.urgent or value.urgent)

    def _draft_credential(self, draft: Draft, value: Credential, claimed: Rotation | Credential | None, places: Places) -> None:
        row = self.credentials.get(value.id)
        fence = self._next_fence(draft, row, value, claimed, places)
        if row is not None:
            check_credential(row, value)
            draft.credentials[row.id] = replace(value, fence=fence, **{name: getattr(row, name) for name in LOOKED_AT})

    @staticmethod
    def _next_fence(
        draft: Draft,
        row: Rotation | Credential | None,
        value: Rotation | Credential,
        claimed: Rotation | Credential | None,
        places: Places,
    ) -> int:
        """The claimed row keeps its fence; any other must not have been moved since it was read, takes the next and loses its claim."""
        if row is not None and claimed is not None and row.id == claimed.id:
            return row.fence
        if row is None or (places is not None and (row.fence != value.fence or places.get(row.id, place_of(row)) is not place_of(row))):
            raise LostClaim(f"{value.id} has changed since it was read")
        draft.released.add(row.id)
        return row.fence + 1

    def _answer(self, draft: Draft, resource_id: str, outcome: Attempt | None) -> None:
        if outcome is None:
            return
        row = self.attempts.get(outcome.id)
        if row is None or row.resource_id != resource_id:
            raise IllegalMove(f"attempt {outcome.id} is not one of this resource")
        check_outcome(row, outcome)
        draft.attempts[row.id] = replace(
            row, state=outcome.state, answered_at=outcome.answered_at, status=outcome.status, note=outcome.note
        )

    def _open(self, draft: Draft, move: Move, claimed: Rotation | Credential | None, terms: AttemptTerms) -> None:
        rotation = draft.rotations.get(claimed.id, claimed) if isinstance(claimed, Rotation) else None
        if rotation is None:
            raise IllegalMove(f"{move.event.kind} opens an attempt, but no rotation is claimed")
        self._insert_attempt(draft, rotation, terms)

    def _insert_attempt(self, draft: Draft, rotation: Rotation, terms: AttemptTerms) -> None:
        credential_id = check_offered(rotation)
        now = self.now()
        send_before, expires_at = attempt_times(now, now + self.terms.claim, terms)
        attempt = Attempt(
            id=f"attempt-{next(self._numbers)}",
            resource_id=rotation.resource_id,
            rotation_id=rotation.id,
            credential_id=credential_id,
            number=0,
            state=AttemptState.OPEN,
            opened_at=now,
            send_before=send_before,
            expires_at=expires_at,
            clean=False,
            fence=rotation.fence,
        )
        self._draft_attempt(draft, attempt)
        draft.rotations[rotation.id] = replace(rotation, reserved_at=None)

    def _draft_attempt(self, draft: Draft, attempt: Attempt) -> None:
        """Its number, and whether it is clean, follow from those before."""
        known = {one.id: one for one in self._attempts(attempt.resource_id)} | draft.attempts
        draft.attempts[attempt.id] = replace(
            attempt,
            number=1 + max((one.number for one in known.values() if one.rotation_id == attempt.rotation_id), default=0),
            clean=not any(one.on_its_way(attempt.opened_at) for one in known.values() if one.credential_id != attempt.credential_id),
        )
