"""Fleets of any size for the tick: rows put into a store by SQL, since registering a million resources would take hours."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg

from rotation.model import Database, Policy, ResourceSpec, SecretTemplate
from rotation.store.specs import spec_to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

INSTALLATION = "icfg_fleet"
SERVER = "fleet"

ONCE: tuple[LiteralString, ...] = (
    "INSERT INTO installations (id, parked_reason) VALUES ('icfg_fleet', '')",
    """INSERT INTO servers (name, engine, host, port, sslmode, connections, hinted_until)
       VALUES ('fleet', 'postgresql', '127.0.0.1', 1, 'disable', 1, now() + interval '100 years')""",
)
GROWN: tuple[LiteralString, ...] = (
    """INSERT INTO resources (id, installation_id, external_id, server, engine, state, revision, next_rotation_at, schedule_reason,
                              failures, registered_at)
       SELECT 'res_' || n, 'icfg_fleet', 'store_' || n, 'fleet', 'postgresql', 'active', 1, now() + interval '1 day' + n * interval '1 s',
              '', 0, now() FROM generate_series(%(first)s::int, %(last)s) AS n""",
    """INSERT INTO resource_revisions (resource_id, revision, spec, recorded_at)
       SELECT 'res_' || n, 1, %(spec)s, now() FROM generate_series(%(first)s::int, %(last)s) AS n""",
    """INSERT INTO credentials (id, resource_id, server, generation, username, stage, recorded_at, adopted, compromised, current_at, in_use,
                                quiet, blocked_for, tries, problem, fence)
       SELECT 'cred_' || n, 'res_' || n, 'fleet', 1, 'login_' || n, 'current', now(), false, false, now(), 'wait', 0, 0, 0, '', 0
         FROM generate_series(%(first)s::int, %(last)s) AS n""",
    """INSERT INTO chains (id, length, head, sealed_length, sealed_head)
       SELECT 'res_' || n, 0, '\\x00', 0, '\\x00' FROM generate_series(%(first)s::int, %(last)s) AS n""",
)
DUE: LiteralString = (
    "UPDATE resources SET next_rotation_at = now() - interval '1 s' WHERE id = ANY(SELECT 'res_' || generate_series(1, %(count)s::int))"
)
NOT_DUE: tuple[LiteralString, ...] = (
    "DELETE FROM requests",
    "DELETE FROM rotations",
    "UPDATE resources SET next_rotation_at = now() + interval '1 day' WHERE next_rotation_at IS NULL OR next_rotation_at <= now()",
)


class FleetRows:
    """A store with as many resources as are wanted, none of them due."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._size = 0
        for statement in ONCE:
            self._connection.execute(statement)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def grow(self, size: int) -> None:
        """Make it this large. A million rows take a minute or so."""
        rows: Mapping[str, object] = {"first": self._size + 1, "last": size, "spec": _spec()}
        with self._connection.transaction():
            # Made up as a whole: references hold, and need no proof row by row.
            self._connection.execute("SET LOCAL session_replication_role = replica")
            for statement in GROWN:
                self._connection.execute(statement, rows)
        self._size = size
        # As the server's own autovacuum would do it a little later.
        self._connection.execute("VACUUM ANALYZE")

    def make_due(self, count: int) -> None:
        """The dates of so many have come."""
        self._connection.execute(DUE, {"count": count})

    def settle(self) -> None:
        """Nothing is due or asked for."""
        for statement in NOT_DUE:
            self._connection.execute(statement)


def _spec() -> str:
    """The same for all: a tick reads only when they are due."""
    return spec_to_json(
        ResourceSpec(
            installation_id=INSTALLATION,
            external_id="store",
            product="postgres",
            engine="postgresql",
            owns_all_secrets=True,
            database=Database(SERVER, "shop", "shop_owner", "shop"),
            secrets=(SecretTemplate("DATABASE_URL", "postgresql://{username}:{password}@{host}:{port}/{database}"),),
            policy=Policy(),
        )
    )
