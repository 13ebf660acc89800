"""What a step may look at, and what it may decide: cases are read from the store in one go, decisions are written in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rotation.states import Alarm, ResourceState, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from rotation.model import Attempt, Credential, Event, Installation, Policy, Request, Resource, Rotation, Sampled, Schedule
    from rotation.states import RotationState


@dataclass(frozen=True, slots=True)
class Deadline:
    """The instant, on this worker's monotonic clock, by which a call must have ended."""

    at: float

    def left(self, monotonic: float) -> float:
        """Seconds that are left; zero or less when it is over."""
        return self.at - monotonic


@dataclass(frozen=True, slots=True)
class AttemptTerms:
    """For how long an attempt may be sent, and how long it may travel after that: the total deadline + the server's allowance."""

    send_within: timedelta
    travels_for: timedelta


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's time-limited hold on a row: only writes with this fence count, and only until the deadline."""

    row_id: str
    fence: int
    deadline: Deadline


@dataclass(frozen=True, slots=True)
class RotationCase:
    """All that a step of a rotation may look at, read from the store in one go, with the claim that it is worked under.

    `resource.spec` is the revision with which the rotation began (the newest, while it is only requested), `resource.revision` the
    number of the newest one.
    """

    claim: Claim
    now: datetime
    rotation: Rotation
    resource: Resource
    installation: Installation
    requests: tuple[Request, ...]
    attempts: tuple[Attempt, ...]
    """Every attempt of this rotation, and those of others that may still be on their way, by a clock that is wrong by a day at most."""
    credentials: tuple[Credential, ...]
    """Every credential of the resource whose login may exist."""
    present_policy: Policy
    """The policy of the resource's newest revision: the rotation itself keeps the revision with which it began (`resource.spec`)."""
    follow_up: tuple[Request, ...] = ()
    """The requests that wait behind this rotation."""
    ahead: Rotation | None = None
    """The open rotation of the resource, when this one is `requested` and waits behind it."""
    generations: int = 0
    """The highest generation ever recorded for the resource."""
    version: int = 0
    """How many events the resource had when this was read: as long as it has no more, nobody else has moved anything of it."""
    head: bytes = b""
    """What the last of these events was sealed with, for a store that writes the next one without reading it again."""

    @property
    def credential(self) -> Credential:
        """The rotation's own credential."""
        return next(one for one in self.credentials if one.id == self.rotation.credential_id)

    @property
    def pushes_again(self) -> bool:
        """Whether this rotation replaces nothing: it pushes the values of the current credential once more."""
        return self.rotation.credential_id is not None and self.current is not None and self.current.id == self.rotation.credential_id

    @property
    def current(self) -> Credential | None:
        """The credential that the store calls current; None before the first rotation of an empty resource."""
        return next((one for one in self.credentials if one.stage is Stage.CURRENT), None)

    @property
    def places(self) -> Mapping[str, RotationState | Stage]:
        """Where each other row stood that a move of this rotation may write."""
        ahead = {} if self.ahead is None else {self.ahead.id: self.ahead.state}
        return {one.id: one.stage for one in self.credentials} | ahead


@dataclass(frozen=True, slots=True)
class CredentialCase:
    """All that a step of a retirement may look at."""

    claim: Claim
    now: datetime
    credential: Credential
    resource: Resource
    credentials: tuple[Credential, ...]
    version: int = 0
    """As in `RotationCase`."""
    head: bytes = b""
    """As in `RotationCase`."""
    sampled: Sampled | None = None
    """How the use of its server was looked at; None when it never was."""

    @property
    def current(self) -> Credential | None:
        """The credential that the store calls current."""
        return next((one for one in self.credentials if one.stage is Stage.CURRENT), None)

    @property
    def places(self) -> Mapping[str, RotationState | Stage]:
        """As in `RotationCase`."""
        return {one.id: one.stage for one in self.credentials}


@dataclass(frozen=True, slots=True)
class ResourceCase:
    """All that a request may look at, read under the resource's lock."""

    now: datetime
    resource: Resource
    open_rotation: Rotation | None
    requested_rotation: Rotation | None
    credentials: tuple[Credential, ...]
    keyed_request: Request | None = None
    """An earlier request of this resource with the key that was asked about."""
    generations: int = 0
    """The highest generation ever recorded for the resource."""


@dataclass(frozen=True, slots=True)
class Move:
    """What to write, all in one transaction, with its one audit event. Values are written whole.

    Rows that are not the claimed one are compared on the fence with which they were read, and take the next: whoever works on them
    loses the claim and looks again.
    """

    event: Event
    rotation: Rotation | None = None
    superseded: Rotation | None = None
    """Another rotation of the resource, which this move ends."""
    new_rotation: Rotation | None = None
    credentials: tuple[Credential, ...] = ()
    new_credential: Credential | None = None
    new_requests: tuple[Request, ...] = ()
    attempt: Attempt | None = None
    opens_attempt: AttemptTerms | None = None
    schedule: Schedule | None = None
    resource_state: ResourceState | None = None
    held_because: str = ""
    """With `resource_state`: why we hold the resource back ourselves."""
    held_over_pause: bool = False
    """With `held_because`: a person had paused it before."""
    found: tuple[Credential, ...] = ()
    """Logins that were found on a server and get their rows now."""
    presumed: Attempt | None = None
    """A push that may be on its way though nothing of it is on record: it is written as one whose outcome is unknown."""
    unparks: bool = False
    """A push was taken again: the resource's installation is parked no more, right after this is recorded."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing moves: come back at `until` (None: when somebody changes something). What is known of the attempt is kept.

    A setback counts one try and keeps its `problem`; a plain wait has neither. The row keeps `alarm` until it is written next.
    `reserved_at` and `missing_since` are kept as they are when None.
    """

    until: datetime | None
    problem: str = ""
    advice: str = ""
    setback: bool = False
    alarm: Alarm | None = None
    attempt: Attempt | None = None
    reserved_at: datetime | None = None
    returns_place: bool = False
    """The place in the rate limit that was kept is not needed at its time: when the row comes back, it asks for another."""
    missing_since: datetime | None = None
    parks: str | None = None
    """Why the resource's installation is to be parked, right after this is recorded."""
