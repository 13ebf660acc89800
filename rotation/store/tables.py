"""The tables, the same on PostgreSQL and SQLite.

The partial unique indexes are the locks of the whole program: what may exist once, exists once, whatever any process believes. The
partial indexes of the due queries hold only rows that can become due, so that an idle tick costs the same for any number of resources.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

if TYPE_CHECKING:
    from sqlalchemy import Dialect

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

OPEN = "state IN ('planned', 'created', 'verified', 'offered')"
UNENDED = "state IN ('requested', 'planned', 'created', 'verified', 'offered')"
ALIVE = "stage IN ('pending', 'current', 'previous', 'blocked', 'discarding')"
ON_ITS_WAY = "state IN ('open', 'unknown')"
"""Conditions as constant text: a planner uses a partial index only for a condition that it can see, and a state that a newer version
of this program has added is in none of them."""

MICROSECOND = timedelta(microseconds=1)

metadata = MetaData(naming_convention=NAMING)


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time with microseconds, on both databases: SQLite knows no zone, PostgreSQL answers in the session's."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Only aware times are written. Raises `ValueError` for a naive one."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Always aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class Duration(TypeDecorator[timedelta]):
    """A duration as whole microseconds: the same number on both databases."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> int | None:
        """Microseconds."""
        del dialect
        return None if value is None else value // MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> timedelta | None:
        """The duration back."""
        del dialect
        return None if value is None else value * MICROSECOND


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, postgresql_where=text(where), sqlite_where=text(where))


def _claim_columns() -> tuple[Column[int], Column[datetime], Column[datetime]]:
    """Who holds a row: the fence grows with every claim; hinted is sent to a queue and not to be sent again for a while."""
    return (
        Column("fence", BigInteger, nullable=False),
        Column("claimed_until", UtcTime),
        Column("hinted_until", UtcTime),
    )


installations = Table(
    "installations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("sealed_token", LargeBinary),
    Column("parked_at", UtcTime),
    Column("parked_reason", Text, nullable=False),
    _partial("ix_installations_parked_at", "parked_at", where="parked_at IS NOT NULL"),
)

servers = Table(
    "servers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("engine", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("sslmode", Text, nullable=False),
    Column("sslrootcert", Text),
    Column("admin_url_file", Text),
    Column("admin_url_env", Text),
    Column("connections", Integer, nullable=False),
    # Until when its sessions need not be looked at again.
    Column("hinted_until", UtcTime),
    # When they were last, and since when without a gap.
    Column("sampled_at", UtcTime),
    Column("sampled_since", UtcTime),
    # Until when its logins need not be looked at again; when they were last, and how many of them had no row then.
    Column("looks_until", UtcTime),
    Column("looked_at", UtcTime),
    Column("orphans", Integer),
)

resources = Table(
    "resources",
    metadata,
    Column("id", Text, primary_key=True),
    Column("installation_id", Text, ForeignKey("installations.id"), nullable=False),
    Column("external_id", Text, nullable=False),
    Column("server", Text, ForeignKey("servers.name"), nullable=False),
    Column("engine", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("next_rotation_at", UtcTime),
    Column("schedule_reason", Text, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("completed_at", UtcTime),
    Column("registered_at", UtcTime, nullable=False),
    Column("held_because", Text),
    Column("held_over_pause", Boolean),
    # As its spec says: what the names of its logins begin with.
    Column("login_prefix", Text),
    Index("ix_resources_server", "server"),
    Index("ix_resources_login_prefix", "server", "login_prefix"),
    Index("ix_resources_external_id", "external_id"),
    _partial("uq_resources_here", "installation_id", "external_id", where="state <> 'gone'", unique=True),
    _partial("ix_resources_due", "next_rotation_at", where="state = 'active' AND next_rotation_at IS NOT NULL"),
    _partial("ix_resources_failing", "failures", where="failures > 0"),
    _partial("ix_resources_held", "state", where="state IN ('paused', 'leaving')"),
)

resource_revisions = Table(
    "resource_revisions",
    metadata,
    Column("resource_id", Text, ForeignKey("resources.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("spec", Text, nullable=False),
    Column("recorded_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("resource_id", "revision"),
)

credentials = Table(
    "credentials",
    metadata,
    Column("id", Text, primary_key=True),
    Column("resource_id", Text, ForeignKey("resources.id"), nullable=False),
    Column("server", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("username", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("sealed_password", LargeBinary),
    Column("sealed_verifier", LargeBinary),
    Column("recorded_at", UtcTime, nullable=False),
    Column("adopted", Boolean, nullable=False),
    Column("compromised", Boolean, nullable=False),
    Column("current_at", UtcTime),
    Column("previous_at", UtcTime),
    Column("grace_ends_at", UtcTime),
    Column("in_use", Text, nullable=False),
    Column("in_use_until", UtcTime),
    Column("quiet", Duration, nullable=False),
    Column("blocked_for", Duration, nullable=False),
    Column("unblock_until", UtcTime),
    Column("blocked_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("due_at", UtcTime),
    Column("tries", Integer, nullable=False),
    Column("problem", Text, nullable=False),
    Column("alarm", Text),
    Column("last_seen_at", UtcTime),
    Column("astray_at", UtcTime),
    Column("mending_until", UtcTime),
    Column("tried_at", UtcTime),
    Column("found_at", UtcTime),
    *_claim_columns(),
    UniqueConstraint("resource_id", "generation"),
    _partial("uq_credentials_login", "server", "username", where=ALIVE, unique=True),
    _partial("uq_credentials_current", "resource_id", where="stage = 'current'", unique=True),
    _partial("ix_credentials_alive", "resource_id", where=ALIVE),
    _partial("ix_credentials_due", "due_at", where=f"due_at IS NOT NULL AND {ALIVE}"),
    _partial("ix_credentials_alarm", "alarm", where="alarm IS NOT NULL"),
    _partial("ix_credentials_astray", "stage", where="astray_at IS NOT NULL"),
    _partial("ix_credentials_not_current", "stage", where="stage IN ('pending', 'previous', 'blocked', 'discarding')"),
)

rotations = Table(
    "rotations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("resource_id", Text, ForeignKey("resources.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("urgent", Boolean, nullable=False),
    Column("requested_at", UtcTime, nullable=False),
    # Checked at commit: a stale worker must lose its claim before anything of its plan is inserted.
    Column("credential_id", Text, ForeignKey("credentials.id", deferrable=True, initially="DEFERRED")),
    Column("planned_at", UtcTime),
    Column("created_at", UtcTime),
    Column("verified_at", UtcTime),
    Column("offered_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("due_at", UtcTime),
    Column("tries", Integer, nullable=False),
    Column("problem", Text, nullable=False),
    Column("advice", Text, nullable=False),
    Column("alarm", Text),
    Column("reserved_at", UtcTime),
    Column("missing_since", UtcTime),
    *_claim_columns(),
    Index("ix_rotations_resource_id_id", "resource_id", "id"),
    _partial("uq_rotations_open", "resource_id", where=OPEN, unique=True),
    _partial("uq_rotations_requested", "resource_id", where="state = 'requested'", unique=True),
    _partial("ix_rotations_due", "urgent", "due_at", where=f"due_at IS NOT NULL AND {UNENDED}"),
    _partial("ix_rotations_alarm", "alarm", where="alarm IS NOT NULL"),
)

requests = Table(
    "requests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("resource_id", Text, ForeignKey("resources.id"), nullable=False),
    Column("rotation_id", Text, ForeignKey("rotations.id"), nullable=False),
    Column("trigger", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("received_at", UtcTime, nullable=False),
    Column("reason", Text, nullable=False),
    Column("key", Text),
    Column("grace", Duration),
    Index("ix_requests_rotation_id", "rotation_id"),
    _partial("uq_requests_key", "resource_id", "key", where="key IS NOT NULL", unique=True),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("resource_id", Text, ForeignKey("resources.id"), nullable=False),
    Column("rotation_id", Text, ForeignKey("rotations.id"), nullable=False),
    Column("credential_id", Text, ForeignKey("credentials.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("opened_at", UtcTime, nullable=False),
    Column("send_before", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("clean", Boolean, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("answered_at", UtcTime),
    Column("status", Integer),
    Column("note", Text, nullable=False),
    UniqueConstraint("rotation_id", "number"),
    _partial("ix_attempts_on_its_way", "resource_id", "expires_at", where=ON_ITS_WAY),
)

events = Table(
    "events",
    metadata,
    Column("chain", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("rotation_id", Text),
    Column("credential_id", Text),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("chain", "number"),
    Index("ix_events_at_chain_number", "at", "chain", "number"),
    _partial("ix_events_rotation_id", "rotation_id", where="rotation_id IS NOT NULL"),
)

chains = Table(
    "chains",
    metadata,
    Column("id", Text, primary_key=True),
    Column("length", BigInteger, nullable=False),
    Column("head", LargeBinary, nullable=False),
    Column("sealed_length", BigInteger, nullable=False),
    Column("sealed_head", LargeBinary, nullable=False),
    _partial("ix_chains_unsealed", "id", where="length <> sealed_length"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
    Column("chains", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)

key_canaries = Table(
    "key_canaries",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("added_at", UtcTime, nullable=False),
)

sightings = Table(
    "sightings",
    metadata,
    Column("credential_id", Text, ForeignKey("credentials.id"), nullable=False),
    Column("client", Text, nullable=False),
    Column("application", Text, nullable=False),
    Column("sessions", Integer, nullable=False),
    Column("last_seen_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("credential_id", "client", "application"),
)

# What wants a person and has no row of its own: a server, Vercel. It falls by itself when nobody has raised it for a while.
alarms = Table(
    "alarms",
    metadata,
    Column("name", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("problem", Text, nullable=False),
    Column("raised_at", UtcTime, nullable=False),
    Column("told_at", UtcTime, nullable=False),
    Column("stands_until", UtcTime, nullable=False),
    PrimaryKeyConstraint("name", "subject"),
)
