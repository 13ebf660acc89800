"""Frozen values: what a rotation is about. No I/O.

Times are aware UTC and end in `_at`; durations are `timedelta`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from rotation.states import AttemptState, InUse, PushBy, ResourceState, RotationState, Stage, Trigger

if TYPE_CHECKING:
    from rotation.sensitive import Sensitive

DOUBTED_FOR = timedelta(days=1)
"""For how long an attempt that was never answered is told of after it has expired: by as much a clock may be wrong."""

APPLICATION_NAME = "rollover"
"""How our own sessions introduce themselves to a database, so that use sampling can leave them out."""


def new_id(kind: str, at: datetime, randomness: bytes) -> str:
    """An id such as `rot_…`: milliseconds since 1970, so that ids sort by age and indexes stay dense, then the random bytes, in hex."""
    return f"{kind}_{int(at.timestamp() * 1000):012x}{randomness.hex()}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place where a resource's database is published: `""` is the server itself, others are named, e.g. `pooled`."""

    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Login:
    """A user name with its password. With the verifier, where that is known, an engine may log in quicker."""

    username: str
    password: Sensitive
    verifier: Sensitive | None = None


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
    """One database of a customer, with the revision of its spec that applies and the server that it names.

    `held_because` is why we paused it ourselves, nothing where a person did; `held_over_pause`: a person had paused it before.
    """

    id: str
    state: ResourceState
    revision: int
    spec: ResourceSpec
    server: Server
    schedule: Schedule = Schedule()
    held_because: str = ""
    held_over_pause: bool = False

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
    `alarm` is the name of what wants a person, until it moves on.
    `last_seen_at` is written by use sampling alone; `astray_at`, `mending_until` and `tried_at` by the healer alone: since when the login
    is not as its row says, until when somebody may be putting that right, and when it was last logged in with.
    `found_at` is set on a login that was found on a server without a row, after the store was set back: its password was never known.
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
    alarm: str | None = None
    last_seen_at: datetime | None = None
    astray_at: datetime | None = None
    mending_until: datetime | None = None
    tried_at: datetime | None = None
    found_at: datetime | None = None
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
    `tries` counts setbacks in the present state; `problem` is the last one, `advice` what a person should do about it, and `alarm` the
    name of what wants a person, where something does: of one that goes on until it moves on, of one that has ended for good.
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
    alarm: str | None = None
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
        return self.unanswered and now < self.expires_at

    @property
    def unanswered(self) -> bool:
        """Whether what became of it was never known, by whatever clock."""
        return self.state in (AttemptState.OPEN, AttemptState.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit trail: who did what to which resource, and why. `detail` holds plain values, never a secret."""

    kind: str
    actor: str
    why: str = ""
    detail: tuple[tuple[str, str | int | bool | None], ...] = ()


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
    """A login on a server; `credential_id` is that of our marker, None where it carries none.

    `prefix` and `generation` are what its name was made of, "" and 0 for a name that we did not make.
    """

    username: str
    credential_id: str | None
    can_log_in: bool
    prefix: str = ""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Sampled:
    """When the sessions of a server were last looked at, and since when that was done without a gap."""

    since: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """A resource, the highest generation ever recorded for it, and whether a rotation of it is open."""

    resource: Resource
    generations: int
    under_way: bool


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
    """The answer to a push. `note` is a short text without any part of a body; `retry_at` is the time that a 429 names, in UTC.

    `asked` is False where it never came to asking the other side, for want of a token, say: such a push says nothing about that side.
    """

    verdict: PushVerdict
    status: int | None = None
    note: str = ""
    retry_at: datetime | None = None
    asked: bool = True

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
