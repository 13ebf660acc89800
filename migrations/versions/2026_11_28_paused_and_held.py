"""Whether a person had paused a resource before we held it: until now the reason began with words that told so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261128paused"
down_revision = "20261128sampling"
branch_labels = None
depends_on = None

TOLD_BY = "it was paused before, and "


def upgrade() -> None:
    # Nullable, as the release before does not write it.
    op.add_column("resources", sa.Column("held_over_pause", sa.Boolean(), nullable=True))
    op.execute(f"UPDATE resources SET held_over_pause = (held_because LIKE '{TOLD_BY}%') WHERE held_because IS NOT NULL")  # noqa: S608 - a constant


def downgrade() -> None:
    op.drop_column("resources", "held_over_pause")
