"""A place to rehearse in: a database server with two customers who use it, a local Vercel, and every file that an operator would have.

Nothing is registered and nothing rotates: that is what whoever rehearses does, with the commands of the real thing. The two customers
are the two cases that there are. The login of `orders` owns its tables, as most logins do before they are adopted; that of `accounts`
is a member of its owner group already.
"""

from __future__ import annotations

import os
import random
import secrets
import shlex
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from rotation.errors import Conflict
from rotation.sensitive import Sensitive
from worker.machine import MachineEntropy
from worker.sandbox import fleet
from worker.sandbox.customers import Customer
from worker.sandbox.postgresql import PrivatePostgresql, find_binaries
from worker.sandbox.vercel import SandboxVercel
from worker.supervisor import Inbox
from worker.variables import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from worker.sandbox.vercel_world import World

ENVIRONMENT, SERVER_FILE, TOKEN_FILE = "env", "server.toml", "installation.token"
ADMIN_FILE = "admin.url"
LOOK_SECONDS = 0.5
REDEPLOYS_WITHIN = timedelta(seconds=20)
"""How long the customers' teams take, at most, to redeploy when Vercel has a new value."""
FORGETFUL = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}

SERVER = """\
# The customers' database server. Its build has no TLS, and it listens on this machine alone.
name = "{name}"
engine = "postgresql"
host = "{host}"
port = {port}
sslmode = "disable"
admin_url_file = "{admin_file}"
"""

RESOURCE = """\
# {about}
installation = "{installation}"
id = "{id}"
product = "{product}"
engine = "postgresql"
owns_all_secrets = true

[database]
server = "{server}"
name = "{name}"
owner_role = "{owner}"
login_prefix = "{name}"

[policy]
every = "30d"
grace = "24h"

[[secrets]]
name = "DATABASE_URL"
value = "postgresql://{{username}}:{{password}}@{{host}}:{{port}}/{{database}}"

[[secrets]]
name = "PGUSER"
value = "{{username}}"

[[secrets]]
name = "PGPASSWORD"
value = "{{password}}"

[current]
username = "{login}"
password_file = "{name}.password"
"""

ABOUT = {
    "orders": "Its login owns the tables itself: `rollover resource adopt` gives them to the owner group.",
    "accounts": "Its login is a member of the owner group already.",
}


def rehearse(directory: Path, ready: Callable[[], None], tell: Callable[[str], None], bin_directory: Path | None = None) -> None:
    """Make the place in `directory`, which must be new or empty, and keep it until a signal asks for the end; the files stay.

    `ready` is called when everything is there, `tell` with a line whenever something happens to a customer. To be called on the main
    thread. Raises `Conflict` for a directory with something in it, and `ServerFailed` where there is no PostgreSQL to be had.
    """
    programs = find_binaries(bin_directory)
    directory = _made(directory)
    entropy, token = MachineEntropy(), Sensitive(secrets.token_urlsafe(24))
    tenants = fleet.tenants(len(ABOUT), entropy)
    with (
        Inbox() as inbox,
        PrivatePostgresql(directory / "postgresql", bin_directory=programs, settings=FORGETFUL) as postgresql,
        SandboxVercel() as vercel,
    ):
        fleet.settle(postgresql, tenants, entropy, directory / ADMIN_FILE)
        _own_themselves(postgresql, tenants[0])
        fleet.first_push(vercel.world, tenants, postgresql, token)
        _write_files(directory, tenants, postgresql, vercel.url, token)
        customers = [_customer(tenant, vercel.world) for tenant in tenants]
        with _at_work(customers):
            ready()
            reports = [Report(one) for one in customers]
            while inbox.wait(LOOK_SECONDS) is None:
                for line in (line for one in reports for line in one.news()):
                    tell(line)
        for one in customers:
            tell(f"{one.name}: {_counted(one)}")


@dataclass(slots=True)
class Report:
    """What is told about one customer: what was deployed, and when logins begin and cease to be refused."""

    customer: Customer
    _deployed: str = field(init=False)
    _refused: int = 0
    _accepted: int = 0
    _turned_away: bool = False

    def __post_init__(self) -> None:
        """What is there at first is no news."""
        self._deployed = self.customer.deployed

    def news(self) -> Iterator[str]:
        """What happened since the last time."""
        name, tally, deployed = self.customer.name, self.customer.tally, self.customer.deployed
        if deployed != self._deployed:
            yield f"{name}: redeployed with {deployed}; {_counted(self.customer)}"
        if tally.refused > self._refused and not self._turned_away:
            self._turned_away = True
            yield f"{name}: the login {deployed} is refused"
        elif tally.refused == self._refused and tally.accepted > self._accepted and self._turned_away:
            self._turned_away = False
            yield f"{name}: logs in again"
        self._deployed, self._refused, self._accepted = deployed, tally.refused, tally.accepted


def _counted(customer: Customer) -> str:
    return f"{customer.tally.accepted:,} logins accepted, {customer.tally.refused:,} refused"


def _made(directory: Path) -> Path:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Conflict(f"{directory} is there already: a rehearsal begins in a directory of its own, so name a new one")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory.resolve()


def _own_themselves(postgresql: PrivatePostgresql, tenant: fleet.Tenant) -> None:
    """Let the tenant's own login own everything, as it is with a provider that never rotated."""
    names = {
        "database": sql.Identifier(tenant.name),
        "owner": sql.Identifier(tenant.owner_role),
        "login": sql.Identifier(tenant.login.username),
    }
    with psycopg.connect(postgresql.superuser_url(tenant.name), autocommit=True) as connection:
        for statement in (
            "REASSIGN OWNED BY {owner} TO {login}",
            "GRANT CONNECT ON DATABASE {database} TO {owner}",
            "ALTER ROLE {login} RESET role",
            "REVOKE {owner} FROM {login}",
        ):
            connection.execute(sql.SQL(statement).format(**names))


def _customer(tenant: fleet.Tenant, vercel: World) -> Customer:
    def environment() -> Mapping[str, str]:
        return vercel.held(fleet.INSTALLATION, tenant.external_id)

    return Customer(tenant.name, environment, REDEPLOYS_WITHIN, random.Random())  # noqa: S311 - a team's habits are no secret


@contextmanager
def _at_work(customers: Sequence[Customer]) -> Iterator[None]:
    """Each application on a thread of its own; what one of them did not expect is raised at the end."""
    ending = threading.Event()
    with ThreadPoolExecutor(len(customers), thread_name_prefix="customer") as threads:
        running = [threads.submit(one.run, ending) for one in customers]
        try:
            yield
        finally:
            ending.set()
    for one in running:
        one.result()


# -- the files


def _write_files(
    directory: Path, tenants: Sequence[fleet.Tenant], postgresql: PrivatePostgresql, vercel_url: str, token: Sensitive
) -> None:
    _write(directory / ENVIRONMENT, _environment(directory, vercel_url))
    _write(directory / SERVER_FILE, SERVER.format(name=fleet.SERVER, host=postgresql.host, port=postgresql.port, admin_file=ADMIN_FILE))
    _write(directory / TOKEN_FILE, token.reveal())
    for tenant in tenants:
        _write(directory / f"{tenant.name}.password", tenant.login.password.reveal())
        _write(directory / f"{tenant.name}.toml", _resource(tenant))


def _resource(tenant: fleet.Tenant) -> str:
    return RESOURCE.format(
        about=ABOUT[tenant.name],
        installation=fleet.INSTALLATION,
        id=tenant.external_id,
        product=fleet.PRODUCT,
        server=fleet.SERVER,
        name=tenant.name,
        owner=tenant.owner_role,
        login=tenant.login.username,
    )


def _environment(directory: Path, vercel_url: str) -> str:
    """Settings for a shell to source: a store and a Vercel of the rehearsal's own, and quick looks."""
    settings = {
        "DATA_DIR": str(directory / "rollover"),
        "VERCEL_API_URL": vercel_url,
        "ALLOW_PRIVATE_HOSTS": "true",
        "TICK_SECONDS": "1",
        "USAGE_SAMPLE_SECONDS": "5",
        # Nobody is on the way between us and the local Vercel who could still deliver what we gave up on.
        "SERVER_ALLOWANCE_SECONDS": "3",
    }
    return "".join(f"export {PREFIX}{name}={shlex.quote(value)}\n" for name, value in settings.items())


def _write(path: Path, text: str) -> None:
    """A new file that is for its owner alone from its first byte on."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - the mode
        file.write(text)
