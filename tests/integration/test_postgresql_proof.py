"""What proves that a login works or is dead: through poolers, with TLS, on servers that trust everybody, at hosts not allowed."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from psycopg import sql

from rotation.engines import postgresql_proof
from rotation.errors import Refused, Unavailable
from rotation.model import Endpoint, Login, RenderedSecret
from rotation.sensitive import Sensitive
from tests.fakes.pooler import REFUSAL, FakePooler
from tests.postgresql_servers import BINARIES
from tests.postgresql_tenants import SystemEntropy, as_superuser, credential_of, engine_for, new_tenant, within
from worker.sandbox.postgresql import PrivatePostgresql, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rotation.engines.postgresql import PostgresqlEngine
    from rotation.model import Credential, Resource

ENTROPY = SystemEntropy()
FOREVER = dt.timedelta(days=1)


@pytest.fixture
def engine(postgresql: PrivatePostgresql) -> Iterator[PostgresqlEngine]:
    engine = engine_for(postgresql)
    yield engine
    engine.close()


@pytest.fixture
def pooler(postgresql: PrivatePostgresql) -> Iterator[FakePooler]:
    with FakePooler(postgresql) as pooler:
        yield pooler


def admit(engine: PostgresqlEngine, resource: Resource, generation: int) -> tuple[Credential, Login]:
    minted = engine.mint(resource, generation, ENTROPY)
    credential = credential_of(resource, minted, generation)
    engine.admit(resource, credential, minted.verifier, None, within())
    return credential, Login(minted.username, minted.password, minted.verifier)


def secret(login: Login, place: Endpoint, database: str) -> RenderedSecret:
    url = f"postgres://{login.username}:{login.password.reveal()}@{place.host}:{place.port}/{database}?sslmode=require&pgbouncer=true"
    return RenderedSecret("POOLED_URL", Sensitive(url))


def test_every_endpoint_is_logged_in_at(postgresql: PrivatePostgresql, engine: PostgresqlEngine, pooler: FakePooler) -> None:
    resource = new_tenant(postgresql, endpoints=(pooler.endpoint,))
    _, login = admit(engine, resource, 1)

    engine.check(resource, login, (secret(login, pooler.endpoint, resource.spec.database.name),), within())

    pooler.answer = REFUSAL
    with pytest.raises(Unavailable, match="endpoint pooled"):
        engine.check(resource, login, (), within())


def test_the_servers_word_for_who_is_in_is_enough_and_a_poolers_is_not(
    postgresql: PrivatePostgresql, engine: PostgresqlEngine, pooler: FakePooler, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, pooled = new_tenant(postgresql), new_tenant(postgresql, endpoints=(pooler.endpoint,))
    monkeypatch.setattr(postgresql_proof, "WHO", sql.SQL("SELECT 'somebody', 'elsewhere'"))

    engine.check(alone, admit(engine, alone, 1)[1], (), within())

    with pytest.raises(Refused, match=r"endpoint pooled.* as somebody else"):
        engine.check(pooled, admit(engine, pooled, 1)[1], (), within())


def test_a_login_whose_salt_was_changed_meanwhile_gets_in_by_its_password(postgresql: PrivatePostgresql, engine: PostgresqlEngine) -> None:
    resource = new_tenant(postgresql)
    _, login = admit(engine, resource, 1)
    as_superuser(postgresql, f"ALTER ROLE \"{login.username}\" PASSWORD '{login.password.reveal()}'")

    engine.check(resource, login, (), within())
    engine.check(resource, login, (), within())


def test_a_poolers_code_proves_a_death_only_beside_a_control(
    postgresql: PrivatePostgresql, engine: PostgresqlEngine, pooler: FakePooler
) -> None:
    resource = new_tenant(postgresql, endpoints=(pooler.endpoint,))
    credential, dead = admit(engine, resource, 1)
    _, alive = admit(engine, resource, 2)
    engine.withdraw(resource, credential, (alive.username,), within())

    engine.prove_refused(resource, dead, alive, within())
    with pytest.raises(Unavailable, match="08P01"):
        engine.prove_refused(resource, dead, None, within())
    pooler.answer = REFUSAL
    with pytest.raises(Unavailable):
        engine.prove_refused(resource, dead, alive, within())


def test_an_endpoint_that_cannot_be_reached_proves_nothing(postgresql: PrivatePostgresql, engine: PostgresqlEngine) -> None:
    nobody_there = Endpoint("pooled", "127.0.0.1", free_port())
    resource = new_tenant(postgresql, endpoints=(nobody_there,))
    credential, dead = admit(engine, resource, 1)
    _, alive = admit(engine, resource, 2)
    engine.withdraw(resource, credential, (alive.username,), within())

    with pytest.raises(Unavailable, match="cannot be reached"):
        engine.prove_refused(resource, dead, alive, within())
    with pytest.raises(Unavailable, match="cannot be reached"):
        engine.check(resource, alive, (), within())


def test_a_server_without_a_place_for_the_login_proves_nothing_and_is_a_fault(tmp_path: Path) -> None:
    with PrivatePostgresql(tmp_path, settings={"fsync": "off"}) as server:
        engine = engine_for(server)
        resource = new_tenant(server)
        credential, dead = admit(engine, resource, 1)
        engine.withdraw(resource, credential, (), within())
        only = f"host all rollover_admin,postgres 127.0.0.1/32 scram-sha-256\nhost {resource.spec.database.name} all 127.0.0.1/32"

        (server.data / "pg_hba.conf").write_text(only + " reject\n")
        server.restart()
        with pytest.raises(Unavailable, match="28000"):
            engine.prove_refused(resource, dead, None, within())
        assert [fault.field for fault in engine.preflight(resource, within())] == ["server"]

        (server.data / "pg_hba.conf").write_text(only + " trust\n")
        server.restart()
        assert "does not ask" in str(engine.preflight(resource, within()))
        engine.close()


def test_a_database_that_is_gone_is_refused(postgresql: PrivatePostgresql, engine: PostgresqlEngine) -> None:
    resource = new_tenant(postgresql)
    _, login = admit(engine, resource, 1)
    gone = replace(resource, spec=replace(resource.spec, database=replace(resource.spec.database, name="gone")))

    with pytest.raises(Refused, match="3D000"):
        engine.check(gone, login, (), within())


def test_a_host_of_this_machine_is_refused_unless_it_is_allowed(postgresql: PrivatePostgresql) -> None:
    resource = new_tenant(postgresql)
    careful = engine_for(postgresql, allow_private_hosts=False)

    with pytest.raises(Refused, match="this machine"):
        careful.usage(resource.server, within())
    with pytest.raises(Refused, match="this machine"):
        careful.check(resource, Login("a", Sensitive("b")), (), within())


class Certified:
    """A root and, signed by it, a certificate for one host name."""

    def __init__(self, directory: Path, host: str) -> None:
        root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a root of tests")])
        now = dt.datetime.now(dt.UTC)

        def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey, *, authority: bool) -> x509.CertificateBuilder:
            return (
                x509.CertificateBuilder()
                .subject_name(subject)
                .issuer_name(root_name)
                .public_key(public)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - FOREVER)
                .not_valid_after(now + FOREVER)
                .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            )

        root = builder(root_name, root_key.public_key(), authority=True).sign(root_key, hashes.SHA256())
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        leaf = builder(subject, key.public_key(), authority=False).add_extension(names, critical=False).sign(root_key, hashes.SHA256())
        self.root, self.certificate, self.key = directory / "root.crt", directory / "server.crt", directory / "server.key"
        self.root.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        self.certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        self.key.touch(mode=0o600)
        self.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def test_with_tls_the_server_must_show_its_name_signed_by_the_root(tmp_path: Path) -> None:
    certified = Certified(tmp_path, "localhost")
    settings = {"fsync": "off", "ssl": "on", "ssl_cert_file": str(certified.certificate), "ssl_key_file": str(certified.key)}
    with PrivatePostgresql(tmp_path / "server", bin_directory=BINARIES["17"], settings=settings) as server:
        engine = engine_for(server)
        plain = new_tenant(server)
        hba = server.data / "pg_hba.conf"
        hba.write_text("hostssl all all 127.0.0.1/32 scram-sha-256\nhostssl all all ::1/128 scram-sha-256\n")
        verified = replace(plain.server, host="localhost", sslmode="verify-full", sslrootcert=str(certified.root))
        resource = replace(plain, server=verified)

        credential, dead = admit(engine, resource, 1)
        _, alive = admit(engine, resource, 2)
        engine.check(resource, alive, (), within())
        engine.withdraw(resource, credential, (), within())
        engine.prove_refused(resource, dead, alive, within())
        assert engine.preflight(resource, within()) == ()

        # By its address it is not the one that the certificate names.
        misnamed = replace(plain, server=replace(verified, host="127.0.0.1"))
        with pytest.raises(Refused, match="certificate"):
            engine.check(misnamed, alive, (), within())
        engine.check(replace(plain, server=replace(verified, host="127.0.0.1", sslmode="verify-ca")), alive, (), within())
        engine.check(replace(plain, server=replace(plain.server, sslmode="require")), alive, (), within())
        unknown_root = Certified(tmp_path / "server", "localhost").root
        with pytest.raises(Refused, match="certificate"):
            engine.check(replace(plain, server=replace(verified, sslrootcert=str(unknown_root))), alive, (), within())
        engine.close()


def test_a_server_without_tls_is_refused_where_tls_is_wanted(postgresql: PrivatePostgresql, engine: PostgresqlEngine) -> None:
    resource = new_tenant(postgresql)
    _, login = admit(engine, resource, 1)

    with pytest.raises(Refused, match="offers no TLS"):
        engine.check(replace(resource, server=replace(resource.server, sslmode="require")), login, (), within())
    engine.check(replace(resource, server=replace(resource.server, sslmode="prefer")), login, (), within())
    wrong = Login(login.username, Sensitive("x" * 32))
    with pytest.raises(Refused, match="28P01"):
        engine.check(replace(resource, server=replace(resource.server, sslmode="prefer")), wrong, (), within())


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"R\0\0\0\x08\0\0\0\x63", b"E\0\0\0\x05\0", b"\0" * 100, b"E"])
def test_a_stranger_at_the_port_is_no_server(postgresql: PrivatePostgresql, engine: PostgresqlEngine, answer: bytes) -> None:
    resource = new_tenant(postgresql)
    _, login = admit(engine, resource, 1)
    with FakePooler(postgresql) as stranger:
        stranger.answer = answer
        elsewhere = replace(resource, server=replace(resource.server, port=stranger.endpoint.port))

        with pytest.raises(Unavailable):
            engine.check(elsewhere, login, (), within())
        with pytest.raises(Unavailable):
            engine.usage(elsewhere.server, within())
