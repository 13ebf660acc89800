"""Since when the sessions of each server have been looked at without a gap."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261128sampling"
down_revision = "20261128prefixes"
branch_labels = None
depends_on = None

ADDED = ("sampled_at", "sampled_since")


def upgrade() -> None:
    for name in ADDED:
        # Nullable, as the release before does not write it.
        op.add_column("servers", sa.Column(name, sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for name in reversed(ADDED):
        op.drop_column("servers", name)
