"""The demo's world before the first rotation: a database server with an admin login, and tenants that use it already.

Each tenant has a database, a NOLOGIN group that owns what is in it, and a login that its application uses. The admin is no superuser:
it may do what a rotation needs and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
from psycopg import sql

from rotation.engines.logins import SHORTEST_PASSWORD, new_password
from rotation.model import Database, Login, Policy, ResourceSpec, SecretTemplate, Server
from rotation.states import PushBy
from worker.sandbox.vercel_world import Call

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rotation.ports import Entropy
    from rotation.sensitive import Sensitive
    from worker.sandbox.postgresql import PrivatePostgresql
    from worker.sandbox.vercel_world import World

INSTALLATION = "icfg_demo"
PRODUCT = "demo-postgres"
SERVER = "demo"
ENGINE = "postgresql"
ADMIN = "rollover_admin"
NAMES = ("orders", "accounts", "catalog", "billing", "search", "mail", "carts", "reviews", "stock", "media")
MOST_TENANTS = len(NAMES)
BLOCKED = timedelta(seconds=1)

SECRETS = (
    SecretTemplate("DATABASE_URL", "postgresql://{username}:{password}@{host}:{port}/{database}"),
    SecretTemplate("PGUSER", "{username}"),
    SecretTemplate("PGPASSWORD", "{password}"),
)


@dataclass(frozen=True, slots=True)
class Tenant:
    """One customer's database: `name` is also the database's, `login` what its application used before we came."""

    name: str
    push_by: PushBy
    login: Login

    @property
    def external_id(self) -> str:
        """The provider's id of the resource."""
        return external_id(self.name)

    @property
    def owner_role(self) -> str:
        """The group that owns what is in the database."""
        return f"{self.name}_owner"


def external_id(name: str) -> str:
    """The provider's id of the resource of the tenant with this name."""
    return f"store_{name}"


def tenants(count: int, entropy: Entropy) -> tuple[Tenant, ...]:
    """The first `count` tenants: three in five push by resource, two by product."""
    return tuple(
        Tenant(
            name,
            PushBy.PRODUCT if index % 5 > 2 else PushBy.RESOURCE,  # noqa: PLR2004 - two in five
            Login(f"{name}_app", new_password(SHORTEST_PASSWORD, entropy)),
        )
        for index, name in enumerate(NAMES[:count])
    )


def spec(tenant: Tenant, *, every: timedelta, grace: timedelta) -> ResourceSpec:
    """What the provider says about a tenant's resource."""
    return ResourceSpec(
        installation_id=INSTALLATION,
        external_id=tenant.external_id,
        product=PRODUCT,
        engine=ENGINE,
        owns_all_secrets=True,
        database=Database(server=SERVER, name=tenant.name, owner_role=tenant.owner_role, login_prefix=tenant.name),
        secrets=SECRETS,
        policy=Policy(every=every, grace=grace, blocked=BLOCKED),
        push_by=tenant.push_by,
    )


def server(postgresql: PrivatePostgresql, admin_url_file: Path) -> Server:
    """The database server as the provider registers it. It listens on this machine alone, and its build has no TLS."""
    return Server(SERVER, ENGINE, postgresql.host, postgresql.port, sslmode="disable", admin_url_file=str(admin_url_file))


def settle(postgresql: PrivatePostgresql, fleet: Sequence[Tenant], entropy: Entropy, admin_url_file: Path) -> None:
    """Make the admin, and each tenant's database, group and login; write the admin's URL into the file, mode 0600."""
    make_admin(postgresql, entropy, admin_url_file)
    add_tenants(postgresql, fleet)


def make_admin(postgresql: PrivatePostgresql, entropy: Entropy, admin_url_file: Path) -> None:
    """Make the admin of the server, once, and write its URL into the file, mode 0600."""
    admin = Login(ADMIN, new_password(SHORTEST_PASSWORD, entropy))
    with psycopg.connect(postgresql.superuser_url(), autocommit=True) as connection:
        _make_admin(connection, admin)
    admin_url_file.touch(mode=0o600)
    admin_url_file.write_text(_url(admin, postgresql, "postgres"))


def add_tenants(postgresql: PrivatePostgresql, fleet: Sequence[Tenant]) -> None:
    """Make each tenant's database, group and login, on a server that has its admin."""
    with psycopg.connect(postgresql.superuser_url(), autocommit=True) as connection:
        for tenant in fleet:
            _make_tenant(connection, tenant)
    for tenant in fleet:
        _make_table(postgresql, tenant)


def first_push(world: World, fleet: Sequence[Tenant], postgresql: PrivatePostgresql, token: Sensitive) -> None:
    """Tell Vercel of the installation and the resources, and let it hold the tenants' logins as if pushed at provisioning."""
    world.add_installation(INSTALLATION, token.reveal())
    for tenant in fleet:
        world.add_resource(INSTALLATION, tenant.external_id, PRODUCT, tenant.name)
        values = {
            "DATABASE_URL": _url(tenant.login, postgresql, tenant.name),
            "PGUSER": tenant.login.username,
            "PGPASSWORD": tenant.login.password.reveal(),
        }
        secrets = [{"name": name, "value": value} for name, value in values.items()]
        body = {"secrets": secrets, "partial": False}
        world.put_secrets(Call("PUT", INSTALLATION, tenant.external_id, token=token.reveal(), body=body))


def _make_admin(connection: psycopg.Connection, admin: Login) -> None:
    """What `rollover doctor` asks for: make roles, see sessions and end them."""
    _make_login(connection, admin)
    connection.execute(sql.SQL("ALTER ROLE {} CREATEROLE").format(sql.Identifier(ADMIN)))
    connection.execute(sql.SQL("GRANT pg_monitor, pg_signal_backend TO {}").format(sql.Identifier(ADMIN)))


def _make_tenant(connection: psycopg.Connection, tenant: Tenant) -> None:
    names = {
        "admin": sql.Identifier(ADMIN),
        "database": sql.Identifier(tenant.name),
        "owner": sql.Identifier(tenant.owner_role),
        "login": sql.Identifier(tenant.login.username),
    }
    connection.execute(sql.SQL("CREATE ROLE {owner} NOLOGIN").format(**names))
    _make_login(connection, tenant.login)
    # From 16 on nobody manages a role, or acts for it, without having been given it in so many words.
    rights = "WITH ADMIN TRUE, INHERIT TRUE, SET TRUE" if connection.info.server_version >= 160000 else "WITH ADMIN OPTION"  # noqa: PLR2004
    for statement in (
        "GRANT {owner} TO {login}",
        "ALTER ROLE {login} SET role = {owner}",
        "GRANT {owner}, {login} TO {admin} " + rights,
        "CREATE DATABASE {database} OWNER {owner}",
        "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
    ):
        connection.execute(sql.SQL(statement).format(**names))


def _make_login(connection: psycopg.Connection, login: Login) -> None:
    """The server gets a verifier: a password in a statement would end up in its log when the statement fails."""
    name = login.username.encode()
    verifier = connection.pgconn.encrypt_password(login.password.reveal().encode(), name, b"scram-sha-256").decode()
    statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(login.username), sql.Literal(verifier))
    connection.execute(statement)


def _make_table(postgresql: PrivatePostgresql, tenant: Tenant) -> None:
    """The application makes its own table, as applications do; it belongs to the group."""
    with psycopg.connect(_url(tenant.login, postgresql, tenant.name), autocommit=True) as connection:
        connection.execute("CREATE TABLE visits (at timestamptz NOT NULL DEFAULT now(), application text NOT NULL)")
        connection.execute("CREATE INDEX visits_at ON visits (at)")


def _url(login: Login, postgresql: PrivatePostgresql, database: str) -> str:
    return f"postgresql://{login.username}:{quote(login.password.reveal(), safe='')}@{postgresql.host}:{postgresql.port}/{database}"
