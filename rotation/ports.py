"""What a rotation needs from the world, as Protocols, each contract in words. Adapters are in `engines`, `vercel`, `store` and `worker`.

Every adapter sorts its own errors into the classes of `rotation.errors`. Every call that crosses a network ends by its deadline.
All adapters are used by several threads at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from rotation.cases import AttemptTerms, Claim, CredentialCase, Deadline, Move, ResourceCase, RotationCase, Wait
    from rotation.errors import Fault
    from rotation.model import (
        Attempt,
        Capabilities,
        Credential,
        Event,
        Installation,
        KnownLogin,
        Login,
        Minted,
        PushOutcome,
        RenderedSecret,
        Resource,
        ResourceSpec,
        Schedule,
        SealContext,
        Server,
        Session,
        Standing,
    )
    from rotation.sensitive import Sensitive

Answer = TypeVar("Answer")

ALARM_STANDS = timedelta(minutes=5)
"""How long an alarm of what has no row of its own stands after it was raised last."""
ALARM_TOLD_AGAIN = timedelta(minutes=30)
"""How often one that stands is told again, by whoever raises it then."""


class Clock(Protocol):
    """This machine's clocks."""

    def now(self) -> datetime:
        """The wall clock, aware UTC. It may jump: only compared with the store's clock, never trusted alone."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back, for deadlines."""
        ...


class Entropy(Protocol):
    """Randomness: the operating system's, or a seed's in simulation."""

    def bytes(self, count: int) -> bytes:
        """`count` random bytes, fit for a password."""
        ...


class Sealer(Protocol):
    """Encrypts what is at rest, and marks what is ours."""

    def seal(self, secret: Sensitive, context: SealContext) -> bytes:
        """A ciphertext that opens only with the same context; each call makes another one."""
        ...

    def open(self, sealed: bytes, context: SealContext) -> Sensitive:
        """The text that was sealed. Raises `KeyMissing` when its key is not here, `Refused` when it was altered or moved."""
        ...

    def key_of(self, sealed: bytes) -> str:
        """The id of the key that sealed it, whether that key is here or not. Raises `Refused` for what is no sealed value."""
        ...

    def mark(self, credential_id: str) -> str:
        """The marker of a login: the credential's id with a keyed hash. The same id gives the same marker under the same key."""
        ...

    def recognise(self, marker: str) -> str | None:
        """The credential's id of a marker that one of our keys made; None for any other text."""
        ...


class Engine(Protocol):
    """One kind of database. Acts are on credentials and declarative: each may be done twice, and is then a no-op.

    Each act that changes the database runs in a transaction that first compares the server's clock with `deadline` and, when it is
    late, changes nothing and raises `LostClaim`. `keep` are the other user names of the resource that must go on logging in.
    All acts raise `Refused`, `Unavailable` or `OutcomeUnknown`.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this kind of database can do."""
        ...

    def mint(self, resource: Resource, generation: int, entropy: Entropy) -> Minted:
        """A new login for the resource, made of `entropy` alone: nothing outside changes, no connection is needed."""
        ...

    def preflight(self, resource: Resource, deadline: Deadline) -> tuple[Fault, ...]:
        """Everything that would stop a rotation of this resource, each fault with the SQL that mends it. Empty: ready."""
        ...

    def adopt(self, resource: Resource, username: str, deadline: Deadline, *, dry_run: bool) -> tuple[str, ...]:
        """Prepare the login that is in use now, so that later generations can share its objects. Gives the statements, in order.

        With `dry_run` nothing changes. Repeating it is harmless.
        """
        ...

    def rehearse(self, resource: Resource, username: str, like: str | None, deadline: Deadline) -> tuple[str, ...]:
        """What a rotation would send to the database, in order: `admit` for `username`, then `block` and `withdraw` for `like`.

        It reads and changes nothing. The verifier and the marker are left out of the text. Raises `Refused` when `like` does not exist.
        """
        ...

    def admit(
        self, resource: Resource, credential: Credential, verifier: Sensitive, like: str | None, deadline: Deadline
    ) -> tuple[Fault, ...]:
        """Afterwards the login exists, can log in with the password behind `verifier`, and has the rights and settings of `like`.

        `like` is the user name of the current credential, None for the first. Gives what `parity` would say now, and nothing for the
        first; `Unavailable` while that one is gone itself. A login of that name without our marker for this credential is a name
        clash, `Refused`, unless it was adopted: then it may carry none, or that of an earlier credential.
        """
        ...

    def check(self, resource: Resource, login: Login, secrets: Sequence[RenderedSecret], deadline: Deadline) -> None:
        """Log in with every secret that is a URL (parsed strictly) and on every endpoint of the resource.

        Raises `Refused` when a URL does not say what it must or a login is refused, `Unavailable` when an endpoint cannot be reached.
        """
        ...

    def parity(self, resource: Resource, username: str, like: str, deadline: Deadline) -> tuple[Fault, ...]:
        """What the login may do less, more or otherwise than `like`. Empty: the same."""
        ...

    def block(self, resource: Resource, credential: Credential, deadline: Deadline) -> None:
        """Afterwards no new login succeeds; open sessions go on. A login that is absent counts as blocked.

        One of that name that does not carry this credential's marker (unless it was adopted) is left alone: `Refused`.
        """
        ...

    def unblock(self, resource: Resource, credential: Credential, deadline: Deadline) -> None:
        """Undo `block`. Raises `Refused` when the login is absent, or not this credential's."""
        ...

    def withdraw(self, resource: Resource, credential: Credential, keep: Sequence[str], deadline: Deadline) -> None:
        """Afterwards the login is absent and none of its sessions is left; what it owned belongs to the resource's owner.

        Absent already: a no-op. A login of that name that does not carry this credential's marker (unless it was adopted) is left
        alone: `Refused`.
        """
        ...

    def prove_refused(self, resource: Resource, login: Login, control: Login | None, deadline: Deadline) -> None:
        """Returns only when the right server refused the login, on every endpoint, and neither the login nor a session of it is left.

        `control` is a login that must succeed in the same probe. Raises `Refused` when the old login still gets in, `Unavailable` when
        nothing could be proved: "could not connect" proves nothing.
        """
        ...

    def usage(self, server: Server, deadline: Deadline) -> tuple[Session, ...]:
        """Who is logged in on the server now, our own sessions left out."""
        ...

    def list_logins(self, server: Server, deadline: Deadline) -> tuple[KnownLogin, ...]:
        """Every login on the server that carries a marker of ours."""
        ...

    def find_logins(self, server: Server, usernames: Sequence[str], deadline: Deadline) -> tuple[KnownLogin, ...]:
        """Those of these logins that the server has, with a marker or without."""
        ...

    def verifier(self, password: Sensitive, entropy: Entropy) -> Sensitive:
        """What this database keeps of the password, for a login that was not minted here. No connection is needed."""
        ...

    def clock(self, server: Server, deadline: Deadline) -> datetime:
        """The server's own clock, aware UTC."""
        ...


class SecretsSink(Protocol):
    """Where a resource's secrets are held for its customer: Vercel."""

    def render(self, resource: Resource, login: Login) -> tuple[RenderedSecret, ...]:
        """The resource's secrets for this login, made from its templates. Raises `Invalid` for a template that cannot be rendered."""
        ...

    def pause(self, installation: Installation, *, emergency: bool) -> timedelta | None:
        """For how long not to push for the installation, since the other side has not answered lately. None: push now.

        To be asked before an attempt is opened. An emergency is held back for less long.
        """
        ...

    def push(
        self,
        resource: Resource,
        installation: Installation,
        secrets: Sequence[RenderedSecret],
        may_send: Callable[[], bool],
        deadline: Deadline,
    ) -> PushOutcome:
        """Send all secrets in one request. Never raises for what the other side or the network does.

        `may_send` is asked once the connection stands, right before the request's first byte; False means that nothing is sent.
        Pushing the same values again is harmless.
        """
        ...

    def resource_exists(self, resource: Resource, installation: Installation, deadline: Deadline) -> bool | None:
        """Whether Vercel knows the resource; None when it gave no definite answer."""
        ...


class Limiter(Protocol):
    """Vercel's rate limit, shared by all workers."""

    def reserve(self, scope: str, *, urgent: bool) -> datetime | None:
        """Take the next free place. None: now. A time: the place is kept until then, come back; do not reserve again."""
        ...

    def learn(self, scope: str, *, blocked_until: datetime) -> None:
        """The other side said that nothing more is taken before `blocked_until`."""
        ...


class Store(Protocol):
    """The truth. Every write is one transaction, fenced, with its audit event. Raises `Unavailable` when the database does not answer."""

    def now(self) -> datetime:
        """The store's clock, aware UTC."""
        ...

    def claim_rotation(self, rotation_id: str) -> RotationCase | None:
        """Hold the rotation for `Terms.claim` under the next fence. None when it is not due, has ended, or is held by another."""
        ...

    def claim_credential(self, credential_id: str) -> CredentialCase | None:
        """Hold the credential for its retirement or discarding. None as above."""
        ...

    def record_rotation(self, case: RotationCase, decision: Move | Wait) -> RotationCase | None:
        """Write the decision if the claim still holds, and renew the claim. None when the rotation is now at rest (the claim is freed).

        Raises `LostClaim` when the fence or the state is not the one of the case, or another row of the move has changed since it was read.
        """
        ...

    def record_credential(self, case: CredentialCase, decision: Move | Wait) -> CredentialCase | None:
        """The same for a credential."""
        ...

    def open_attempt(self, case: RotationCase, terms: AttemptTerms) -> RotationCase:
        """Insert an attempt row for the rotation's credential, with all its times and `clean` by the store's clock. Fenced.

        The attempt uses up the place in the rate limit that was kept on the rotation (`reserved_at` is None afterwards).
        """
        ...

    def may_send(self, claim: Claim, attempt: Attempt) -> bool:
        """Whether the claim still holds and the store's clock is before the attempt's `send_before`: one query. False on any doubt."""
        ...

    def amend(
        self,
        resource_id: str,
        decide: Callable[[ResourceCase], tuple[Move | None, Answer]],
        *,
        key: str | None = None,
    ) -> Answer:
        """Read the resource under its lock, let `decide` say what to write, write it in the same transaction, give back its second value.

        `key` also looks up an earlier request of this resource with that key. Raises `NotFound`, and whatever `decide` raises, in which
        case nothing was written.
        """
        ...

    def register(self, spec: ResourceSpec, resource_id: str, schedule: Schedule, current: Credential | None, event: Event) -> Resource:
        """Insert a resource, its first revision and, if it has one, its current credential. Raises `Conflict` when it exists already,
        when its login or its login prefix belongs to another resource, `NotFound` for an unknown installation or server.
        """
        ...

    def revise(
        self, resource_id: str, spec: ResourceSpec, schedule: Schedule, event: Event, *, instead_of: Schedule | None = None
    ) -> Resource:
        """A new revision of the spec. Rotations that are under way keep the revision with which they began.

        Raises `LostClaim`, and writes nothing, when the resource has another schedule by now than `instead_of`; `Conflict` when its new
        login prefix belongs to another resource.
        """
        ...

    def due_resources(self, limit: int) -> tuple[str, ...]:
        """Active resources whose date has come, the longest overdue first."""
        ...

    def due_rotations(self, limit: int, *, urgent: bool) -> tuple[str, ...]:
        """Rotations that may move now and that nobody holds; each is marked as sent for `Terms.hint`, so that it is not given again."""
        ...

    def due_credentials(self, limit: int) -> tuple[str, ...]:
        """The same for credentials."""
        ...

    def server(self, name: str) -> Server:
        """The server of that name. Raises `NotFound`."""
        ...

    def due_servers(self, limit: int) -> tuple[str, ...]:
        """Servers whose sessions were not looked at for `Terms.usage_sample`; each is marked as being looked at now."""
        ...

    def see(self, server: Server, sessions: Sequence[Session]) -> None:
        """Note at the store's clock which credentials of the server's resources are in use, and by whom, and that it was looked at now.

        After more than `Terms.usage_gap` the time without a gap begins anew.
        """
        ...

    def raise_alarm(
        self, name: str, subject: str, problem: str, *, stands: timedelta = ALARM_STANDS, told_again: timedelta = ALARM_TOLD_AGAIN
    ) -> bool:
        """What has no row of its own, a server say, wants a person: the alarm stands for so long from now on, by whomever it is raised.

        Whether it is to be told: it did not stand before, or was told as long ago as `told_again`.
        """
        ...

    def end_alarm(self, name: str, subject: str) -> None:
        """It stands no more. None that does: a no-op."""

    def resource(self, resource_id: str) -> Resource:
        """The resource as it is now. Raises `NotFound`."""
        ...

    def due_looks(self, limit: int) -> tuple[str, ...]:
        """Servers whose logins were not looked at for `Terms.look`; each is marked as being looked at now."""
        ...

    def owed_logins(self, server: str) -> tuple[Credential, ...]:
        """Every credential whose login must work on this server now; none of a resource that we hold back ourselves."""
        ...

    def credentials_by_id(self, ids: Sequence[str], *, server: str = "", usernames: Sequence[str] = ()) -> tuple[Credential, ...]:
        """Those of these credentials that have a row, whatever their stage, and those whose logins have these names on a server now."""
        ...

    def standings(self, server: str, prefixes: Sequence[str] | None = None) -> tuple[Standing, ...]:
        """Every resource on this server that is not gone, with the highest generation ever recorded for it.

        With `prefixes` at least those whose logins are named with one of them: it costs what they are.
        """
        ...

    def note_look(self, server: str, *, orphans: int, again: timedelta | None = None) -> None:
        """Note that the server's logins were looked at now, and how many of them have no row; the next look is due after `again`."""
        ...

    def note_tried(self, ids: Sequence[str]) -> None:
        """Note that these credentials were logged in with now."""
        ...

    def note_astray(self, ids: Sequence[str]) -> None:
        """Note that the logins of these credentials are not as their rows say; of one that was noted before, nothing changes."""
        ...

    def hint_astray(self, ids: Sequence[str], limit: int) -> tuple[str, ...]:
        """The first of these credentials that were not sent to anybody lately; each is marked as sent for `Terms.hint`, or until a healing
        of it begins.
        """
        ...

    def begin_mending(self, credential_id: str) -> CredentialCase | None:
        """Say, before it is done, that the login is made as its row says; `Terms.mending` is left for it, the deadline of the claim.

        The row is read again under its lock. None when it is not astray, when the login is neither owed nor ended, or when somebody
        holds the row or is at it already. The fence stays as it is, so that no rotation is disturbed.
        """
        ...

    def leave_mending(self, credential: Credential) -> None:
        """It was not put right, and nobody is at it any more: another may begin at once. Of one that another has begun, nothing changes."""
        ...

    def end_mending(self, credential_id: str, event: Event | None) -> bool:
        """The login is as its row says: not astray any more. False, and nothing is written, when it was not.

        With one event, if anything was done about it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things may take. Checked at start: call deadline < claim < the broker's visibility timeout."""

    claim: timedelta = timedelta(seconds=45)
    call_deadline: timedelta = timedelta(seconds=20)
    server_allowance: timedelta = timedelta(seconds=300)
    hint: timedelta = timedelta(seconds=30)
    clock_tolerance: timedelta = timedelta(seconds=30)
    usage_sample: timedelta = timedelta(seconds=60)
    look: timedelta = timedelta(seconds=60)
    login_check: timedelta = timedelta(minutes=15)
    mending: timedelta = timedelta(seconds=10)
    """How long putting a login right may take, so that nobody takes it away meanwhile: well below what an emergency may take."""

    @property
    def usage_gap(self) -> timedelta:
        """How far two looks at a server's sessions may be apart until use may have gone unseen: one of them may fail, or come late."""
        return 3 * self.usage_sample


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything that a rotation needs from the world, in one value."""

    store: Store
    engines: Mapping[str, Engine]
    sink: SecretsSink
    sealer: Sealer
    limiter: Limiter
    clock: Clock
    entropy: Entropy
    terms: Terms = Terms()
