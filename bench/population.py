"""Customers for both sides: resources that are registered and adopted, and as many accounts of the floor, in the same databases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from bench.floor import Account
from bench.parts import ACTOR
from rotation import requests
from rotation.cases import Deadline
from rotation.engines.logins import SHORTEST_PASSWORD, new_password
from rotation.engines.scram import SALT_BYTES, Salting, verifier
from rotation.model import Database, Login, Policy, ResourceSpec
from rotation.sensitive import Sensitive
from worker.sandbox import fleet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.parts import Parts
    from rotation.model import Resource
    from rotation.ports import Entropy
    from worker.sandbox.postgresql import PrivatePostgresql

DATABASES = 8
"""Customers share databases here: making one takes longer than all that is measured of its customer."""

LOGIN = """
CREATE ROLE {role} LOGIN PASSWORD {verifier} IN ROLE {owner};
ALTER ROLE {role} SET role = {owner};
GRANT {role} TO rollover_admin WITH ADMIN TRUE, INHERIT TRUE, SET TRUE"""

ON_DEMAND = Policy(grace=timedelta(days=1), blocked=timedelta(days=1))
"""On demand only; grace ends when the measurement says so."""


@dataclass(frozen=True, slots=True)
class Population:
    """Who is rotated."""

    resources: tuple[Resource, ...]
    accounts: tuple[Account, ...]


@dataclass(frozen=True, slots=True)
class Home:
    """A server of customers, by the name under which it is registered."""

    postgresql: PrivatePostgresql
    name: str = fleet.SERVER


def settle(parts: Parts, count: int, label: str, home: Home | None = None) -> Population:
    """Make `count` new customers for each side, in databases that are there. `label` tells them from those of other calls."""
    home = home or Home(parts.customers)
    entropy = parts.ports.entropy
    ours = [_account(f"ours{label}_{number:04}", number, entropy) for number in range(count)]
    floors = [_account(f"floor{label}_{number:04}", number, entropy) for number in range(count)]
    _make(home, [*ours, *floors], entropy)
    for account in (*ours, *floors):
        parts.vercel.add_resource(fleet.INSTALLATION, account.tenant, fleet.PRODUCT, account.tenant)
    return Population(tuple(_registered(parts, home, one) for one in ours), tuple(floors))


def _account(tenant: str, number: int, entropy: Entropy) -> Account:
    database = f"shop{number % DATABASES}"
    password = new_password(SHORTEST_PASSWORD, entropy)
    return Account(tenant, database, f"{database}_owner", f"{tenant}_app", password.reveal())


def found(parts: Parts, home: Home | None = None) -> None:
    """Make the customers' databases with their owner groups."""
    home = home or Home(parts.customers)
    with psycopg.connect(home.postgresql.superuser_url(), autocommit=True) as connection:
        for number in range(DATABASES):
            names = {"database": sql.Identifier(f"shop{number}"), "owner": sql.Identifier(f"shop{number}_owner")}
            for statement in (
                "CREATE ROLE {owner} NOLOGIN",
                "GRANT {owner} TO rollover_admin WITH ADMIN TRUE, INHERIT TRUE, SET TRUE",
                "CREATE DATABASE {database} OWNER {owner}",
            ):
                connection.execute(sql.SQL(statement).format(**names))


def _make(home: Home, accounts: Sequence[Account], entropy: Entropy) -> None:
    """A login for each account, which acts as the owner of its database."""
    with psycopg.connect(home.postgresql.superuser_url(), autocommit=True) as connection:
        for account in accounts:
            values = {"role": sql.Identifier(account.username), "owner": sql.Identifier(account.owner)}
            secret = verifier(Sensitive(account.password), Salting(entropy.bytes(SALT_BYTES)))
            connection.execute(sql.SQL(LOGIN).format(**values, verifier=sql.Literal(secret.reveal())))


def _registered(parts: Parts, home: Home, account: Account) -> Resource:
    spec = ResourceSpec(
        installation_id=fleet.INSTALLATION,
        external_id=account.tenant,
        product=fleet.PRODUCT,
        engine=fleet.ENGINE,
        owns_all_secrets=True,
        database=Database(home.name, account.database, account.owner, login_prefix=account.tenant),
        secrets=fleet.SECRETS,
        policy=ON_DEMAND,
    )
    resource = requests.register(spec, Login(account.username, Sensitive(account.password)), ACTOR, parts.ports)
    deadline = Deadline(parts.ports.clock.monotonic() + parts.ports.terms.call_deadline.total_seconds())
    parts.ports.engines[fleet.ENGINE].adopt(resource, account.username, deadline, dry_run=False)
    return resource
