"""A database of logins in memory behind the `Engine` port, whose acts a test may stop before or after their effect."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from rotation.engines.logins import new_password, new_username, parts_of
from rotation.engines.urls import targets
from rotation.errors import Fault, LostClaim, NameClash, Refused, Unavailable, Unreachable
from rotation.model import APPLICATION_NAME, Capabilities, KnownLogin, Minted, Session
from rotation.sensitive import Sensitive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from rotation.cases import Deadline
    from rotation.model import Credential, Login, RenderedSecret, Resource, Server
    from rotation.ports import Clock, Entropy, Sealer


@dataclass(frozen=True, slots=True)
class FakeRole:
    """One login of a server. `owner` is the group that it shares its objects with; `settings` stand for all that `like` hands on."""

    username: str
    verifier: str
    can_log_in: bool = True
    owner: str | None = None
    marker: str | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FakeSession:
    """One open session of a login: it goes on when the login is blocked, as a database's do."""

    username: str
    client: str
    application: str
    state: str
    opened_at: datetime


@dataclass(slots=True)
class FakeServer:
    """What one server holds."""

    roles: dict[str, FakeRole] = field(default_factory=dict)
    sessions: list[FakeSession] = field(default_factory=list)
    reachable: bool = True
    clock_ahead: timedelta = timedelta(0)


def fake_verifier(password: Sensitive) -> Sensitive:
    """What this database keeps of a password."""
    return Sensitive("sha256:" + hashlib.sha256(password.reveal().encode()).hexdigest())


class FakeEngine:
    """An `Engine` in memory. `on_act(name, phase)` is called before and after every act with the port's method name; it may raise.

    `faults` is what preflight finds.
    """

    def __init__(self, sealer: Sealer, clock: Clock) -> None:
        self._sealer = sealer
        self._clock = clock
        self._lock = threading.RLock()
        self.servers: dict[str, FakeServer] = {}
        self.faults: tuple[Fault, ...] = ()
        self.on_act: Callable[[str, str], None] = lambda _name, _phase: None
        self.acts: list[tuple[str, str]] = []
        self.shut_out: set[str] = set()
        """Logins that are there, and that the pooler behind the secrets does not know yet."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(most_generations=None, can_block=True, sees_which_secret=True)

    # What a test looks at and arranges.

    def server(self, name: str) -> FakeServer:
        with self._lock:
            return self.servers.setdefault(name, FakeServer())

    def add_login(self, server: str, username: str, password: str, *, settings: tuple[str, ...] = ()) -> None:
        """A login that somebody else made, as the adopted one is."""
        self.server(server).roles[username] = FakeRole(username, fake_verifier(Sensitive(password)).reveal(), settings=settings)

    def open_session(
        self, server: str, username: str, *, client: str = "192.0.2.1", application: str = "app", state: str = "idle"
    ) -> FakeSession:
        session = FakeSession(username, client, application, state, self._clock.now())
        self.server(server).sessions.append(session)
        return session

    def close_sessions(self, server: str, username: str) -> None:
        place = self.server(server)
        place.sessions = [session for session in place.sessions if session.username != username]

    def logs_in(self, username: str, password: str, server: str | None = None) -> bool:
        """Whether a customer gets in with these, now; on any server unless one is named."""
        with self._lock:
            places = self.servers.values() if server is None else (self.server(server),)
            return any(_accepts(place, username, Sensitive(password)) for place in places)

    def close(self) -> None:
        """Nothing is kept open."""

    # The port.

    def mint(self, resource: Resource, generation: int, entropy: Entropy) -> Minted:
        username = new_username(resource.spec.database.login_prefix, generation, entropy)
        password = new_password(resource.spec.password_length, entropy)
        return Minted(username, password, fake_verifier(password))

    def preflight(self, resource: Resource, deadline: Deadline) -> tuple[Fault, ...]:
        with self._look("preflight", resource.server, deadline):
            return self.faults

    def adopt(self, resource: Resource, username: str, deadline: Deadline, *, dry_run: bool) -> tuple[str, ...]:
        owner = resource.spec.database.owner_role
        with self._act("adopt", resource.server, username, deadline) as place:
            role = place.roles.get(username)
            if role is None:
                raise Refused(f"there is no login {username}", advice="name the login that the application uses now")
            if role.owner == owner:
                return ()
            if not dry_run:
                place.roles[username] = replace(role, owner=owner)
            return (f'GRANT "{owner}" TO "{username}"',)

    def rehearse(self, resource: Resource, username: str, like: str | None, deadline: Deadline) -> tuple[str, ...]:
        owner = resource.spec.database.owner_role
        with self._look("rehearse", resource.server, deadline) as place:
            made = f'CREATE ROLE "{username}" LOGIN PASSWORD \'SCRAM-SHA-256$…\' IN ROLE "{owner}"'
            if like is None:
                return (made,)
            if like not in place.roles:
                raise Refused(f"the login {like}, which the new one is to be like, does not exist")
            return (made, f'ALTER ROLE "{like}" NOLOGIN', f'DROP ROLE "{like}"')

    def admit(
        self, resource: Resource, credential: Credential, verifier: Sensitive, like: str | None, deadline: Deadline
    ) -> tuple[Fault, ...]:
        with self._act("admit", resource.server, credential.username, deadline) as place:
            known = self._own(place, credential)
            model = place.roles.get(like) if like else None
            if like and model is None:
                raise Unavailable(f"the login {like}, which the new one is to be like, does not exist")
            place.roles[credential.username] = FakeRole(
                credential.username,
                verifier.reveal(),
                owner=resource.spec.database.owner_role,
                marker=known.marker if known else self._sealer.mark(credential.id),
                settings=model.settings if model else known.settings if known else (),
            )
            return _differences(place, credential.username, like) if like else ()

    def check(self, resource: Resource, login: Login, secrets: Sequence[RenderedSecret], deadline: Deadline) -> None:
        with self._look("check", resource.server, deadline) as place:
            if secrets and login.username in self.shut_out:
                raise Refused(f"the pooler refused the login {login.username}")
            for _ in targets(resource, login, secrets):
                if not _accepts(place, login.username, login.password):
                    raise Refused(f"the server refused the login {login.username}")

    def parity(self, resource: Resource, username: str, like: str, deadline: Deadline) -> tuple[Fault, ...]:
        with self._look("parity", resource.server, deadline) as place:
            return _differences(place, username, like)

    def block(self, resource: Resource, credential: Credential, deadline: Deadline) -> None:
        with self._act("block", resource.server, credential.username, deadline) as place:
            role = self._own(place, credential)
            if role is not None:
                place.roles[role.username] = replace(role, can_log_in=False)

    def unblock(self, resource: Resource, credential: Credential, deadline: Deadline) -> None:
        with self._act("unblock", resource.server, credential.username, deadline) as place:
            role = self._own(place, credential)
            if role is None:
                raise Refused(f"there is no login {credential.username} to unblock")
            place.roles[role.username] = replace(role, can_log_in=True)

    def withdraw(self, resource: Resource, credential: Credential, keep: Sequence[str], deadline: Deadline) -> None:
        with self._act("withdraw", resource.server, credential.username, deadline) as place:
            self._own(place, credential)
            place.roles.pop(credential.username, None)
            place.sessions = [session for session in place.sessions if session.username != credential.username]

    def prove_refused(self, resource: Resource, login: Login, control: Login | None, deadline: Deadline) -> None:
        with self._look("prove_refused", resource.server, deadline) as place:
            if control is not None and not _accepts(place, control.username, control.password):
                raise Unavailable("the control did not log in, so a refusal proves nothing")
            role = place.roles.get(login.username)
            if role is not None and role.can_log_in:
                raise Refused(f"the login {login.username} can still log in")
            if role is not None:
                raise Unavailable(f"the login {login.username} is still there")
            if any(session.username == login.username for session in place.sessions):
                raise Unavailable(f"a session of {login.username} is left")

    def usage(self, server: Server, deadline: Deadline) -> tuple[Session, ...]:
        with self._look("usage", server, deadline) as place:
            groups = Counter(_key(one) for one in place.sessions if one.application != APPLICATION_NAME)
            return tuple(
                Session(*key, count, min(one.opened_at for one in place.sessions if _key(one) == key)) for key, count in groups.items()
            )

    def list_logins(self, server: Server, deadline: Deadline) -> tuple[KnownLogin, ...]:
        with self._look("list_logins", server, deadline) as place:
            return tuple(self._ours(place))

    def find_logins(self, server: Server, usernames: Sequence[str], deadline: Deadline) -> tuple[KnownLogin, ...]:
        with self._look("find_logins", server, deadline) as place:
            return tuple(self._known(place.roles[name]) for name in usernames if name in place.roles)

    def verifier(self, password: Sensitive, entropy: Entropy) -> Sensitive:
        return fake_verifier(password)

    def clock(self, server: Server, deadline: Deadline) -> datetime:
        with self._look("clock", server, deadline) as place:
            return self._clock.now() + place.clock_ahead

    @contextmanager
    def _look(self, name: str, server: Server, deadline: Deadline) -> Iterator[FakeServer]:
        self.on_act(name, "before")
        with self._lock:
            place = self._reached(server)
            if deadline.left(self._clock.monotonic()) <= 0:
                raise Unreachable(f"{server.name}: no answer in time")
            yield place
        self.on_act(name, "after")

    @contextmanager
    def _act(self, name: str, server: Server, username: str, deadline: Deadline) -> Iterator[FakeServer]:
        """A late act changes nothing: the deadline is compared where the effect is, after everything that may have held it up."""
        self.on_act(name, "before")
        with self._lock:
            place = self._reached(server)
            if deadline.left(self._clock.monotonic()) <= 0:
                raise LostClaim(f"{name}: the time for it is over")
            yield place
            self.acts.append((name, username))
        self.on_act(name, "after")

    def _reached(self, server: Server) -> FakeServer:
        place = self.server(server.name)
        if not place.reachable:
            raise Unreachable(f"{server.name} cannot be reached")
        return place

    def _own(self, place: FakeServer, credential: Credential) -> FakeRole | None:
        role = place.roles.get(credential.username)
        if role is not None and not credential.adopted and role.marker != self._sealer.mark(credential.id):
            raise NameClash(f"a login {credential.username} exists and is not ours", advice="find out whose it is")
        return role

    def _ours(self, place: FakeServer) -> Iterator[KnownLogin]:
        known = map(self._known, place.roles.values())
        return (one for one in known if one.credential_id is not None)

    def _known(self, role: FakeRole) -> KnownLogin:
        credential_id = self._sealer.recognise(role.marker) if role.marker else None
        return KnownLogin(role.username, credential_id, role.can_log_in, *parts_of(role.username))


def _key(session: FakeSession) -> tuple[str, str, str, str]:
    return session.username, session.client, session.application, session.state


def _differences(place: FakeServer, username: str, like: str) -> tuple[Fault, ...]:
    role, model = place.roles.get(username), place.roles.get(like)
    if role is None or model is None:
        return (Fault("login", f"{like if role else username} does not exist"),)
    if (role.owner, role.settings) != (model.owner, model.settings):
        return (Fault("settings", f"{username} and {like} differ"),)
    return ()


def _accepts(place: FakeServer, username: str, password: Sensitive) -> bool:
    role = place.roles.get(username)
    return place.reachable and role is not None and role.can_log_in and role.verifier == fake_verifier(password).reveal()
