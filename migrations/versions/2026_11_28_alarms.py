"""What wants a person stands in the store: of each row, and of what has no row of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261128alarms"
down_revision = "20261128"
branch_labels = None
depends_on = None

TABLES = ("rotations", "credentials")


def upgrade() -> None:
    op.create_table(
        "alarms",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stands_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", "subject", name=op.f("pk_alarms")),
    )
    for table in TABLES:
        # Nullable, as the release before does not write it.
        op.add_column(table, sa.Column("alarm", sa.Text(), nullable=True))
        op.create_index(
            f"ix_{table}_alarm",
            table,
            ["alarm"],
            unique=False,
            postgresql_where=sa.text("alarm IS NOT NULL"),
            sqlite_where=sa.text("alarm IS NOT NULL"),
        )


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_index(f"ix_{table}_alarm", table)
        op.drop_column(table, "alarm")
    op.drop_table("alarms")
