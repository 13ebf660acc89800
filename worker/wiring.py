"""Which adapter goes into which port: the only module that names them all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from rotation.engines.postgresql import AdminLogin, PostgresqlEngine
from rotation.errors import Conflict, Fault, Invalid, Refused, Unavailable
from rotation.ports import Ports
from rotation.sensitive import Sensitive
from rotation.store.audit import AuditTrail
from rotation.store.canaries import Canaries
from rotation.store.database import Database, make_engine
from rotation.store.keyring import Keyring, KeyUse, create_key_file, load_key_file, read_keys
from rotation.store.sealing import KeyringSealer
from rotation.store.sql import SqlStore
from rotation.vercel.client import VercelSettings, VercelSink
from rotation.vercel.exchange import HttpClient
from rotation.vercel.tokens import ClientCredentials, ClientCredentialsSettings, StoredTokens
from worker.alarms import StandingAlarms
from worker.guarded_engine import GuardedEngine
from worker.guarded_sink import GuardedSink
from worker.limits import LocalLimiter, RateLimit, RedisLimiter, Undivided, connect
from worker.machine import MachineClock, MachineEntropy
from worker.settings import RateScope

if TYPE_CHECKING:
    from rotation.model import Server
    from rotation.ports import Clock, Limiter, Sealer
    from rotation.vercel.tokens import TokenSource
    from worker.settings import Settings

WORKERS = 4
"""Among how many processes a limit is divided while nothing can be shared: more of them would send too much, fewer too little."""


def wire(settings: Settings) -> Ports:
    """The real ports. Nothing is connected yet; a key file is made where none is required and none is there."""
    clock = MachineClock()
    keyring = open_keyring(settings)
    sealer = KeyringSealer(keyring)
    entropy = MachineEntropy()
    http = HttpClient(clock)
    store = SqlStore(settings.store, clock=clock, terms=settings.terms(), audit_key=_audit_key(settings, keyring))
    alarms = StandingAlarms(store, clock)
    postgresql = PostgresqlEngine(admin_login, sealer, clock, allow_private_hosts=settings.allow_private_hosts)
    vercel = VercelSink(VercelSettings(settings.vercel_api_url), http, _tokens(settings, sealer, http, clock), clock)
    return Ports(
        store=store,
        engines={
            "postgresql": GuardedEngine(postgresql, clock, entropy, alarms, threads=settings.threads_for_a_server),
        },
        sink=GuardedSink(vercel, clock, entropy, alarms, threads=settings.threads_for_vercel),
        sealer=sealer,
        limiter=_limiter(settings, clock),
        clock=clock,
        entropy=entropy,
        terms=settings.terms(),
    )


def let_go(ports: Ports) -> None:
    """Close every connection that the wired ports keep and do not use just now. They stay usable."""
    for adapter in (*ports.engines.values(), ports.sink):
        if isinstance(adapter, GuardedEngine | GuardedSink):
            adapter.close()
    if isinstance(ports.store, SqlStore):
        ports.store.dispose()


def open_keyring(settings: Settings) -> Keyring:
    """The configured keys; for a store on this machine alone, a key file of its own, made on first use.

    Raises `Refused` when the store holds what other keys sealed: then the file was lost, and new keys would hide that.
    """
    if settings.keys is not None:
        return read_keys(settings.keys)
    path = settings.keys_path
    if path is None or settings.store_is_shared:
        raise Invalid([Fault("ROLLOVER_KEYS", "is not set", "`rollover keys create` makes a key file; name it in ROLLOVER_KEYS_FILE")])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        _expect_no_other_keys(settings, path)
        with contextlib.suppress(Conflict):  # another process was faster: its file is as good
            create_key_file(path)
    return load_key_file(path)


def _expect_no_other_keys(settings: Settings, path: Path) -> None:
    database = settings.store.database
    if database is None or not Path(database).exists():
        return
    engine = make_engine(settings.store)
    try:
        known = Canaries(Database(engine, MachineClock())).known()
    except Unavailable:  # without tables nothing is sealed in it yet; what else is wrong with it, its first use tells
        return
    finally:
        engine.dispose()
    if known and not path.exists():  # another process may have made it meanwhile, and its canaries after it
        raise Refused(
            f"the key file {path} is gone, and the store holds what its keys sealed ({', '.join(known)})",
            advice="put it back from its copy. If there is none: `rollover keys create` makes new keys, and `rollover keys abandon ID` "
            "gives up, for each of these ids, what nobody can open any more",
        )


def audit_trail(settings: Settings) -> AuditTrail:
    """What seals and verifies the audit trail, for whoever has its key and no store. Nothing is made and nothing connected.

    Raises `NotFound` where the key would be in a key file and that is not there.
    """
    if settings.audit_key is not None:
        return AuditTrail(_configured(settings.audit_key))
    if settings.keys is None and settings.keys_path is not None:
        return AuditTrail(_audit_key(settings, load_key_file(settings.keys_path)))
    return AuditTrail(_audit_key(settings, open_keyring(settings)))


def _configured(key: Sensitive) -> bytes:
    return key.reveal().encode()


def _audit_key(settings: Settings, keyring: Keyring) -> bytes:
    """The key of the audit trail: the configured one, else the keyring's."""
    if settings.audit_key is not None:
        return _configured(settings.audit_key)
    key = keyring.newest(KeyUse.AUDIT)
    if key is None:
        raise Invalid([Fault("ROLLOVER_AUDIT_KEY", "is not set, and the key file has no line for `audit`", "add one of the two")])
    return key.bits()


def _tokens(settings: Settings, sealer: Sealer, http: HttpClient, clock: Clock) -> TokenSource:
    if settings.vercel_token_url is None or settings.vercel_client_id is None or settings.vercel_client_secret is None:
        return StoredTokens(sealer)
    credentials = ClientCredentialsSettings(settings.vercel_token_url, settings.vercel_client_id, settings.vercel_client_secret)
    return ClientCredentials(credentials, http, clock)


def _limiter(settings: Settings, clock: Clock) -> Limiter:
    limiter = _buckets(settings, clock)
    return Undivided(limiter) if settings.vercel_rate_scope is RateScope.INTEGRATION else limiter


def _buckets(settings: Settings, clock: Clock) -> Limiter:
    """Shared by all workers where the broker can hold it, else a careful share for each of a few processes of one machine."""
    limit = RateLimit(settings.vercel_rate_per_minute)
    broker = settings.broker_url
    if broker is None or not broker.reveal().startswith("redis"):
        return LocalLimiter(clock, limit.shared_by(WORKERS))
    return RedisLimiter(connect(broker), clock, limit, workers=WORKERS)


def expect_keys(ports: Ports) -> tuple[str, ...]:
    """Look whether this process has the keys of its store, before it uses them. Gives the ids of those that it has not.

    What a missing key sealed is held and everything else goes on, so the caller tells of it and goes on as well. Raises `Refused` when
    a canary does not open though its key is here, and `Unavailable` when the store does not answer.
    """
    if not isinstance(ports.store, SqlStore) or not isinstance(ports.sealer, KeyringSealer):
        raise TypeError("only the wired ports have keys")
    report = Canaries(ports.store.database).keep(ports.sealer)
    if report.damaged:
        raise Refused(
            f"the canary of {', '.join(report.damaged)} does not open with the key of that id",
            advice="the store or the key was altered: compare both with their backups; nothing starts before that",
        )
    return report.missing


def admin_login(server: Server) -> AdminLogin:
    """The admin's login of a server, read anew each time it is asked for, so that a changed one is used at once.

    The URL gives user, password and database alone: where to connect is the server's own business. Raises `Unavailable` when it
    cannot be read.
    """
    text, place = _admin_url(server)
    parts = urlsplit(text.reveal().strip())
    if not parts.username or parts.password is None:
        raise Unavailable(f"the admin URL of {server.name} in {place} has no user name or no password")
    return AdminLogin(unquote(parts.username), Sensitive(unquote(parts.password)), unquote(parts.path.lstrip("/")) or "postgres")


def _admin_url(server: Server) -> tuple[Sensitive, str]:
    if server.admin_url_file is not None:
        try:
            return Sensitive(Path(server.admin_url_file).read_text(encoding="utf-8")), server.admin_url_file
        except OSError as error:
            raise Unavailable(f"the admin URL of {server.name} cannot be read from {server.admin_url_file}: {error.strerror}") from None
    name = server.admin_url_env or ""
    if not os.environ.get(name):
        raise Unavailable(f"the admin URL of {server.name} is not in the environment: {name} is not set")
    return Sensitive(os.environ[name]), name
