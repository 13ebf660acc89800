"""The first tables, with the audit chain of everything that is not about one resource."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261123"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    chains = op.create_table(
        "chains",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_length", sa.BigInteger(), nullable=False),
        sa.Column("sealed_head", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chains")),
    )
    op.create_index(
        "ix_chains_unsealed",
        "chains",
        ["id"],
        unique=False,
        postgresql_where=sa.text("length <> sealed_length"),
        sqlite_where=sa.text("length <> sealed_length"),
    )

    op.create_table(
        "checkpoints",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("chains", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_checkpoints")),
    )
    op.create_table(
        "events",
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("rotation_id", sa.Text(), nullable=True),
        sa.Column("credential_id", sa.Text(), nullable=True),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain", "number", name=op.f("pk_events")),
    )
    op.create_index("ix_events_at_chain_number", "events", ["at", "chain", "number"], unique=False)
    op.create_index(
        "ix_events_rotation_id",
        "events",
        ["rotation_id"],
        unique=False,
        postgresql_where=sa.text("rotation_id IS NOT NULL"),
        sqlite_where=sa.text("rotation_id IS NOT NULL"),
    )

    op.create_table(
        "key_canaries",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_key_canaries")),
    )
    op.create_table(
        "installations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("sealed_token", sa.LargeBinary(), nullable=True),
        sa.Column("parked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("parked_reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installations")),
    )
    op.create_index(
        "ix_installations_parked_at",
        "installations",
        ["parked_at"],
        unique=False,
        postgresql_where=sa.text("parked_at IS NOT NULL"),
        sqlite_where=sa.text("parked_at IS NOT NULL"),
    )

    op.create_table(
        "servers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("sslmode", sa.Text(), nullable=False),
        sa.Column("sslrootcert", sa.Text(), nullable=True),
        sa.Column("admin_url_file", sa.Text(), nullable=True),
        sa.Column("admin_url_env", sa.Text(), nullable=True),
        sa.Column("connections", sa.Integer(), nullable=False),
        sa.Column("hinted_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_servers")),
    )
    op.create_table(
        "resources",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("installation_id", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("next_rotation_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("schedule_reason", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["installation_id"], ["installations.id"], name=op.f("fk_resources_installation_id")),
        sa.ForeignKeyConstraint(["server"], ["servers.name"], name=op.f("fk_resources_server")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resources")),
    )
    op.create_index(
        "ix_resources_due",
        "resources",
        ["next_rotation_at"],
        unique=False,
        postgresql_where=sa.text("state = 'active' AND next_rotation_at IS NOT NULL"),
        sqlite_where=sa.text("state = 'active' AND next_rotation_at IS NOT NULL"),
    )
    op.create_index("ix_resources_external_id", "resources", ["external_id"], unique=False)
    op.create_index(
        "ix_resources_failing",
        "resources",
        ["failures"],
        unique=False,
        postgresql_where=sa.text("failures > 0"),
        sqlite_where=sa.text("failures > 0"),
    )
    op.create_index(
        "ix_resources_held",
        "resources",
        ["state"],
        unique=False,
        postgresql_where=sa.text("state IN ('paused', 'leaving')"),
        sqlite_where=sa.text("state IN ('paused', 'leaving')"),
    )
    op.create_index("ix_resources_server", "resources", ["server"], unique=False)
    op.create_index(
        "uq_resources_here",
        "resources",
        ["installation_id", "external_id"],
        unique=True,
        postgresql_where=sa.text("state <> 'gone'"),
        sqlite_where=sa.text("state <> 'gone'"),
    )

    op.create_table(
        "credentials",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=False),
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("sealed_password", sa.LargeBinary(), nullable=True),
        sa.Column("sealed_verifier", sa.LargeBinary(), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("adopted", sa.Boolean(), nullable=False),
        sa.Column("compromised", sa.Boolean(), nullable=False),
        sa.Column("current_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("previous_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("grace_ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("in_use", sa.Text(), nullable=False),
        sa.Column("in_use_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("quiet", sa.BigInteger(), nullable=False),
        sa.Column("blocked_for", sa.BigInteger(), nullable=False),
        sa.Column("unblock_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("blocked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hinted_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["resource_id"], ["resources.id"], name=op.f("fk_credentials_resource_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credentials")),
        sa.UniqueConstraint("resource_id", "generation", name=op.f("uq_credentials_resource_id_generation")),
    )
    op.create_index(
        "ix_credentials_alive",
        "credentials",
        ["resource_id"],
        unique=False,
        postgresql_where=sa.text("stage IN ('pending', 'current', 'previous', 'blocked', 'discarding')"),
        sqlite_where=sa.text("stage IN ('pending', 'current', 'previous', 'blocked', 'discarding')"),
    )
    op.create_index(
        "ix_credentials_due",
        "credentials",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL AND stage IN ('pending', 'current', 'previous', 'blocked', 'discarding')"),
        sqlite_where=sa.text("due_at IS NOT NULL AND stage IN ('pending', 'current', 'previous', 'blocked', 'discarding')"),
    )
    op.create_index(
        "ix_credentials_not_current",
        "credentials",
        ["stage"],
        unique=False,
        postgresql_where=sa.text("stage IN ('pending', 'previous', 'blocked', 'discarding')"),
        sqlite_where=sa.text("stage IN ('pending', 'previous', 'blocked', 'discarding')"),
    )
    op.create_index(
        "uq_credentials_current",
        "credentials",
        ["resource_id"],
        unique=True,
        postgresql_where=sa.text("stage = 'current'"),
        sqlite_where=sa.text("stage = 'current'"),
    )
    op.create_index(
        "uq_credentials_login",
        "credentials",
        ["server", "username"],
        unique=True,
        postgresql_where=sa.text("stage IN ('pending', 'current', 'previous', 'blocked', 'discarding')"),
        sqlite_where=sa.text("stage IN ('pending', 'current', 'previous', 'blocked', 'discarding')"),
    )

    op.create_table(
        "resource_revisions",
        sa.Column("resource_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["resource_id"], ["resources.id"], name=op.f("fk_resource_revisions_resource_id")),
        sa.PrimaryKeyConstraint("resource_id", "revision", name=op.f("pk_resource_revisions")),
    )
    op.create_table(
        "rotations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("urgent", sa.Boolean(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("credential_id", sa.Text(), nullable=True),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("offered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("advice", sa.Text(), nullable=False),
        sa.Column("reserved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hinted_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["credential_id"], ["credentials.id"], name=op.f("fk_rotations_credential_id"), initially="DEFERRED", deferrable=True
        ),
        sa.ForeignKeyConstraint(["resource_id"], ["resources.id"], name=op.f("fk_rotations_resource_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rotations")),
    )
    op.create_index(
        "ix_rotations_due",
        "rotations",
        ["urgent", "due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL AND state IN ('requested', 'planned', 'created', 'verified', 'offered')"),
        sqlite_where=sa.text("due_at IS NOT NULL AND state IN ('requested', 'planned', 'created', 'verified', 'offered')"),
    )
    op.create_index("ix_rotations_resource_id_id", "rotations", ["resource_id", "id"], unique=False)
    op.create_index(
        "uq_rotations_open",
        "rotations",
        ["resource_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('planned', 'created', 'verified', 'offered')"),
        sqlite_where=sa.text("state IN ('planned', 'created', 'verified', 'offered')"),
    )
    op.create_index(
        "uq_rotations_requested",
        "rotations",
        ["resource_id"],
        unique=True,
        postgresql_where=sa.text("state = 'requested'"),
        sqlite_where=sa.text("state = 'requested'"),
    )

    op.create_table(
        "sightings",
        sa.Column("credential_id", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("sessions", sa.Integer(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["credential_id"], ["credentials.id"], name=op.f("fk_sightings_credential_id")),
        sa.PrimaryKeyConstraint("credential_id", "client", "application", name=op.f("pk_sightings")),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=False),
        sa.Column("rotation_id", sa.Text(), nullable=False),
        sa.Column("credential_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("send_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("clean", sa.Boolean(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["credential_id"], ["credentials.id"], name=op.f("fk_attempts_credential_id")),
        sa.ForeignKeyConstraint(["resource_id"], ["resources.id"], name=op.f("fk_attempts_resource_id")),
        sa.ForeignKeyConstraint(["rotation_id"], ["rotations.id"], name=op.f("fk_attempts_rotation_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("rotation_id", "number", name=op.f("uq_attempts_rotation_id_number")),
    )
    op.create_index(
        "ix_attempts_on_its_way",
        "attempts",
        ["resource_id", "expires_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('open', 'unknown')"),
        sqlite_where=sa.text("state IN ('open', 'unknown')"),
    )

    op.create_table(
        "requests",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=False),
        sa.Column("rotation_id", sa.Text(), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("grace", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["resource_id"], ["resources.id"], name=op.f("fk_requests_resource_id")),
        sa.ForeignKeyConstraint(["rotation_id"], ["rotations.id"], name=op.f("fk_requests_rotation_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
    )
    op.create_index("ix_requests_rotation_id", "requests", ["rotation_id"], unique=False)
    op.create_index(
        "uq_requests_key",
        "requests",
        ["resource_id", "key"],
        unique=True,
        postgresql_where=sa.text("key IS NOT NULL"),
        sqlite_where=sa.text("key IS NOT NULL"),
    )
    nothing = bytes(32)
    begin = {"id": "installations", "length": 0, "head": nothing, "sealed_length": 0, "sealed_head": nothing}
    op.bulk_insert(chains, [begin])


def downgrade() -> None:
    op.drop_table("requests")
    op.drop_table("attempts")
    op.drop_table("sightings")
    op.drop_table("rotations")
    op.drop_table("resource_revisions")
    op.drop_table("credentials")
    op.drop_table("resources")
    op.drop_table("servers")
    op.drop_table("installations")
    op.drop_table("key_canaries")
    op.drop_table("events")
    op.drop_table("checkpoints")
    op.drop_table("chains")
