"""The store on SQLAlchemy: the port `Store`, told in the order in which a rotation uses it.

Every write of a resource is one transaction that locks the resource's chain first, compares and sets, and ends with one line of the
audit trail; on PostgreSQL it is one statement (`swift`) where nobody else has moved the resource meanwhile. So is a claim. Nothing is
held over a call to anybody else.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from rotation.cases import Claim, Deadline, Move, RotationCase
from rotation.errors import OutcomeUnknown, Unavailable
from rotation.model import Event, Rotation
from rotation.ports import ALARM_STANDS, ALARM_TOLD_AGAIN
from rotation.store import due, evidence, mending
from rotation.store.alarms import end_alarm, raise_alarm
from rotation.store.attempts import may_send
from rotation.store.audit import AuditTrail
from rotation.store.cases import (
    claim_credential_case,
    claim_rotation_case,
    read_credential_case,
    read_resource_case,
    read_rotation_case,
)
from rotation.store.database import Database, make_engine
from rotation.store.evolving import fenced, next_credential_case, next_rotation_case, with_attempt
from rotation.store.fleet import Fleet
from rotation.store.moves import Writing, rests
from rotation.store.rules import INSTALLATION_PARKED, INSTALLATION_UNPARKED, STORE_ACTOR, subjects
from rotation.store.swift import SwiftMoves
from rotation.store.usage import see
from rotation.store.views import Views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import URL, Connection

    from rotation.cases import AttemptTerms, CredentialCase, ResourceCase, Wait
    from rotation.model import Attempt, Credential, Installation, Server, Session, Standing
    from rotation.ports import Answer, Clock, Terms
    from rotation.store.audit import AuditFault, Checkpoint
    from rotation.store.evidence import Period


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a decision came to: the row as it is now, the store's clock, the attempt that was opened, the end of the resource's chain.

    `anew` is the transaction that wrote it, to read the case anew in; None where the next case follows from the last one, because nobody
    else has moved the resource.
    """

    row: Rotation | Credential
    now: datetime
    opened: Attempt | None
    head: bytes
    anew: Connection | None = None


class SqlStore(Fleet):
    """The truth, on PostgreSQL or SQLite. Safe for any number of threads and processes; `dispose(close=False)` right after a fork."""

    def __init__(self, engine: Engine | URL | str, *, clock: Clock, terms: Terms, audit_key: bytes) -> None:
        database = Database(engine if isinstance(engine, Engine) else make_engine(engine), clock)
        super().__init__(database, AuditTrail(audit_key))
        self.clock = clock
        self.terms = terms
        self.views = Views(database)
        self._swift = SwiftMoves(database, self.audit, terms)

    def now(self) -> datetime:
        """As in the port."""
        return self.database.now()

    def dispose(self, *, close: bool = True) -> None:
        """Let go of all connections; after a fork without closing them, because they are the parent's."""
        self.database.dispose(close=close)

    def claim_rotation(self, rotation_id: str) -> RotationCase | None:
        """As in the port."""
        return claim_rotation_case(self.database, rotation_id, self.terms.claim, self._claims(rotation_id))

    def claim_credential(self, credential_id: str) -> CredentialCase | None:
        """As in the port."""
        return claim_credential_case(self.database, credential_id, self.terms.claim, self._claims(credential_id))

    def _claims(self, row_id: str) -> Callable[[int], Claim]:
        """What makes the claim of a fence that is asked for now."""
        started = self.clock.monotonic()
        return lambda fence: self._claim(row_id, fence, started)

    def _claim(self, row_id: str, fence: int, started: float) -> Claim:
        """The deadline counts from before the query, so that it is over before the store says so."""
        return Claim(row_id, fence, Deadline(started + self.terms.claim.total_seconds()))

    def record_rotation(self, case: RotationCase, decision: Move | Wait) -> RotationCase | None:
        """As in the port."""
        started = self.clock.monotonic()
        fresh = None
        with self._recording(case, case.rotation, decision) as recorded:
            after, claim, now = recorded.row, self._claim(case.rotation.id, case.claim.fence, started), recorded.now
            if not isinstance(after, Rotation) or rests(after, now):
                pass
            elif recorded.anew is not None:
                fresh = read_rotation_case(recorded.anew, self.clock, claim)
            elif isinstance(decision, Move):
                fresh = next_rotation_case(case, after, claim, now, decision, head=recorded.head, opened=recorded.opened)
        self._follow(case.resource.spec.installation_id, decision, case.installation)
        return fresh

    def record_credential(self, case: CredentialCase, decision: Move | Wait) -> CredentialCase | None:
        """As in the port."""
        started = self.clock.monotonic()
        fresh = None
        with self._recording(case, case.credential, decision) as recorded:
            after, claim, now = recorded.row, self._claim(case.credential.id, case.claim.fence, started), recorded.now
            if isinstance(after, Rotation) or rests(after, now):
                pass
            elif recorded.anew is not None:
                fresh = read_credential_case(recorded.anew, self.clock, claim)
            elif isinstance(decision, Move):
                fresh = next_credential_case(case, after, claim, now, decision, head=recorded.head)
        self._follow(case.resource.spec.installation_id, decision)
        return fresh

    @contextmanager
    def _recording(self, case: RotationCase | CredentialCase, row: Rotation | Credential, decision: Move | Wait) -> Iterator[Recorded]:
        """Write a decision, in one statement where that will do; else the transaction is committed when the block ends."""
        if isinstance(decision, Move):
            written = self._swift.write(case, fenced(row, case.claim.fence), decision, self._now_about(case))
            if written is not None:
                yield Recorded(written.row, written.now, written.opened, written.head)
                return
        with self.database.writing() as connection:
            end = self.audit.lock(self.database, connection, row.resource_id)
            held = fenced(row, case.claim.fence)
            alone = end.length == case.version
            until, revision = end.now + self.terms.claim, case.resource.revision
            writing = Writing(connection, row.resource_id, end.now, held, until, alone, revision, case.places)
            if isinstance(decision, Move):
                after = writing.move(decision) or held
                about = (row.id, None) if isinstance(row, Rotation) else (None, row.id)
                head = self.audit.append(connection, end, decision.event, *subjects(decision, *about))
            else:
                after, head, alone = writing.wait(decision), end.head, False
            yield Recorded(fenced(after, held.fence), end.now, writing.opened, head, None if alone else connection)

    def _now_about(self, case: RotationCase | CredentialCase) -> datetime:
        """The store's clock, without asking it: its reading when the case was read, and the time since. A little ahead, never behind."""
        read_at = case.claim.deadline.at - self.terms.claim.total_seconds()
        return case.now + timedelta(seconds=self.clock.monotonic() - read_at)

    def _follow(self, installation_id: str, decision: Move | Wait, seen: Installation | None = None) -> None:
        """What a decision means for the installation, in a transaction of its own: the installations have a chain of their own.

        `seen` is the installation as the case had it.
        """
        if isinstance(decision, Move):
            if decision.unparks:
                self.unpark(installation_id, Event(INSTALLATION_UNPARKED, STORE_ACTOR, "a push was taken again"))
        elif decision.parks is not None:
            self.park(installation_id, decision.parks, Event(INSTALLATION_PARKED, STORE_ACTOR, decision.parks), seen=seen)

    def open_attempt(self, case: RotationCase, terms: AttemptTerms) -> RotationCase:
        """As in the port."""
        started = self.clock.monotonic()
        with self.database.writing() as connection:
            end = self.audit.lock(self.database, connection, case.rotation.resource_id)
            held = fenced(case.rotation, case.claim.fence)
            opened = Writing(connection, held.resource_id, end.now, held, end.now + self.terms.claim).open_attempt(terms)
            claim = self._claim(held.id, held.fence, started)
            if end.length == case.version:
                return with_attempt(case, claim, end.now, opened)
            return read_rotation_case(connection, self.clock, claim)

    def may_send(self, claim: Claim, attempt: Attempt) -> bool:
        """As in the port."""
        try:
            return may_send(self.database, claim, attempt)
        except (Unavailable, OutcomeUnknown):
            return False

    def amend(
        self,
        resource_id: str,
        decide: Callable[[ResourceCase], tuple[Move | None, Answer]],
        *,
        key: str | None = None,
    ) -> Answer:
        """As in the port."""
        with self.database.writing() as connection:
            end = self.audit.lock(self.database, connection, resource_id)
            case = read_resource_case(connection, resource_id, key, end.now)
            move, answer = decide(case)
            if move is not None:
                writing = Writing(connection, resource_id, end.now)
                found = (case.open_rotation, case.requested_rotation, *case.credentials)
                writing.known = {one.id: one for one in found if one is not None}
                writing.move(move)
                self.audit.append(connection, end, move.event, *subjects(move, None, None))
        if move is not None:
            self._follow(case.resource.spec.installation_id, move)
        return answer

    def due_resources(self, limit: int) -> tuple[str, ...]:
        """As in the port."""
        return due.due_resources(self.database, limit)

    def due_rotations(self, limit: int, *, urgent: bool) -> tuple[str, ...]:
        """As in the port."""
        return due.due_rotations(self.database, limit, self.terms.hint, urgent=urgent)

    def due_credentials(self, limit: int) -> tuple[str, ...]:
        """As in the port."""
        return due.due_credentials(self.database, limit, self.terms.hint)

    def due_servers(self, limit: int) -> tuple[str, ...]:
        """As in the port."""
        return due.due_servers(self.database, limit, self.terms.usage_sample)

    def see(self, server: Server, sessions: Sequence[Session]) -> None:
        """As in the port."""
        see(self.database, server.name, sessions, self.terms.usage_gap)

    def raise_alarm(
        self, name: str, subject: str, problem: str, *, stands: timedelta = ALARM_STANDS, told_again: timedelta = ALARM_TOLD_AGAIN
    ) -> bool:
        """As in the port."""
        return raise_alarm(self.database, name, subject, problem, stands=stands, told_again=told_again)

    def end_alarm(self, name: str, subject: str) -> None:
        """As in the port."""
        end_alarm(self.database, name, subject)

    def due_looks(self, limit: int) -> tuple[str, ...]:
        """As in the port."""
        return due.due_looks(self.database, limit, self.terms.look)

    def owed_logins(self, server: str) -> tuple[Credential, ...]:
        """As in the port."""
        return mending.owed_logins(self.database, server)

    def credentials_by_id(self, ids: Sequence[str], *, server: str = "", usernames: Sequence[str] = ()) -> tuple[Credential, ...]:
        """As in the port."""
        return mending.credentials_by_id(self.database, ids, server, usernames)

    def standings(self, server: str, prefixes: Sequence[str] | None = None) -> tuple[Standing, ...]:
        """As in the port."""
        return mending.standings(self.database, server, prefixes)

    def note_look(self, server: str, *, orphans: int, again: timedelta | None = None) -> None:
        """As in the port."""
        mending.note_look(self.database, server, orphans, again)

    def note_tried(self, ids: Sequence[str]) -> None:
        """As in the port."""
        mending.note(self.database, mending.NOTE_TRIED, ids)

    def note_astray(self, ids: Sequence[str]) -> None:
        """As in the port."""
        mending.note(self.database, mending.NOTE_ASTRAY, ids)

    def hint_astray(self, ids: Sequence[str], limit: int) -> tuple[str, ...]:
        """As in the port."""
        return mending.hint(self.database, ids, limit, self.terms.hint)

    def begin_mending(self, credential_id: str) -> CredentialCase | None:
        """As in the port. Its deadline counts from before the query, so that it is over before the store says so."""
        until = Deadline(self.clock.monotonic() + self.terms.mending.total_seconds())
        return mending.begin_mending(
            self.database, self.audit, credential_id, self.terms.mending, lambda fence: Claim(credential_id, fence, until)
        )

    def leave_mending(self, credential: Credential) -> None:
        """As in the port."""
        mending.leave_mending(self.database, credential)

    def end_mending(self, credential_id: str, event: Event | None) -> bool:
        """As in the port."""
        return mending.end_mending(self.database, self.audit, credential_id, event)

    def checkpoint(self) -> Checkpoint | None:
        """Sign the heads of the audit chains that have grown. None when none has. To be called every minute, by any number of processes."""
        return self.audit.checkpoint(self.database)

    def verify_audit(self, seals: Mapping[int, bytes] | None = None) -> Iterator[AuditFault]:
        """Every place of the audit trail that is not as it was written. It reads the whole trail.

        `seals` are signatures of checkpoints, by number, that somebody has kept elsewhere.
        """
        return self.audit.verify(self.database, seals)

    def export_audit(self, period: Period, chain: str | None = None) -> Iterator[str]:
        """The evidence for a period, line by line, as `evidence.verify` takes it; of one chain alone or of all."""
        return evidence.export(self.audit, self.database, period, chain)
