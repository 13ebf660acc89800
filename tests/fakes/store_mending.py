"""What the healer reads and writes in the store in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rotation.cases import Claim, CredentialCase, Deadline, ResourceCase
from rotation.generations import is_owed, may_be_mended
from rotation.model import Standing
from rotation.states import MADE_STATES, ResourceState
from tests.fakes.store_memory import Memory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from rotation.model import Credential, Event


class Mending(Memory):
    """Logins that are not as their rows say."""

    def due_looks(self, limit: int) -> tuple[str, ...]:
        with self._lock:
            now = self.now()
            used = {one.spec.database.server for one in self.resources.values()}
            names = sorted(name for name in used if (until := self.looks[name].looks_until) is None or until <= now)[:limit]
            for name in names:
                self.looks[name].looks_until = now + self.terms.look
            return tuple(names)

    def owed_logins(self, server: str) -> tuple[Credential, ...]:
        with self._lock:
            now = self.now()
            rows = (self.credentials[one] for one in sorted(self._alive))
            return tuple(row for row in rows if self._is_here(row, server) and is_owed(row, now, made=self._is_made(row)))

    def _is_here(self, row: Credential, server: str) -> bool:
        resource = self.resources[row.resource_id]
        return self._server_of(row) == server and not resource.held_because

    def _is_made(self, row: Credential) -> bool:
        rotation = self._open_rotation(row.resource_id)
        return rotation is not None and rotation.state in MADE_STATES and rotation.credential_id == row.id

    def credentials_by_id(self, ids: Sequence[str], *, server: str = "", usernames: Sequence[str] = ()) -> tuple[Credential, ...]:
        with self._lock:
            alive = (self.credentials[one] for one in self._alive) if usernames else ()
            named = {one.id for one in alive if one.username in usernames and self._server_of(one) == server}
            return tuple(self.credentials[one] for one in sorted({*ids, *named}) if one in self.credentials)

    def _server_of(self, row: Credential) -> str:
        return self.resources[row.resource_id].spec.database.server

    def standings(self, server: str, prefixes: Sequence[str] | None = None) -> tuple[Standing, ...]:
        with self._lock:
            here = (self.resources[one] for one in sorted(self.resources))
            return tuple(
                Standing(one, self._generations(one.id), self._open_rotation(one.id) is not None)
                for one in here
                if one.spec.database.server == server and one.state is not ResourceState.GONE
                if prefixes is None or one.spec.database.login_prefix in prefixes
            )

    def note_look(self, server: str, *, orphans: int, again: timedelta | None = None) -> None:
        with self._lock:
            looked = self.looks[server]
            looked.looked_at, looked.orphans = self.now(), orphans
            if again is not None:
                looked.looks_until = self.now() + again

    def note_tried(self, ids: Sequence[str]) -> None:
        with self._lock:
            for row in self.credentials_by_id(ids):
                self.credentials[row.id] = replace(row, tried_at=self.now())

    def note_astray(self, ids: Sequence[str]) -> None:
        with self._lock:
            for row in self.credentials_by_id(ids):
                self.credentials[row.id] = replace(row, astray_at=row.astray_at or self.now())

    def hint_astray(self, ids: Sequence[str], limit: int) -> tuple[str, ...]:
        with self._lock:
            now = self.now()
            chosen = tuple(one for one in ids if one in self.credentials and not self.holds[one].hinted(now))[:limit]
            for one in chosen:
                self.holds[one].hinted_until = now + self.terms.hint
            return chosen

    def begin_mending(self, credential_id: str) -> CredentialCase | None:
        with self._lock:
            now, row = self.now(), self.credentials.get(credential_id)
            if row is None or row.astray_at is None or not may_be_mended(row, self._mending_case(row)):
                return None
            until = now + self.terms.mending
            if not self.holds[row.id].free(now) or (row.mending_until is not None and now < row.mending_until <= until):
                return None
            self.credentials[row.id] = row = replace(row, mending_until=until)
            self.holds[row.id].hinted_until = None
            claim = Claim(row.id, row.fence, Deadline(self.clock.monotonic() + self.terms.mending.total_seconds()))
            alive = self._alive_credentials(row.resource_id)
            return CredentialCase(claim, now, row, self.resources[row.resource_id], alive, self._lengths[row.resource_id])

    def leave_mending(self, credential: Credential) -> None:
        with self._lock:
            row = self.credentials[credential.id]
            if row.mending_until == credential.mending_until:
                self.credentials[row.id] = replace(row, mending_until=None)

    def _mending_case(self, row: Credential) -> ResourceCase:
        resource_id = row.resource_id
        return ResourceCase(
            now=self.now(),
            resource=self.resource(resource_id),
            open_rotation=self._open_rotation(resource_id),
            requested_rotation=self._requested_rotation(resource_id),
            credentials=self._alive_credentials(resource_id),
        )

    def end_mending(self, credential_id: str, event: Event | None) -> bool:
        with self._lock:
            row = self.credentials.get(credential_id)
            if row is None or row.astray_at is None:
                return False
            self.credentials[row.id] = replace(row, astray_at=None)
            if event is not None:
                self._append(row.resource_id, event, None, row.id)
            return True
