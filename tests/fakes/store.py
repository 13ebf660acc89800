"""A store in memory, with the very same semantics as the real one: claims, fences, legal moves, unique rows, one event a move."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from rotation.cases import Claim, CredentialCase, Deadline, Move, ResourceCase, RotationCase
from rotation.errors import LostClaim
from rotation.model import DOUBTED_FOR, Event, Rotation, Sampled
from rotation.states import ALIVE_STAGES, AttemptState, ResourceState, RotationState
from rotation.store.rules import ENDED_STATES, INSTALLATION_PARKED, INSTALLATION_UNPARKED, STORE_ACTOR, subjects
from tests.fakes.store_alarms import Alarms
from tests.fakes.store_fleet import Fleet
from tests.fakes.store_mending import Mending
from tests.fakes.store_moves import Moves

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rotation.cases import AttemptTerms, Wait
    from rotation.model import Attempt, Credential, Installation, Server, Session
    from rotation.ports import Answer


class FakeStore(Moves, Fleet, Mending, Alarms):
    """The Store, in memory. Everything in it may be looked at; the clock is set by hand."""

    # Claims

    def claim_rotation(self, rotation_id: str) -> RotationCase | None:
        with self._lock:
            row = self.rotations.get(rotation_id)
            if row is None or row.state in ENDED_STATES or not self._may_be_claimed(row):
                return None
            self.rotations[row.id] = row = replace(row, fence=row.fence + 1)
            return self._rotation_case(row, self._hold(row.id, row.fence))

    def claim_credential(self, credential_id: str) -> CredentialCase | None:
        with self._lock:
            row = self.credentials.get(credential_id)
            if row is None or row.stage not in ALIVE_STAGES or not self._may_be_claimed(row):
                return None
            mending_until = None if row.mending_until is None else min(row.mending_until, self.now() + self.terms.claim)
            self.credentials[row.id] = row = replace(row, fence=row.fence + 1, mending_until=mending_until)
            return self._credential_case(row, self._hold(row.id, row.fence))

    def _may_be_claimed(self, row: Rotation | Credential) -> bool:
        now = self.now()
        return row.due_at is not None and row.due_at <= now and self.holds[row.id].free(now)

    def _hold(self, row_id: str, fence: int) -> Claim:
        self.holds[row_id].claimed_until = self.now() + self.terms.claim
        return Claim(row_id, fence, Deadline(self.clock.monotonic() + self.terms.claim.total_seconds()))

    def _rotation_case(self, row: Rotation, claim: Claim) -> RotationCase:
        now = self.now()
        present = self.resources[row.resource_id]
        behind = self._requested_rotation(row.resource_id)
        return RotationCase(
            claim=claim,
            now=now,
            rotation=row,
            resource=present
            if row.state is RotationState.REQUESTED
            else replace(present, spec=self.revisions[row.resource_id, row.revision]),
            installation=self.installations[present.spec.installation_id],
            requests=self._requests_for(row),
            attempts=tuple(
                one for one in self._attempts(row.resource_id) if one.rotation_id == row.id or one.on_its_way(now - DOUBTED_FOR)
            ),
            credentials=self._alive_credentials(row.resource_id),
            present_policy=present.spec.policy,
            follow_up=() if behind is None or behind.id == row.id else self._requests_for(behind),
            ahead=self._open_rotation(row.resource_id) if row.state is RotationState.REQUESTED else None,
            version=self._lengths[row.resource_id],
            generations=self._generations(row.resource_id),
        )

    def _credential_case(self, row: Credential, claim: Claim) -> CredentialCase:
        alive = self._alive_credentials(row.resource_id)
        resource = self.resources[row.resource_id]
        sampled = self.samples.get(resource.server.name)
        return CredentialCase(claim, self.now(), row, resource, alive, self._lengths[row.resource_id], sampled=sampled)

    # Records

    def record_rotation(self, case: RotationCase, decision: Move | Wait) -> RotationCase | None:
        with self._lock:
            row = self._still_held(case)
            if isinstance(decision, Move):
                with self._transaction() as draft:
                    self._apply(draft, row.resource_id, decision, claimed=row, read=case)
                    self._append(row.resource_id, decision.event, *subjects(decision, row.id, None))
            else:
                self._wait_rotation(row, decision)
            self._follow(row.resource_id, decision, case.installation)
            row = self.rotations[row.id]
            if self._rests(row, ended=row.state in ENDED_STATES):
                return None
            return self._rotation_case(row, self._hold(row.id, row.fence))

    def record_credential(self, case: CredentialCase, decision: Move | Wait) -> CredentialCase | None:
        with self._lock:
            row = self.credentials[case.credential.id]
            if row.fence != case.claim.fence or row.stage is not case.credential.stage:
                raise LostClaim(f"credential {row.id} is {row.stage}, and somebody else's by now")
            if isinstance(decision, Move):
                with self._transaction() as draft:
                    self._apply(draft, row.resource_id, decision, claimed=row, read=case)
                    self._append(row.resource_id, decision.event, *subjects(decision, None, row.id))
            else:
                self._wait_credential(row, decision)
            self._follow(row.resource_id, decision)
            row = self.credentials[row.id]
            if self._rests(row, ended=row.stage not in ALIVE_STAGES):
                return None
            return self._credential_case(row, self._hold(row.id, row.fence))

    def _still_held(self, case: RotationCase) -> Rotation:
        row = self.rotations[case.rotation.id]
        if row.fence != case.claim.fence or row.state is not case.rotation.state:
            raise LostClaim(f"rotation {row.id} is {row.state}, and somebody else's by now")
        return row

    def _rests(self, row: Rotation | Credential, *, ended: bool) -> bool:
        if not ended and row.due_at is not None and row.due_at <= self.now():
            return False
        self.holds.pop(row.id, None)
        return True

    def _wait_rotation(self, row: Rotation, wait: Wait) -> None:
        with self._transaction() as draft:
            draft.rotations[row.id] = replace(
                row,
                due_at=wait.until,
                problem=wait.problem,
                advice=wait.advice,
                alarm=wait.alarm,
                tries=row.tries + wait.setback,
                reserved_at=None if wait.returns_place else wait.reserved_at or row.reserved_at,
                missing_since=wait.missing_since or row.missing_since,
            )
            self._answer(draft, row.resource_id, wait.attempt)

    def _wait_credential(self, row: Credential, wait: Wait) -> None:
        with self._transaction() as draft:
            tries = row.tries + wait.setback
            draft.credentials[row.id] = replace(row, due_at=wait.until, problem=wait.problem, alarm=wait.alarm, tries=tries)
            self._answer(draft, row.resource_id, wait.attempt)

    def _follow(self, resource_id: str, decision: Move | Wait, seen: Installation | None = None) -> None:
        """What a decision means for the installation, in a transaction of its own."""
        installation_id = self.resources[resource_id].spec.installation_id
        if isinstance(decision, Move):
            if decision.unparks:
                self.unpark(installation_id, Event(INSTALLATION_UNPARKED, STORE_ACTOR, "a push was taken again"))
        elif decision.parks is not None:
            self.park(installation_id, decision.parks, Event(INSTALLATION_PARKED, STORE_ACTOR, decision.parks), seen=seen)

    # Attempts

    def open_attempt(self, case: RotationCase, terms: AttemptTerms) -> RotationCase:
        with self._lock:
            row = self._still_held(case)
            with self._transaction() as draft:
                self._insert_attempt(draft, row, terms)
            return self._rotation_case(self.rotations[row.id], self._hold(row.id, row.fence))

    def may_send(self, claim: Claim, attempt: Attempt) -> bool:
        with self._lock:
            row, sent = self.rotations.get(claim.row_id), self.attempts.get(attempt.id)
            if row is None or sent is None or row.fence != claim.fence or row.state is not RotationState.OFFERED:
                return False
            return sent.rotation_id == row.id and sent.state is AttemptState.OPEN and self.now() < sent.send_before

    # Requests

    def amend(
        self,
        resource_id: str,
        decide: Callable[[ResourceCase], tuple[Move | None, Answer]],
        *,
        key: str | None = None,
    ) -> Answer:
        with self._lock:
            move, answer = decide(self._resource_case(resource_id, key))
            if move is not None:
                with self._transaction() as draft:
                    self._apply(draft, resource_id, move)
                    self._append(resource_id, move.event, *subjects(move, None, None))
                self._follow(resource_id, move)
            return answer

    def _resource_case(self, resource_id: str, key: str | None) -> ResourceCase:
        keyed = self._keys.get((resource_id, key)) if key is not None else None
        return ResourceCase(
            now=self.now(),
            resource=self.resource(resource_id),
            open_rotation=self._open_rotation(resource_id),
            requested_rotation=self._requested_rotation(resource_id),
            credentials=self._alive_credentials(resource_id),
            keyed_request=None if keyed is None else self.requests[keyed],
            generations=self._generations(resource_id),
        )

    # What is due

    def due_resources(self, limit: int) -> tuple[str, ...]:
        with self._lock:
            now = self.now()
            due = [
                (one.schedule.next_rotation_at, one.id)
                for one in self.resources.values()
                if one.state is ResourceState.ACTIVE and one.schedule.next_rotation_at is not None and one.schedule.next_rotation_at <= now
            ]
            return tuple(resource_id for _, resource_id in sorted(due)[:limit])

    def due_rotations(self, limit: int, *, urgent: bool) -> tuple[str, ...]:
        with self._lock:
            rows = (self.rotations[one] for one in self._unended)
            return self._hint([row for row in rows if row.urgent is urgent and self._may_go_on(row)], limit)

    def due_credentials(self, limit: int) -> tuple[str, ...]:
        with self._lock:
            rows = (self.credentials[one] for one in self._alive)
            return self._hint([row for row in rows if row.unblock_until is not None or not self._is_paused(row)], limit)

    def _may_go_on(self, row: Rotation) -> bool:
        if row.state is RotationState.REQUESTED:
            ahead = self._open_rotation(row.resource_id)
            if ahead is not None and ahead.state is not RotationState.OFFERED:
                return False
        return row.state is RotationState.OFFERED or not self._is_paused(row)

    def _is_paused(self, row: Rotation | Credential) -> bool:
        return self.resources[row.resource_id].state is ResourceState.PAUSED

    def _hint(self, rows: Sequence[Rotation] | Sequence[Credential], limit: int) -> tuple[str, ...]:
        now = self.now()
        due = sorted(
            (row.due_at, row.id)
            for row in rows
            if row.due_at is not None and self._may_be_claimed(row) and not self.holds[row.id].hinted(now)
        )
        chosen = tuple(row_id for _, row_id in due[:limit])
        for row_id in chosen:
            self.holds[row_id].hinted_until = now + self.terms.hint
        return chosen

    def due_servers(self, limit: int) -> tuple[str, ...]:
        with self._lock:
            now = self.now()
            used = {one.spec.database.server for one in self.resources.values() if one.state is not ResourceState.GONE}
            names = sorted(name for name in used if not self.holds[name].hinted(now))[:limit]
            for name in names:
                self.holds[name].hinted_until = now + self.terms.usage_sample
            return tuple(names)

    def see(self, server: Server, sessions: Sequence[Session]) -> None:
        with self._lock:
            now = self.now()
            counts: dict[tuple[str, str, str], int] = defaultdict(int)
            by_name = {
                self.credentials[one].username: one
                for one in self._alive
                if self.resources[self.credentials[one].resource_id].spec.database.server == server.name
            }
            for session in sessions:
                if session.username in by_name:
                    counts[by_name[session.username], session.client, session.application] += session.count
            for (credential_id, client, application), count in counts.items():
                self.credentials[credential_id] = replace(self.credentials[credential_id], last_seen_at=now)
                self.sightings[credential_id, client, application] = (count, now)
            before = self.samples.get(server.name)
            unbroken = before is not None and before.at >= now - self.terms.usage_gap and before.since <= now
            self.samples[server.name] = Sampled(since=before.since if before is not None and unbroken else now, at=now)
