"""The customers' applications: each keeps a pool of sessions on what Vercel held when it was deployed, and logs in all the time.

An application knows nothing but its environment variables. When Vercel's value changes, its team redeploys it at a random point of the
grace period, and until then it goes on with the old value, as a running deployment does. What the database answers is counted: one
refused login is a broken promise.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pg8000.exceptions
import pg8000.native
import psycopg

from rotation.model import Login
from rotation.sensitive import Sensitive

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Callable, Mapping
    from datetime import timedelta

VARIABLE = "DATABASE_URL"
SESSIONS = 2
"""How many connections an application's pool keeps open."""
TURN = 0.25
"""Seconds between two logins of one application."""
CONNECT_SECONDS = 5
EARLIEST_REDEPLOY, LATEST_REDEPLOY = 0.05, 0.8
"""When a team redeploys, as a part of the grace period."""
REFUSALS = ("28", "42501", "42704")
"""SQLSTATEs (or their class) by which a server says no to a login: authorization, a missing right, a role that is not there."""


class Answer(StrEnum):
    """What became of one login."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    """The server itself said no."""
    UNREACHABLE = "unreachable"
    """Nobody said anything about this login: no connection, or a server that takes nobody at the moment."""


@dataclass(frozen=True, slots=True)
class Address:
    """A login and where it is for: the parts of a `DATABASE_URL`."""

    login: Login
    host: str
    port: int
    database: str


@dataclass(frozen=True, slots=True)
class Tally:
    """What one application has met with so far."""

    accepted: int = 0
    refused: int = 0
    unreachable: int = 0
    queries: int = 0
    broken: int = 0
    """Queries on open sessions that failed."""
    deployments: int = 0

    @property
    def tried(self) -> int:
        """Every login that was tried."""
        return self.accepted + self.refused + self.unreachable


def address(url: Sensitive) -> Address:
    """The parts of a `postgresql://` URL, each decoded. Raises `ValueError` for one that is not whole."""
    parts = urlsplit(url.reveal())
    if not parts.hostname or parts.port is None or parts.username is None or parts.password is None:
        raise ValueError("the URL does not name user, password, host and port")
    login = Login(unquote(parts.username), Sensitive(unquote(parts.password)))
    return Address(login, parts.hostname, parts.port, unquote(parts.path[1:]))


def connect(to: Address, application: str) -> psycopg.Connection:
    """A session of this login. Raises `psycopg.OperationalError`."""
    return psycopg.connect(
        host=to.host,
        port=to.port,
        dbname=to.database,
        user=to.login.username,
        password=to.login.password.reveal(),
        application_name=application,
        connect_timeout=CONNECT_SECONDS,
        autocommit=True,
    )


def knock(to: Address) -> Answer:
    """Try the login once, with a driver that tells the code of a refusal: psycopg gives none for a failed connect."""
    try:
        pg8000.native.Connection(
            to.login.username,
            host=to.host,
            port=to.port,
            database=to.database,
            password=to.login.password.reveal(),
            timeout=CONNECT_SECONDS,
        ).close()
    except pg8000.exceptions.DatabaseError as error:
        said = error.args[0] if error.args else None
        code = said.get("C", "") if isinstance(said, dict) else ""
        return Answer.REFUSED if code.startswith(REFUSALS) else Answer.UNREACHABLE
    except (pg8000.exceptions.InterfaceError, OSError):
        return Answer.UNREACHABLE
    return Answer.ACCEPTED


class Customer:
    """One application and the team behind it. `environment` reads what Vercel holds for it now; `grace` is what the team was promised.

    Only `run`, or whoever calls `deploy` and `turn`, uses it; others may read `tally` and `deployed` at any time.
    """

    def __init__(self, name: str, environment: Callable[[], Mapping[str, str]], grace: timedelta, randomness: random.Random) -> None:
        self.name = name
        self.tally = Tally()
        self._environment = environment
        self._grace = grace.total_seconds()
        self._randomness = randomness
        self._value = self._held()
        self._here = address(self._value)
        self._pool: list[psycopg.Connection] = []
        self._redeploys_at: float | None = None

    @property
    def deployed(self) -> str:
        """The user name that it is deployed with."""
        return self._here.login.username

    def run(self, ending: threading.Event) -> None:
        """Deploy, use the database until `ending` is set, and leave no session behind."""
        try:
            self.deploy()
            while not ending.wait(TURN):
                self.turn(time.monotonic())
        finally:
            self.close()

    def deploy(self) -> None:
        """Read the environment, open a pool on it, then close the old one: from then on nobody uses the old login here."""
        self._value = self._held()
        self._here = address(self._value)
        old, self._pool = self._pool, []
        self._redeploys_at = None
        self._fill_pool()
        _close(old)
        self._count(deployments=1)

    def turn(self, now: float) -> None:
        """One round: redeploy if it is time, log in anew, and work on every open session. `now` is monotonic, in seconds."""
        self._watch(now)
        visit = self._log_in()
        if visit is not None:
            self._work(visit)
            visit.close()
        self._fill_pool()
        self._pool = [session for session in self._pool if self._work(session)]

    def close(self) -> None:
        """End every session."""
        pool, self._pool = self._pool, []
        _close(pool)

    def _watch(self, now: float) -> None:
        """The team sees a new value at once, and redeploys when it gets round to it."""
        if self._redeploys_at is None:
            if self._held() != self._value:
                self._redeploys_at = now + self._grace * self._randomness.uniform(EARLIEST_REDEPLOY, LATEST_REDEPLOY)
        elif now >= self._redeploys_at:
            self.deploy()

    def _held(self) -> Sensitive:
        return Sensitive(self._environment()[VARIABLE])

    def _fill_pool(self) -> None:
        for _ in range(SESSIONS - len(self._pool)):
            session = self._log_in()
            if session is not None:
                self._pool.append(session)

    def _log_in(self) -> psycopg.Connection | None:
        try:
            session = connect(self._here, self.name)
        except psycopg.OperationalError:
            # Whoever is let in at the second knock was still turned away once.
            refused = knock(self._here) is Answer.REFUSED
            self._count(refused=int(refused), unreachable=int(not refused))
            return None
        self._count(accepted=1)
        return session

    def _work(self, session: psycopg.Connection) -> bool:
        """Write and read something; False when the session is broken."""
        try:
            session.execute("INSERT INTO visits (application) VALUES (%s)", (self.deployed,))
            session.execute("SELECT application FROM visits ORDER BY at DESC LIMIT 1").fetchone()
        except psycopg.Error:
            self._count(broken=1)
            _close([session])
            return False
        self._count(queries=2)
        return True

    def _count(self, **more: int) -> None:
        self.tally = replace(self.tally, **{name: getattr(self.tally, name) + count for name, count in more.items()})


def _close(sessions: list[psycopg.Connection]) -> None:
    for session in sessions:
        with contextlib.suppress(psycopg.Error):
            session.close()
