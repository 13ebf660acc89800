"""The floor: a bare script that does the work of rotations and retirements, and nothing else.

No queue, no claims, no recovery, no audit trail: a login is made and checked, its secrets are pushed, three commits are written; later it
is blocked, its sessions are ended, it is removed and proved to be dead. The same servers and the same algorithms as the worker's, by the
standard library where that has them; threads that keep their connections, and as many processes as the worker has.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import secrets
import threading
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg import sql
from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

ITERATIONS = 4096
STORE = """
CREATE TABLE IF NOT EXISTS floor (
  id text PRIMARY KEY, tenant text NOT NULL, state text NOT NULL, username text NOT NULL, password bytea, verifier bytea,
  planned_at timestamptz NOT NULL DEFAULT now(), offered_at timestamptz, completed_at timestamptz, retired_at timestamptz)"""
PLAN = "INSERT INTO floor (id, tenant, state, username, password, verifier) VALUES (%s, %s, 'planned', %s, %s, %s)"
OFFER = "UPDATE floor SET state = 'offered', offered_at = now() WHERE id = %s"
COMPLETE = "UPDATE floor SET state = 'completed', completed_at = now() WHERE id = %s"
RETIRE = "UPDATE floor SET state = 'retired', retired_at = now(), password = NULL, verifier = NULL WHERE username = %s"


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is."""

    store_url: str
    admin_url: str
    host: str
    port: int
    vercel_url: str
    token: str
    installation: str


@dataclass(frozen=True, slots=True)
class Account:
    """One login of a tenant: what its application uses."""

    tenant: str
    database: str
    owner: str
    username: str
    password: str


class Hands:
    """The connections of one thread: the store, the customers' server as its admin, Vercel."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.store = psycopg.connect(places.store_url, autocommit=True)
        self.admin = psycopg.connect(places.admin_url, autocommit=True, prepare_threshold=None)
        self.vercel = http.client.HTTPConnection(urlsplit(places.vercel_url).netloc, timeout=20)

    def close(self) -> None:
        """Close them all."""
        self.store.close()
        self.admin.close()
        self.vercel.close()


def rotate(old: Account, hands: Hands, seal: AESGCM) -> Account:
    """Make a login, check it, push it, with three commits on the way. Gives the new login; the old one goes on working."""
    row = secrets.token_hex(12)
    new = Account(old.tenant, old.database, old.owner, f"{old.tenant}_{secrets.token_hex(4)}", secrets.token_urlsafe(24))
    salt = os.urandom(16)
    verifier = _verifier(new.password, salt)
    sealed = (_sealed(new.password, row, seal), _sealed(verifier, row, seal))
    hands.store.execute(PLAN, (row, new.tenant, new.username, *sealed))
    _create(new, verifier, hands)
    _check(new, salt, hands.places)
    hands.store.execute(OFFER, (row,))
    _push(new, hands)
    hands.store.execute(COMPLETE, (row,))
    return new


def retire(old: Account, control: Account, hands: Hands) -> None:
    """Block a login, end its sessions, remove it, and prove that it is refused where `control` gets in."""
    names = {"role": sql.Identifier(old.username), "name": sql.Literal(old.username)}
    hands.admin.execute(sql.SQL("ALTER ROLE {role} NOLOGIN").format(**names))
    end = "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = {name}; DROP ROLE {role}"
    hands.admin.execute(sql.SQL(end).format(**names))
    try:
        _log_in(old, hands.places).close()
    except psycopg.OperationalError as refusal:
        if "password authentication failed" not in str(refusal):
            raise
    else:
        raise SystemExit(f"{old.username} still gets in")
    _log_in(control, hands.places).close()
    hands.store.execute(RETIRE, (old.username,))


def _sealed(text: str, row: str, seal: AESGCM) -> bytes:
    nonce = os.urandom(12)
    return nonce + seal.encrypt(nonce, text.encode(), row.encode())


def _create(new: Account, verifier: str, hands: Hands) -> None:
    """One message: PostgreSQL runs it as one transaction."""
    statement = (
        "CREATE ROLE {role} LOGIN INHERIT PASSWORD {verifier} IN ROLE {owner}; COMMENT ON ROLE {role} IS {marker};"
        " ALTER ROLE {role} SET role = {owner}"
    )
    names = {"role": sql.Identifier(new.username), "owner": sql.Identifier(new.owner)}
    values = {"verifier": sql.Literal(verifier), "marker": sql.Literal(f"floor:{new.tenant}")}
    hands.admin.execute(sql.SQL(statement).format(**names, **values))


def _check(new: Account, salt: bytes, places: Places) -> None:
    """Log in with keys that are derived from the password anew: quicker than libpq derives them."""
    client_key, server_key = _keys(new.password, salt)
    keys = make_conninfo(scram_client_key=_text(client_key), scram_server_key=_text(server_key))
    with psycopg.connect(keys, host=places.host, port=places.port, dbname=new.database, user=new.username) as connection:
        connection.execute("SELECT 1")


def _log_in(account: Account, places: Places) -> psycopg.Connection:
    return psycopg.connect(host=places.host, port=places.port, dbname=account.database, user=account.username, password=account.password)


def _push(new: Account, hands: Hands) -> None:
    places = hands.places
    url = f"postgresql://{new.username}:{new.password}@{places.host}:{places.port}/{new.database}"
    values = {"DATABASE_URL": url, "PGUSER": new.username, "PGPASSWORD": new.password}
    body = json.dumps({"secrets": [{"name": name, "value": value} for name, value in values.items()], "partial": False})
    headers = {"Authorization": f"Bearer {places.token}", "Content-Type": "application/json"}
    hands.vercel.request("PUT", f"/v1/installations/{places.installation}/resources/{new.tenant}/secrets", body, headers)
    answer = hands.vercel.getresponse()
    answer.read()
    if answer.status != http.client.CREATED:
        raise SystemExit(f"Vercel answered {answer.status}")


def _verifier(password: str, salt: bytes) -> str:
    client_key, server_key = _keys(password, salt)
    return f"SCRAM-SHA-256${ITERATIONS}:{_text(salt)}${_text(hashlib.sha256(client_key).digest())}:{_text(server_key)}"


def _keys(password: str, salt: bytes) -> tuple[bytes, bytes]:
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    return hmac.digest(salted, b"Client Key", "sha256"), hmac.digest(salted, b"Server Key", "sha256")


def _text(raw: bytes) -> str:
    return b64encode(raw).decode()


# -- processes


class Crew:
    """Processes with threads, each with its share of the accounts, which it works off as fast as it can."""

    def __init__(self, places: Places, accounts: Sequence[Account], *, processes: int, threads: int) -> None:
        spawn = get_context("spawn")
        self._lines: list[Connection] = []
        self._members = []
        for number in range(processes):
            ours, theirs = spawn.Pipe()
            member = spawn.Process(target=_work, args=(theirs, places, accounts[number::processes], threads), daemon=True)
            member.start()
            self._lines.append(ours)
            self._members.append(member)
        for line in self._lines:
            line.recv()

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        return [member.pid for member in self._members if member.pid is not None]

    def rotate(self, count: int) -> float:
        """Rotate `count` accounts once each. Gives the seconds that it took."""
        return self._do("rotate", count)

    def retire(self, count: int) -> float:
        """Retire the logins that the last `rotate` replaced. Gives the seconds that it took."""
        return self._do("retire", count)

    def close(self) -> None:
        """End the processes."""
        for line in self._lines:
            line.send(None)
        for member in self._members:
            member.join()

    def _do(self, what: str, count: int) -> float:
        started = time.perf_counter()
        for number, line in enumerate(self._lines):
            line.send((what, len(range(number, count, len(self._lines)))))
        for line in self._lines:
            line.recv()
        return time.perf_counter() - started


def _work(line: Connection, places: Places, accounts: Sequence[Account], threads: int) -> None:
    """One process: the current logins, and those that they replaced."""
    seal = AESGCM(AESGCM.generate_key(bit_length=256))
    current, replaced = list(accounts), list(accounts)
    own = threading.local()

    def hands() -> Hands:
        if not hasattr(own, "hands"):
            own.hands = Hands(places)
        found: Hands = own.hands
        return found

    def one_rotation(index: int) -> None:
        replaced[index] = current[index]
        current[index] = rotate(current[index], hands(), seal)

    def one_retirement(index: int) -> None:
        retire(replaced[index], current[index], hands())

    tasks: dict[str, Callable[[int], None]] = {"rotate": one_rotation, "retire": one_retirement}
    with ThreadPoolExecutor(threads) as pool:
        line.send("ready")
        while (asked := line.recv()) is not None:
            what, count = asked
            list(pool.map(tasks[what], range(count)))
            line.send(None)
