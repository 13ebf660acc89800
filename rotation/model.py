"""Frozen values: what a rotation is about, its states, and which moves between them are legal. No I/O.

Times are aware UTC and end in `_at`; durations are `timedelta`.
"""

from __future__ import annotations

import copyreg
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Never

if TYPE_CHECKING:
    from collections.abc import Mapping

APPLICATION_NAME = "rollover"
"""How our own sessions introduce themselves to a database, so that use sampling can leave them out."""


class Sensitive:
    """Text that must not be readable by accident: a password, a token, a rendered secret, a verifier.

    It has no readable form, cannot be formatted, pickled, copied into JSON or hashed; `reveal` is the only way out, so a search for it
    finds every place that handles a secret.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Hand it to the other side at once; never keep, log or format it."""
        return self._text

    def __eq__(self, other: object) -> bool:
        """Equal when both hold the same text."""
        return isinstance(other, Sensitive) and self._text == other._text

    __hash__ = None  # type: ignore[assignment]  # a hashable secret ends up as a key that somebody prints

    def __len__(self) -> int:
        """How long the text is: all that a page may say about it."""
        return len(self._text)

    def __repr__(self) -> str:
        """Only that there is something."""
        return "Sensitive(…)"

    def __format__(self, spec: str) -> Never:
        """Refused: formatting is how secrets get into messages."""
        raise TypeError("a sensitive value cannot be formatted; reveal it where it is used")

    def __str__(self) -> Never:
        """Refused, as formatting is."""
        raise TypeError("a sensitive value cannot be turned into text; reveal it where it is used")

    def __reduce__(self) -> Never:
        """Refused: a pickled secret is a secret at rest."""
        raise TypeError("a sensitive value cannot be pickled or copied")

    def __getstate__(self) -> Never:
        """Refused, as pickling is."""
        raise TypeError("a sensitive value cannot be pickled or copied")


copyreg.pickle(Sensitive, Sensitive.__reduce__)


def new_id(kind: str, at: datetime, randomness: bytes) -> str:
    """An id such as `rot_…`: milliseconds since 1970, so that ids sort by age and indexes stay dense, then the random bytes, in hex."""
    return f"{kind}_{int(at.timestamp() * 1000):012x}{randomness.hex()}"


class Trigger(StrEnum):
    """Who asked for a rotation."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    VERCEL = "vercel"
    EMERGENCY = "emergency"


class RotationState(StrEnum):
    """How far a rotation has come; each name says what is already true."""

    REQUESTED = "requested"
    PLANNED = "planned"
    CREATED = "created"
    VERIFIED = "verified"
    OFFERED = "offered"
    COMPLETED = "completed"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    ABANDONED = "abandoned"


class Stage(StrEnum):
    """Where a credential stands."""

    PENDING = "pending"
    CURRENT = "current"
    PREVIOUS = "previous"
    BLOCKED = "blocked"
    RETIRED = "retired"
    DISCARDING = "discarding"
    DISCARDED = "discarded"
    RELEASED = "released"
    """Its resource left and a person kept the login: it works on, and we hold nothing of it any more."""


class ResourceState(StrEnum):
    """Whether a resource takes part: `paused` is held back by a person, `leaving` and `gone` are on their way out."""

    ACTIVE = "active"
    PAUSED = "paused"
    LEAVING = "leaving"
    GONE = "gone"


class InUse(StrEnum):
    """What to do at the end of grace when the old credential is still used."""

    WAIT = "wait"
    PROCEED = "proceed"


class PushBy(StrEnum):
    """Which of Vercel's two endpoints takes the secrets of a resource."""

    RESOURCE = "resource"
    PRODUCT = "product"


class AttemptState(StrEnum):
    """What is known of one push."""

    OPEN = "open"
    APPLIED = "applied"
    NOT_APPLIED = "not_applied"
    UNKNOWN = "unknown"


ROTATION_MOVES: Mapping[RotationState, frozenset[RotationState]] = {
    RotationState.REQUESTED: frozenset({RotationState.PLANNED, RotationState.FAILED, RotationState.ABANDONED}),
    RotationState.PLANNED: frozenset({RotationState.CREATED, RotationState.VERIFIED, RotationState.FAILED, RotationState.ABANDONED}),
    RotationState.CREATED: frozenset({RotationState.VERIFIED, RotationState.FAILED, RotationState.ABANDONED}),
    RotationState.VERIFIED: frozenset({RotationState.OFFERED, RotationState.FAILED, RotationState.ABANDONED}),
    RotationState.OFFERED: frozenset(
        {RotationState.COMPLETED, RotationState.FAILED, RotationState.SUPERSEDED, RotationState.ABANDONED},
    ),
    RotationState.COMPLETED: frozenset(),
    RotationState.FAILED: frozenset(),
    RotationState.SUPERSEDED: frozenset(),
    RotationState.ABANDONED: frozenset(),
}
"""The legal moves of a rotation. PLANNED to VERIFIED in one record is legal because both acts can be repeated before the offer."""

STAGE_MOVES: Mapping[Stage, frozenset[Stage]] = {
    Stage.PENDING: frozenset({Stage.CURRENT, Stage.PREVIOUS, Stage.DISCARDING, Stage.RELEASED}),
    Stage.CURRENT: frozenset({Stage.PREVIOUS, Stage.RELEASED}),
    Stage.PREVIOUS: frozenset({Stage.BLOCKED, Stage.RELEASED}),
    Stage.BLOCKED: frozenset({Stage.RETIRED, Stage.PREVIOUS}),
    Stage.RETIRED: frozenset(),
    Stage.DISCARDING: frozenset({Stage.DISCARDED}),
    Stage.DISCARDED: frozenset(),
    Stage.RELEASED: frozenset(),
}
"""The legal moves of a credential. BLOCKED to PREVIOUS is the undo; PENDING to PREVIOUS is a supersession."""

OPEN_STATES = frozenset({RotationState.PLANNED, RotationState.CREATED, RotationState.VERIFIED, RotationState.OFFERED})
"""At most one rotation of a resource is in one of these, by a partial unique index."""

BEFORE_OFFER = frozenset({RotationState.REQUESTED, RotationState.PLANNED, RotationState.CREATED, RotationState.VERIFIED})
"""States in which a new request can still join, and in which giving up is safe."""

ALIVE_STAGES = frozenset({Stage.PENDING, Stage.CURRENT, Stage.PREVIOUS, Stage.BLOCKED, Stage.DISCARDING})
"""Stages whose login may exist in the database."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The instant, on this worker's monotonic clock, by which a call must have ended."""

    at: float

    def left(self, monotonic: float) -> float:
        """Seconds that are left; zero or less when it is over."""
        return self.at - monotonic


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place where a resource's database is published: `""` is the server itself, others are named, e.g. `pooled`."""

    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Login:
    """A user name with its password."""

    username: str
    password: Sensitive


@dataclass(frozen=True, slots=True)
class Server:
    """A database server. The admin credential is named by a file or an environment variable, never held here."""

    name: str
    engine: str
    host: str
    port: int
    sslmode: str = "verify-full"
    sslrootcert: str | None = None
    admin_url_file: str | None = None
    admin_url_env: str | None = None
    connections: int = 8


@dataclass(frozen=True, slots=True)
class Installation:
    """A customer team's installation of the integration. Parked: its token is refused, nothing is pushed until that is mended."""

    id: str
    sealed_token: bytes | None = field(default=None, repr=False)
    parked_at: datetime | None = None
    parked_reason: str = ""

    @property
    def parked(self) -> bool:
        """Whether pushes for this installation are held."""
        return self.parked_at is not None


@dataclass(frozen=True, slots=True)
class SecretTemplate:
    """One environment variable: its bare name and the template of its value, with values for single environments."""

    name: str
    value: str
    prefix: str | None = None
    overrides: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RenderedSecret:
    """A secret as Vercel will hold it."""

    name: str
    value: Sensitive
    prefix: str | None = None
    overrides: tuple[tuple[str, Sensitive], ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """The hours of a day in which a rotation may begin, in the policy's time zone; `end` before `start` means over midnight."""

    start: time
    end: time


@dataclass(frozen=True, slots=True)
class Policy:
    """When a resource rotates and how long grace lasts. Neither `every` nor `cron`: only on demand."""

    every: timedelta | None = None
    cron: str | None = None
    timezone: str = "UTC"
    window: Window | None = None
    jitter: timedelta = timedelta(0)
    grace: timedelta = timedelta(hours=24)
    grace_vercel: timedelta = timedelta(hours=1)
    in_use: InUse = InUse.WAIT
    in_use_vercel: InUse = InUse.PROCEED
    in_use_cap: timedelta | None = None
    quiet: timedelta = timedelta(hours=6)
    blocked: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Database:
    """Where a resource lives on its server, and how its logins are made."""

    server: str
    name: str
    owner_role: str
    login_prefix: str
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class ResourceSpec:
    """What a person says about a resource: one revision of its file."""

    installation_id: str
    external_id: str
    product: str
    engine: str
    owns_all_secrets: bool
    database: Database
    secrets: tuple[SecretTemplate, ...]
    policy: Policy = Policy()
    push_by: PushBy = PushBy.RESOURCE
    notify: bool = True
    password_length: int = 32


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a resource is next due and why. No date while a rotation is under way: its end sets the next one."""

    next_rotation_at: datetime | None = None
    reason: str = ""
    failures: int = 0
    completed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """One database of a customer, with the revision of its spec that applies and the server that it names."""

    id: str
    state: ResourceState
    revision: int
    spec: ResourceSpec
    server: Server
    schedule: Schedule = Schedule()

    @property
    def name(self) -> str:
        """How people and logs call it: installation and the provider's own id."""
        return f"{self.spec.installation_id}/{self.spec.external_id}"


@dataclass(frozen=True, slots=True)
class Credential:
    """One generation of login of a resource.

    `grace_ends_at` is None while the clock is stopped (not yet previous, or superseded and waiting for the newest rotation).
    `unblock_until` is set when a person gave it a new end: until then a worker that was slower may still block it, so it is let in
    again at once and once more at that time.
    `last_seen_at` is written by use sampling alone.
    """

    id: str
    resource_id: str
    generation: int
    username: str
    stage: Stage
    sealed_password: bytes | None = field(repr=False)
    sealed_verifier: bytes | None = field(repr=False)
    recorded_at: datetime
    adopted: bool = False
    compromised: bool = False
    current_at: datetime | None = None
    previous_at: datetime | None = None
    grace_ends_at: datetime | None = None
    in_use: InUse = InUse.WAIT
    in_use_until: datetime | None = None
    quiet: timedelta = timedelta(0)
    blocked_for: timedelta = timedelta(0)
    unblock_until: datetime | None = None
    blocked_at: datetime | None = None
    ended_at: datetime | None = None
    due_at: datetime | None = None
    tries: int = 0
    problem: str = ""
    last_seen_at: datetime | None = None
    fence: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One trigger. `grace` is what was asked for explicitly; None leaves it to the policy."""

    id: str
    resource_id: str
    trigger: Trigger
    actor: str
    received_at: datetime
    reason: str = ""
    key: str | None = None
    grace: timedelta | None = None
    rotation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rotation:
    """One replacement of the current credential, and its record.

    One that has a credential while it is only requested replaces nothing: it pushes the current credential's values again.
    `tries` counts setbacks in the present state; `problem` is the last one, `advice` what a person should do about it.
    `reserved_at` is the place in Vercel's rate limit that is kept for it; `missing_since` when Vercel first said that the resource is gone.
    """

    id: str
    resource_id: str
    revision: int
    state: RotationState
    urgent: bool
    requested_at: datetime
    credential_id: str | None = None
    planned_at: datetime | None = None
    created_at: datetime | None = None
    verified_at: datetime | None = None
    offered_at: datetime | None = None
    ended_at: datetime | None = None
    due_at: datetime | None = None
    tries: int = 0
    problem: str = ""
    advice: str = ""
    reserved_at: datetime | None = None
    missing_since: datetime | None = None
    fence: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One push to Vercel; the row is never deleted.

    It counts as on its way while `state` is open or unknown and the store's clock is before `expires_at`. `clean` says that nothing of
    another value was on its way when it was sent.
    """

    id: str
    resource_id: str
    rotation_id: str
    credential_id: str
    number: int
    state: AttemptState
    opened_at: datetime
    send_before: datetime
    expires_at: datetime
    clean: bool
    fence: int
    answered_at: datetime | None = None
    status: int | None = None
    note: str = ""

    def on_its_way(self, now: datetime) -> bool:
        """Whether Vercel may still apply it after `now`."""
        return self.state in (AttemptState.OPEN, AttemptState.UNKNOWN) and now < self.expires_at


@dataclass(frozen=True, slots=True)
class AttemptTerms:
    """For how long an attempt may be sent, and how long it may travel after that: the total deadline + the server's allowance."""

    send_within: timedelta
    travels_for: timedelta


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit trail: who did what to which resource, and why. `detail` holds plain values, never a secret."""

    kind: str
    actor: str
    why: str = ""
    detail: tuple[tuple[str, str | int | bool | None], ...] = ()


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
    """Every attempt of this rotation, and those of others that may still be on their way."""
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

    @property
    def current(self) -> Credential | None:
        """The credential that the store calls current."""
        return next((one for one in self.credentials if one.stage is Stage.CURRENT), None)


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


@dataclass(frozen=True, slots=True)
class Minted:
    """A new login that exists nowhere yet; the database is given the verifier, never the password."""

    username: str
    password: Sensitive
    verifier: Sensitive


@dataclass(frozen=True, slots=True)
class Session:
    """One group of open sessions of a login on a server: who uses it, from where, how many, since when the oldest is open."""

    username: str
    client: str
    application: str
    state: str
    count: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True)
class KnownLogin:
    """A login on a server that carries our marker."""

    username: str
    credential_id: str
    can_log_in: bool


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a kind of database can do. `most_generations` is None where any number of logins may live at once."""

    most_generations: int | None
    can_block: bool
    sees_which_secret: bool


@dataclass(frozen=True, slots=True)
class SealContext:
    """What a ciphertext is bound to: moved to another row, tenant or purpose it does not open."""

    installation_id: str
    resource_id: str
    credential_id: str
    purpose: str


class PushVerdict(StrEnum):
    """What a push came to, sorted by what may be done next."""

    APPLIED = "applied"
    UNKNOWN = "unknown"
    UNSENT = "unsent"
    """Not one byte left the house: our own check stopped it, or nobody could be reached."""
    LIMITED = "limited"
    """429: wait until the time that the answer names."""
    UNAUTHORIZED = "unauthorized"
    """401 or 403, also with a fresh token."""
    MISSING = "missing"
    """404 or 410: perhaps the resource is gone."""
    CONFLICT = "conflict"
    """409."""
    REFUSED = "refused"
    """400, 413, 422: the same values will be refused again."""


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """The answer to a push. `note` is a short text without any part of a body; `retry_at` is the time that a 429 names, in UTC."""

    verdict: PushVerdict
    status: int | None = None
    note: str = ""
    retry_at: datetime | None = None

    @property
    def attempt_state(self) -> AttemptState:
        """How the attempt's row records it: applied, unknown, or definitely not applied."""
        match self.verdict:
            case PushVerdict.APPLIED:
                return AttemptState.APPLIED
            case PushVerdict.UNKNOWN:
                return AttemptState.UNKNOWN
            case _:
                return AttemptState.NOT_APPLIED


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
    unparks: bool = False
    """A push was taken again: the resource's installation is parked no more, right after this is recorded."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing moves: come back at `until` (None: when somebody changes something). What is known of the attempt is kept.

    A setback counts one try and keeps its `problem`; a plain wait has neither. `reserved_at` and `missing_since` are kept as they are
    when None.
    """

    until: datetime | None
    problem: str = ""
    advice: str = ""
    setback: bool = False
    alarm: str | None = None
    attempt: Attempt | None = None
    reserved_at: datetime | None = None
    missing_since: datetime | None = None
    parks: str | None = None
    """Why the resource's installation is to be parked, right after this is recorded."""
