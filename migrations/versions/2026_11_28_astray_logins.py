"""Logins that are not as their rows say: who looks for them, which they are, and why a resource is held."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261128"
down_revision = "20261123"
branch_labels = None
depends_on = None

ADDED = (
    ("servers", "looks_until", sa.DateTime(timezone=True)),
    ("servers", "looked_at", sa.DateTime(timezone=True)),
    ("servers", "orphans", sa.Integer()),
    ("resources", "held_because", sa.Text()),
    ("credentials", "astray_at", sa.DateTime(timezone=True)),
    ("credentials", "mending_until", sa.DateTime(timezone=True)),
    ("credentials", "tried_at", sa.DateTime(timezone=True)),
    ("credentials", "found_at", sa.DateTime(timezone=True)),
)


def upgrade() -> None:
    for table, name, kind in ADDED:
        op.add_column(table, sa.Column(name, kind, nullable=True))
    op.create_index(
        "ix_credentials_astray",
        "credentials",
        ["stage"],
        unique=False,
        postgresql_where=sa.text("astray_at IS NOT NULL"),
        sqlite_where=sa.text("astray_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_credentials_astray", "credentials")
    for table, name, _ in reversed(ADDED):
        op.drop_column(table, name)
