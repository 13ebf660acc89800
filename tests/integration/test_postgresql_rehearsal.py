"""What a rehearsal says is what PostgreSQL takes: its statements are run as they stand, by the admin, on each version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from rotation.model import Login
from tests.postgresql_tenants import (
    SystemEntropy,
    as_login,
    as_superuser,
    credential_of,
    engine_for,
    new_tenant,
    prepare_admin,
    within,
)

if TYPE_CHECKING:
    from worker.sandbox.postgresql import PrivatePostgresql


def test_what_is_told_can_be_run(postgresql_any: PrivatePostgresql) -> None:
    engine, entropy = engine_for(postgresql_any), SystemEntropy()
    resource = new_tenant(postgresql_any)
    database, owner = resource.spec.database.name, resource.spec.database.owner_role
    minted = engine.mint(resource, 1, entropy)
    engine.admit(resource, credential_of(resource, minted, 1), minted.verifier, None, within())
    as_superuser(postgresql_any, f"CREATE TABLE kept (id int); ALTER TABLE kept OWNER TO {minted.username}", database=database)
    new = engine.mint(resource, 2, entropy)

    told = engine.rehearse(resource, new.username, minted.username, within())
    engine.close()

    assert f'/* in {database} */ REASSIGN OWNED BY "{minted.username}" TO "{owner}"' in told
    admin = prepare_admin(postgresql_any)
    with as_login(postgresql_any, database, Login(admin.username, admin.password)) as connection:
        for statement in told:
            connection.execute(sql.SQL(statement.replace("SCRAM-SHA-256$…", new.verifier.reveal())))
    ((kept_by,),) = as_superuser(postgresql_any, "SELECT tableowner FROM pg_tables WHERE tablename = 'kept'", database=database)
    logins = {name for (name,) in as_superuser(postgresql_any, "SELECT rolname FROM pg_roles WHERE rolcanlogin")}
    assert kept_by == owner
    assert new.username in logins
    assert minted.username not in logins
