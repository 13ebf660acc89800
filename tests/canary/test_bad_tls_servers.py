"""Servers that are not who they say: each is refused by each of our clients, and hears nothing that is secret."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rotation.engines.hosts import Hosts
from rotation.engines.postgresql import AdminLogin, PostgresqlEngine
from rotation.engines.postgresql_logins import Door, Logins
from rotation.errors import Refused, Unavailable
from rotation.model import Endpoint, Login, PushOutcome, PushVerdict, Server
from rotation.sensitive import Sensitive
from tests.canary.bad_certificates import BAD, HOST, IN_COMMON_NAME, Authority
from tests.fakes.sealer import FakeSealer
from tests.postgresql_tenants import SystemClock
from tests.vercel_peers import LOGIN, Conversation, Peer, a_resource, a_sink, an_installation, answer, in_tls, saying, within

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    Figure = Callable[[str, int], None]
    Behaviour = Callable[[Conversation], None]
    Client = Callable[[PostgresqlEngine, Server], None]

SECONDS = 5.0
PASSWORD = Sensitive("Kanarienvogel0123456789abcdefghij")
DATABASE_LOGIN = Login("orders_app_2", PASSWORD)
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
CLEAR_TEXT = b"R\0\0\0\x08\0\0\0\x03"
"""AuthenticationCleartextPassword: tell me your password."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_every_kind_of_certificate_has_a_test(authority: Authority) -> None:
    assert set(authority.bad) == set(BAD)


class Heard:
    """Behaves as it is told, and keeps what it heard before any TLS."""

    def __init__(self, behave: Behaviour) -> None:
        self._behave = behave
        self.everything = b""

    def __call__(self, peer: Conversation) -> None:
        try:
            self._behave(peer)
            with suppress(OSError):
                peer.read_all()
        finally:
            self.everything += bytes(peer.received)


# -- Vercel


def push(url: str, authority: Authority) -> PushOutcome:
    with a_sink(url, ca_file=str(authority.file)) as sink:
        resource = a_resource()
        return sink.push(resource, an_installation(), sink.render(resource, LOGIN), lambda: True, within(SECONDS))


def closes(peer: Conversation) -> None:
    peer.connection.recv(64)


def says_garbage(peer: Conversation) -> None:
    peer.connection.recv(64)
    peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_vercel_with_a_good_certificate_is_pushed_to(authority: Authority) -> None:
    with Peer(saying(answer(201)), tls=authority.good()) as peer:
        assert push(f"https://{HOST}:{peer.port}", authority).verdict is PushVerdict.APPLIED
        assert LOGIN.username.encode() in peer.received[0]


@pytest.mark.parametrize("bad", BAD)
def test_vercel_with_a_bad_certificate_hears_nothing(bad: str, authority: Authority, figure: Figure) -> None:
    with Peer(saying(answer(201)), tls=authority.bad[bad]) as peer:
        outcome = push(f"https://{HOST}:{peer.port}", authority)
        assert b"".join(peer.received) == b""
    assert outcome.verdict is PushVerdict.UNSENT
    figure("bad TLS servers refused", 1)


@pytest.mark.parametrize("behave", [closes, says_garbage, lambda peer: peer.reset()], ids=["closes", "speaks plain HTTP", "resets"])
def test_vercel_without_tls_hears_no_request(behave: Behaviour, authority: Authority, figure: Figure) -> None:
    with Peer(heard := Heard(behave)) as peer:
        outcome = push(f"https://{HOST}:{peer.port}", authority)
    assert outcome.verdict is PushVerdict.UNSENT
    assert b"PUT" not in heard.everything
    figure("bad TLS servers refused", 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_vercel_sends_nobody_elsewhere(status: int, scheme: str, authority: Authority, figure: Figure) -> None:
    elsewhere_tls = authority.good() if scheme == "https" else None
    with Peer(saying(answer(201)), tls=elsewhere_tls) as elsewhere:
        location = f"Location: {scheme}://{HOST}:{elsewhere.port}/v1/installations"
        with Peer(saying(answer(status, b"", location)), tls=authority.good()) as peer:
            outcome = push(f"https://{HOST}:{peer.port}", authority)
        assert elsewhere.conversations == []
    assert outcome.verdict is PushVerdict.UNKNOWN
    figure("bad TLS servers refused", 1)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"])
def test_a_proxy_of_the_environment_is_not_asked(
    variable: str, authority: Authority, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    with Peer(saying(answer(200))) as proxy, Peer(saying(answer(201)), tls=authority.good()) as peer:
        monkeypatch.setenv(variable, proxy.url)
        assert push(f"https://{HOST}:{peer.port}", authority).verdict is PushVerdict.APPLIED
        assert proxy.conversations == []
    figure("bad TLS servers refused", 1)


# -- PostgreSQL


def agrees_to_tls(context: ssl.SSLContext) -> Behaviour:
    """A PostgreSQL that agrees to TLS, shows its certificate, and asks whoever comes in for the password."""

    def behave(peer: Conversation) -> None:
        if peer.connection.recv(8) != SSL_REQUEST:
            return  # it has gone again
        peer.say(b"S")
        with suppress(OSError), in_tls(context, peer.connection) as secured:
            peer.received += secured.recv(4096)
            secured.sendall(CLEAR_TEXT)
            while more := secured.recv(4096):
                peer.received += more

    return behave


def without_tls(*answers: bytes) -> Behaviour:
    def behave(peer: Conversation) -> None:
        peer.received += peer.connection.recv(8)
        for one in answers:
            peer.say(one)

    return behave


WITHOUT_TLS: dict[str, Behaviour] = {
    "has no TLS": without_tls(b"N", CLEAR_TEXT),
    "answers with an error": without_tls(b"E\0\0\0\x05\0"),
    "answers as an old server": without_tls(b"E" + b"FATAL: unsupported frontend protocol\n\0"),
    "closes": without_tls(),
    "says garbage": without_tls(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "smuggles something in before TLS": without_tls(b"S" + CLEAR_TEXT),
    "resets": lambda peer: peer.reset(),
}


@pytest.fixture
def engine() -> Iterator[PostgresqlEngine]:
    admin = AdminLogin("rollover_admin", PASSWORD)
    engine = PostgresqlEngine(lambda _: admin, FakeSealer(), SystemClock(), allow_private_hosts=True)
    yield engine
    engine.close()


def server_at(port: int, authority: Authority) -> Server:
    return Server("pg", "postgresql", HOST, port, sslmode="verify-full", sslrootcert=str(authority.file))


def as_admin(engine: PostgresqlEngine, server: Server) -> None:
    engine.usage(server, within(SECONDS))


def as_customer(engine: PostgresqlEngine, server: Server) -> None:
    engine.check(replace(a_resource(), server=server), DATABASE_LOGIN, (), within(SECONDS))


def as_proof(_: PostgresqlEngine, server: Server) -> None:
    end = time.monotonic() + SECONDS
    door = Door(server, Endpoint("", server.host, server.port), "orders")
    Logins(Hosts(allow_private=True)).refusal(door, DATABASE_LOGIN, lambda: end - time.monotonic())


def says_anything(heard: Heard) -> bool:
    """Whether a client has told who it is, or more. It may have said hello, in the hope of TLS."""
    return any(word in heard.everything for word in (b"user", b"orders", b"rollover_admin", PASSWORD.reveal().encode()))


CLIENTS = (as_admin, as_customer, as_proof)


@pytest.mark.parametrize("client", CLIENTS)
def test_postgresql_with_a_good_certificate_is_spoken_to(client: Client, engine: PostgresqlEngine, authority: Authority) -> None:
    with Peer(heard := Heard(agrees_to_tls(authority.good()))) as peer, pytest.raises((Refused, Unavailable)):  # it is none, after all
        client(engine, server_at(peer.port, authority))
    assert b"user\0" in heard.everything


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("bad", [one for one in BAD if one != IN_COMMON_NAME])
def test_postgresql_with_a_bad_certificate_hears_nothing(
    bad: str, client: Client, engine: PostgresqlEngine, authority: Authority, figure: Figure
) -> None:
    with Peer(heard := Heard(agrees_to_tls(authority.bad[bad]))) as peer, pytest.raises((Refused, Unavailable)):
        client(engine, server_at(peer.port, authority))
    assert heard.everything == b""
    figure("bad TLS servers refused", 1)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("what", WITHOUT_TLS)
def test_postgresql_without_tls_is_asked_for_tls_and_told_nothing(
    what: str, client: Client, engine: PostgresqlEngine, authority: Authority, figure: Figure
) -> None:
    with Peer(heard := Heard(WITHOUT_TLS[what])) as peer, pytest.raises((Refused, Unavailable)):
        client(engine, server_at(peer.port, authority))
    assert not says_anything(heard)
    figure("bad TLS servers refused", 1)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "setting", [("PGSSLMODE", "disable"), ("PGSSLMODE", "prefer"), ("PGSSLNEGOTIATION", "direct"), ("PGREQUIRESSL", "0")]
)
def test_the_environment_does_not_talk_anybody_out_of_tls(
    setting: tuple[str, str], client: Client, engine: PostgresqlEngine, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*setting)
    with Peer(heard := Heard(without_tls(b"N", CLEAR_TEXT))) as peer, pytest.raises((Refused, Unavailable)):
        client(engine, server_at(peer.port, authority))
    assert not says_anything(heard)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("sslmode", ["disable", "prefer", "require"])
def test_nobody_unverified_is_told_a_password_in_plain_text(
    sslmode: str, client: Client, engine: PostgresqlEngine, authority: Authority, figure: Figure
) -> None:
    """With these modes anybody may answer, so the proof that needs no trust is the only one: SCRAM."""
    behave = (
        agrees_to_tls(authority.bad["signed by itself"]) if sslmode == "require" else without_tls(b"N" * (sslmode == "prefer"), CLEAR_TEXT)
    )
    server = replace(server_at(0, authority), sslmode=sslmode, sslrootcert=None)
    with Peer(heard := Heard(behave)) as peer, pytest.raises((Refused, Unavailable)):
        client(engine, replace(server, port=peer.port))
    assert heard.everything != b""
    assert PASSWORD.reveal().encode() not in heard.everything
    figure("bad TLS servers refused", 1)
