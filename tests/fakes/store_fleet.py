"""Installations, servers and resources of the store in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rotation.errors import Conflict, LostClaim
from rotation.model import Resource
from rotation.states import ResourceState
from rotation.store.rules import INSTALLATIONS, prefix_taken, prefixed
from tests.fakes.store_memory import Draft, Memory

if TYPE_CHECKING:
    from rotation.model import Credential, Event, Installation, ResourceSpec, Schedule, Server


class Fleet(Memory):
    """What a person registers."""

    def register(self, spec: ResourceSpec, resource_id: str, schedule: Schedule, current: Credential | None, event: Event) -> Resource:
        with self._lock:
            server = self.server(spec.database.server)
            self.installation(spec.installation_id)
            for other in self.resources.values():
                same = (other.spec.installation_id, other.spec.external_id) == (spec.installation_id, spec.external_id)
                if other.id == resource_id or (same and other.state is not ResourceState.GONE):
                    raise Conflict(f"the resource {other.name} exists already")
            self._check_prefix(spec, resource_id)
            if current is not None:
                self._check_login(current, server.name)
            resource = Resource(resource_id, ResourceState.ACTIVE, 1, spec, server, schedule)
            self.resources[resource_id] = resource
            self.revisions[resource_id, 1] = spec
            if current is not None:
                self._write(Draft(credentials={current.id: replace(current, fence=0, last_seen_at=None)}))
            self._append(resource_id, event, None, None if current is None else current.id)
            return resource

    def revise(
        self, resource_id: str, spec: ResourceSpec, schedule: Schedule, event: Event, *, instead_of: Schedule | None = None
    ) -> Resource:
        with self._lock:
            before = self.resource(resource_id)
            if (before.spec.installation_id, before.spec.external_id) != (spec.installation_id, spec.external_id):
                raise Conflict("a revision cannot give a resource another installation or id: register a new resource")
            if instead_of is not None and before.schedule != instead_of:
                raise LostClaim(f"resource {resource_id} has another schedule by now")
            server = self.server(spec.database.server)
            if prefixed(spec) != prefixed(before.spec):
                self._check_prefix(spec, resource_id)
            if server.name != before.server.name:
                for credential in self._alive_credentials(resource_id):
                    self._check_login(credential, server.name)
            after = replace(before, revision=before.revision + 1, spec=spec, server=server, schedule=schedule)
            self.resources[resource_id] = after
            self.revisions[resource_id, after.revision] = spec
            self._append(resource_id, event)
            return after

    def _check_prefix(self, spec: ResourceSpec, resource_id: str) -> None:
        for other in self.resources.values():
            if prefixed(other.spec) == prefixed(spec) and other.id != resource_id and other.state is not ResourceState.GONE:
                raise prefix_taken(spec, other.name)

    # The fleet

    def add_installation(self, installation: Installation, event: Event) -> None:
        with self._lock:
            if installation.id in self.installations:
                raise Conflict(f"the installation {installation.id} exists already")
            self.installations[installation.id] = installation
            self._append(INSTALLATIONS, event)

    def add_server(self, server: Server, event: Event) -> None:
        with self._lock:
            if server.name in self.servers:
                raise Conflict(f"the server {server.name} exists already")
            self.servers[server.name] = server
            self._append(INSTALLATIONS, event)

    def park(self, installation_id: str, why: str, event: Event, *, seen: Installation | None = None) -> bool:
        with self._lock:
            before = self.installation(installation_id)
            if before.parked or (seen is not None and seen.sealed_token != before.sealed_token):
                return False
            self.installations[installation_id] = replace(before, parked_at=self.now(), parked_reason=why)
            self._append(INSTALLATIONS, event)
            return True

    def unpark(self, installation_id: str, event: Event) -> bool:
        with self._lock:
            before = self.installation(installation_id)
            if before.parked:
                self.installations[installation_id] = replace(before, parked_at=None, parked_reason="")
                self._append(INSTALLATIONS, event)
            self._wake(installation_id)
            return before.parked

    def set_token(self, installation_id: str, sealed_token: bytes, event: Event) -> None:
        with self._lock:
            before = self.installation(installation_id)
            self.installations[installation_id] = replace(before, sealed_token=sealed_token, parked_at=None, parked_reason="")
            self._append(INSTALLATIONS, event)
            self._wake(installation_id)

    def _wake(self, installation_id: str) -> None:
        now = self.now()
        for row in [self.rotations[one] for one in self._unended]:
            of_it = self.resources[row.resource_id].spec.installation_id == installation_id
            if of_it:
                self.rotations[row.id] = replace(row, due_at=now, fence=row.fence + 1)
                self.holds.pop(row.id, None)
