"""Preflight names every missing right at once, each with the SQL that gives it, and that SQL is all that is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rotation.engines.postgresql import AdminLogin, PostgresqlEngine
from rotation.errors import Refused
from rotation.model import Login
from rotation.sensitive import Sensitive
from tests.fakes.sealer import FakeSealer
from tests.postgresql_servers import QUICK
from tests.postgresql_tenants import (
    ADMIN,
    SystemClock,
    SystemEntropy,
    as_superuser,
    credential_of,
    engine_for,
    new_tenant,
    within,
)
from worker.sandbox.postgresql import PrivatePostgresql

if TYPE_CHECKING:
    from pathlib import Path

POOR = "poor_admin"


@pytest.fixture
def poor(postgresql_any: PrivatePostgresql) -> PostgresqlEngine:
    """An engine whose admin may do nothing but log in."""
    if (POOR,) not in as_superuser(postgresql_any, "SELECT rolname FROM pg_roles"):
        as_superuser(postgresql_any, f"CREATE ROLE {POOR} LOGIN")
    as_superuser(
        postgresql_any,
        f"REVOKE pg_monitor, pg_signal_backend FROM {POOR}",
        f"ALTER ROLE {POOR} NOCREATEROLE PASSWORD 'poor'",
    )
    admin = AdminLogin(POOR, Sensitive("poor"))
    return PostgresqlEngine(lambda _: admin, FakeSealer(), SystemClock(), allow_private_hosts=True)


def test_the_advice_for_all_faults_is_all_that_is_missing(postgresql_any: PrivatePostgresql, poor: PostgresqlEngine) -> None:
    resource = new_tenant(postgresql_any)
    owner, database = resource.spec.database.owner_role, resource.spec.database.name
    as_superuser(postgresql_any, f"ALTER ROLE {owner} LOGIN", f"ALTER DATABASE {database} OWNER TO postgres")
    as_superuser(postgresql_any, f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC", f"GRANT CONNECT ON DATABASE {database} TO {POOR}")

    faults = poor.preflight(resource, within())

    assert len(faults) == 6
    as_superuser(postgresql_any, *(fault.advice for fault in faults))
    assert poor.preflight(resource, within()) == ()
    minted = poor.mint(resource, 1, SystemEntropy())
    credential = credential_of(resource, minted, 1)
    poor.admit(resource, credential, minted.verifier, None, within())
    poor.check(resource, Login(minted.username, minted.password), (), within())
    poor.withdraw(resource, credential, (), within())
    poor.close()


def test_an_owner_group_that_does_not_exist_is_made_by_the_advice(postgresql_any: PrivatePostgresql) -> None:
    resource = new_tenant(postgresql_any)
    owner, database = resource.spec.database.owner_role, resource.spec.database.name
    as_superuser(postgresql_any, f"ALTER DATABASE {database} OWNER TO postgres", f"DROP ROLE {owner}")
    engine = engine_for(postgresql_any)

    faults = engine.preflight(resource, within())

    assert [fault.field for fault in faults] == ["owner_role"]
    as_superuser(postgresql_any, faults[0].advice)
    assert engine.preflight(resource, within()) == ()
    engine.close()


def test_rights_that_somebody_gave_to_a_login_of_ours_are_faults(postgresql_any: PrivatePostgresql) -> None:
    resource = new_tenant(postgresql_any)
    database = resource.spec.database.name
    engine = engine_for(postgresql_any)
    minted = engine.mint(resource, 1, SystemEntropy())
    engine.admit(resource, credential_of(resource, minted, 1), minted.verifier, None, within())
    as_superuser(postgresql_any, "CREATE TABLE lent (n int)", f'GRANT SELECT ON lent TO "{minted.username}"', database=database)

    (fault,) = engine.preflight(resource, within())

    as_superuser(postgresql_any, fault.advice, database=database)
    assert engine.preflight(resource, within()) == ()
    engine.close()


def test_an_admin_that_cannot_see_sessions_never_says_that_nobody_is_there(
    postgresql_any: PrivatePostgresql, poor: PostgresqlEngine
) -> None:
    with pytest.raises(Refused, match="cannot see sessions"):
        poor.usage(new_tenant(postgresql_any).server, within())
    poor.close()


def test_a_server_that_keeps_passwords_as_md5_is_refused(tmp_path: Path) -> None:
    with PrivatePostgresql(tmp_path, settings={**QUICK, "password_encryption": "md5"}) as server:
        as_superuser(server, "SET password_encryption = 'scram-sha-256'", f"CREATE ROLE {ADMIN} LOGIN SUPERUSER PASSWORD 'admin of tests'")
        engine = engine_for(server)

        faults = engine.preflight(new_tenant(server), within())

        assert "keeps passwords as md5" in str(faults)
        engine.close()
