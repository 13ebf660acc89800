"""What the store in memory holds, and how a transaction writes all of it or nothing."""

from __future__ import annotations

import itertools
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import TYPE_CHECKING

from rotation.errors import Conflict, NotFound
from rotation.ports import Terms
from rotation.states import ALIVE_STAGES, OPEN_STATES, RotationState, Stage
from rotation.store.rules import ENDED_STATES
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rotation.model import Attempt, Credential, Event, Installation, Request, Resource, ResourceSpec, Rotation, Sampled, Server
    from tests.fakes.store_alarms import StandingAlarm


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One line of the audit trail, with its place."""

    chain: str
    number: int
    at: datetime
    event: Event
    rotation_id: str | None = None
    credential_id: str | None = None


@dataclass(slots=True)
class Hold:
    """The columns of a claim."""

    claimed_until: datetime | None = None
    hinted_until: datetime | None = None

    def free(self, now: datetime) -> bool:
        return self.claimed_until is None or self.claimed_until <= now

    def hinted(self, now: datetime) -> bool:
        return self.hinted_until is not None and self.hinted_until > now


@dataclass(slots=True)
class Looked:
    """What a server's row says of its logins."""

    looks_until: datetime | None = None
    looked_at: datetime | None = None
    orphans: int | None = None


@dataclass(slots=True)
class Draft:
    """What a transaction is about to write: all of it, or nothing."""

    rotations: dict[str, Rotation] = field(default_factory=dict)
    credentials: dict[str, Credential] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    resource: Resource | None = None


class Memory:
    """The rows, with the lookups that an index would give. One lock makes every method a transaction of its own."""

    def __init__(self, clock: FakeClock | None = None, terms: Terms | None = None) -> None:
        self.clock = clock or FakeClock()
        self.terms = terms or Terms()
        self.installations: dict[str, Installation] = {}
        self.servers: dict[str, Server] = {}
        self.resources: dict[str, Resource] = {}
        self.revisions: dict[tuple[str, int], ResourceSpec] = {}
        self.credentials: dict[str, Credential] = {}
        self.rotations: dict[str, Rotation] = {}
        self.requests: dict[str, Request] = {}
        self.attempts: dict[str, Attempt] = {}
        self.events: list[RecordedEvent] = []
        self.sightings: dict[tuple[str, str, str], tuple[int, datetime]] = {}
        self.alarms: dict[tuple[str, str], StandingAlarm] = {}
        self.holds: dict[str, Hold] = defaultdict(Hold)
        self.samples: dict[str, Sampled] = {}
        self.looks: dict[str, Looked] = defaultdict(Looked)
        self._lengths: dict[str, int] = defaultdict(int)
        self._unended: dict[str, None] = {}
        self._alive: dict[str, None] = {}
        self._of_resource: dict[str, list[str]] = defaultdict(list)
        self._credentials_of: dict[str, list[str]] = defaultdict(list)
        self._requests_of: dict[str, list[str]] = defaultdict(list)
        self._attempts_of: dict[str, list[str]] = defaultdict(list)
        self._keys: dict[tuple[str, str], str] = {}
        self._numbers = itertools.count(1)
        self._lock = RLock()

    def now(self) -> datetime:
        return self.clock.now()

    def _requests_for(self, row: Rotation) -> tuple[Request, ...]:
        return tuple(self.requests[one] for one in self._requests_of[row.id])

    def _attempts(self, resource_id: str) -> tuple[Attempt, ...]:
        return tuple(self.attempts[one] for one in self._attempts_of[resource_id])

    def _alive_credentials(self, resource_id: str) -> tuple[Credential, ...]:
        every = (self.credentials[one] for one in self._credentials_of[resource_id])
        return tuple(one for one in every if one.stage in ALIVE_STAGES)

    def _generations(self, resource_id: str) -> int:
        return max((self.credentials[one].generation for one in self._credentials_of[resource_id]), default=0)

    def _requested_rotation(self, resource_id: str) -> Rotation | None:
        return next((one for one in self._unended_of(resource_id) if one.state is RotationState.REQUESTED), None)

    def _open_rotation(self, resource_id: str) -> Rotation | None:
        return next((one for one in self._unended_of(resource_id) if one.state in OPEN_STATES), None)

    def _unended_of(self, resource_id: str) -> Iterator[Rotation]:
        return (self.rotations[one] for one in self._of_resource[resource_id] if one in self._unended)

    def installation(self, installation_id: str) -> Installation:
        if installation_id not in self.installations:
            raise NotFound("installation", installation_id)
        return self.installations[installation_id]

    def server(self, name: str) -> Server:
        if name not in self.servers:
            raise NotFound("server", name)
        return self.servers[name]

    def resource(self, resource_id: str) -> Resource:
        if resource_id not in self.resources:
            raise NotFound("resource", resource_id)
        return self.resources[resource_id]

    @contextmanager
    def _transaction(self) -> Iterator[Draft]:
        draft = Draft()
        before = len(self.events)
        try:
            yield draft
            self._check_unique(draft)
        except BaseException:
            for line in self.events[before:]:
                self._lengths[line.chain] -= 1
            del self.events[before:]
            raise
        self._write(draft)

    def _check_unique(self, draft: Draft) -> None:
        changed: tuple[Rotation | Credential, ...] = (*draft.rotations.values(), *draft.credentials.values())
        for resource_id in {one.resource_id for one in changed}:
            unended = {one.id: one for one in self._unended_of(resource_id)} | draft.rotations
            states = [one.state for one in unended.values()]
            if sum(state in OPEN_STATES for state in states) > 1 or states.count(RotationState.REQUESTED) > 1:
                raise Conflict("the resource has an open rotation already")
            every = {one: self.credentials[one] for one in self._credentials_of[resource_id]} | draft.credentials
            if sum(one.stage is Stage.CURRENT for one in every.values()) > 1:
                raise Conflict("the resource has a current credential already")
            if len({one.generation for one in every.values()}) < len(every):
                raise Conflict("the resource has a credential of this generation already")
        for new in draft.credentials.values():
            if new.id not in self.credentials:
                self._check_login(new, self.resources[new.resource_id].spec.database.server)
        for request in draft.requests.values():
            if request.id in self.requests or (request.key is not None and (request.resource_id, request.key) in self._keys):
                raise Conflict("the resource has a request with this key already")

    def _check_login(self, new: Credential, server: str) -> None:
        for other in (self.credentials[one] for one in self._alive):
            if other.username == new.username and self.resources[other.resource_id].spec.database.server == server:
                raise Conflict(f"the login {new.username} on {server} belongs to another credential")

    def _write(self, draft: Draft) -> None:
        for rotation in draft.rotations.values():
            if rotation.id not in self.rotations:
                self._of_resource[rotation.resource_id].append(rotation.id)
            self.rotations[rotation.id] = rotation
            _keep(self._unended, rotation.id, there=rotation.state not in ENDED_STATES)
        for credential in draft.credentials.values():
            if credential.id not in self.credentials:
                self._credentials_of[credential.resource_id].append(credential.id)
            self.credentials[credential.id] = credential
            _keep(self._alive, credential.id, there=credential.stage in ALIVE_STAGES)
        for attempt in draft.attempts.values():
            if attempt.id not in self.attempts:
                self._attempts_of[attempt.resource_id].append(attempt.id)
            self.attempts[attempt.id] = attempt
        for row_id in draft.released:
            self.holds.pop(row_id, None)
        if draft.resource is not None:
            self.resources[draft.resource.id] = draft.resource
        self._write_requests(draft)

    def _write_requests(self, draft: Draft) -> None:
        for request in draft.requests.values():
            self.requests[request.id] = request
            self._requests_of[request.rotation_id or ""].append(request.id)
            if request.key is not None:
                self._keys[request.resource_id, request.key] = request.id

    def _append(self, chain: str, event: Event, rotation_id: str | None = None, credential_id: str | None = None) -> None:
        self._lengths[chain] += 1
        self.events.append(RecordedEvent(chain, self._lengths[chain], self.now(), event, rotation_id, credential_id))


def _keep(ids: dict[str, None], row_id: str, *, there: bool) -> None:
    if there:
        ids[row_id] = None
    else:
        ids.pop(row_id, None)
