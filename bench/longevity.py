"""One resource rotated again and again, each old login retired before the next rotation begins: what is left, and does it get slower.

It drives the real stories in this process, on the real store, the real database and the local Vercel; only the queue is left out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from sqlalchemy import update

from bench import catalogs
from bench.parts import ACTOR, BenchFailed
from rotation import driver, lifecycle, requests, retirement
from rotation.model import Policy
from rotation.states import RotationState, Stage, Trigger
from rotation.store.sql import SqlStore
from rotation.store.tables import credentials

if TYPE_CHECKING:
    from collections.abc import Callable

    from rotation.cases import ResourceCase
    from rotation.ports import Ports

AT_ONCE = Policy(grace=timedelta(0), blocked=timedelta(0))
"""On demand only; the old login retires as soon as the new one is acknowledged."""

PATIENCE = 30.0
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

THINGS = (
    "CREATE TABLE IF NOT EXISTS {schema}.orders (id bigint PRIMARY KEY, note text)",
    "GRANT SELECT ON {schema}.orders TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} GRANT SELECT ON TABLES TO PUBLIC",
    "GRANT CONNECT ON DATABASE {database} TO PUBLIC",
)
"""What a customer's database has, so that there are access lists which could grow."""


@dataclass(frozen=True, slots=True)
class Lasted:
    """What came of it: the seconds of each rotation with its retirement, and what the server kept before and after."""

    seconds: list[float]
    before: dict[str, int]
    after: dict[str, int]
    sizes_before: dict[str, tuple[float, int, int]]
    sizes_after: dict[str, tuple[float, int, int]]

    @property
    def grown(self) -> dict[str, tuple[int, int]]:
        """What there is more or less of than before."""
        return {name: (self.before[name], self.after[name]) for name in self.before if self.before[name] != self.after[name]}


def furnish(url: str, database: str, owner: str) -> None:
    """Make what a customer's database has. `url` is the superuser's, for that database."""
    names = {"schema": sql.Identifier("public"), "owner": sql.Identifier(owner), "database": sql.Identifier(database)}
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in THINGS:
            connection.execute(sql.SQL(statement).format(**names))


def last(resource_id: str, ports: Ports, url: str, count: int, told: Callable[[int], None] = lambda _done: None) -> Lasted:
    """Rotate the resource so many times. `url` is the superuser's, for the resource's database. Raises `BenchFailed` when one fails."""
    _retire_at_once(resource_id, ports)
    _let_it_be_of_long_ago(resource_id, ports)
    rotate_and_retire(resource_id, ports)  # what the first one changes, the adopted login's end above all, is not growth
    before, sizes_before = catalogs.kept(url), catalogs.sizes(url)
    seconds = []
    for number in range(count):
        _let_it_be_of_long_ago(resource_id, ports)
        seconds.append(rotate_and_retire(resource_id, ports))
        told(number + 1)
    return Lasted(seconds, before, catalogs.kept(url), sizes_before, catalogs.sizes(url))


def rotate_and_retire(resource_id: str, ports: Ports) -> float:
    """One rotation from its request to the proved end of the login that it replaced. Gives the seconds."""
    store = _store(ports)
    began = time.perf_counter()
    received = requests.trigger(resource_id, requests.Asked(Trigger.MANUAL, ACTOR), ports)
    rotation_id = str(received.rotation_id)
    driver.advance(lifecycle.STORY, rotation_id, ports)
    if (ended := store.views.rotation(rotation_id).rotation).state is not RotationState.COMPLETED:
        raise BenchFailed(f"{rotation_id} is {ended.state}: {ended.problem}")
    for credential_id in store.amend(resource_id, _replaced):
        _retire(credential_id, ports, store)
    return time.perf_counter() - began


def _replaced(case: ResourceCase) -> tuple[None, tuple[str, ...]]:
    """The old logins that are still alive. Nothing is written; and nothing is read that grows with every rotation."""
    return None, tuple(one.id for one in case.credentials if one.stage is not Stage.CURRENT)


def _retire(credential_id: str, ports: Ports, store: SqlStore) -> None:
    """Its grace ends a moment after the acknowledgement, by a clock that is never behind the store's."""
    until = time.monotonic() + PATIENCE
    while (left := store.views.credential(credential_id)).stage is not Stage.RETIRED:
        if time.monotonic() > until:
            raise BenchFailed(f"{credential_id} is {left.stage}: {left.problem}")
        driver.advance(retirement.STORY, credential_id, ports)


def _let_it_be_of_long_ago(resource_id: str, ports: Ports) -> None:
    """The current login: one that was made a moment ago is retired a little later, and what is measured is work, not waiting."""
    with _store(ports).database.writing() as connection:
        current = (credentials.c.resource_id == resource_id, credentials.c.stage == Stage.CURRENT.value)
        connection.execute(update(credentials).where(*current).values(current_at=LONG_AGO))


def _store(ports: Ports) -> SqlStore:
    if not isinstance(ports.store, SqlStore):
        raise BenchFailed("the store is not the one that is to be measured")
    return ports.store


def _retire_at_once(resource_id: str, ports: Ports) -> None:
    resource = ports.store.resource(resource_id)
    requests.revise(resource, replace(resource.spec, policy=AT_ONCE), ACTOR, ports)
