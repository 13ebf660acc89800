"""What the names of a resource's logins begin with, on its row: to find whose a login is without reading every resource."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261128prefixes"
down_revision = "20261128alarms"
branch_labels = None
depends_on = None

OF_SPEC = {
    "postgresql": "CAST(r.spec AS json) -> 'database' ->> 'login_prefix'",
    "sqlite": "json_extract(r.spec, '$.database.login_prefix')",
}


def upgrade() -> None:
    # Nullable, as the release before does not write it.
    op.add_column("resources", sa.Column("login_prefix", sa.Text(), nullable=True))
    prefix = OF_SPEC[op.get_context().dialect.name]
    op.execute(
        f"UPDATE resources SET login_prefix = (SELECT {prefix} FROM resource_revisions AS r "  # noqa: S608 - constants
        "WHERE r.resource_id = resources.id AND r.revision = resources.revision)"
    )
    op.create_index("ix_resources_login_prefix", "resources", ["server", "login_prefix"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_resources_login_prefix", "resources")
    op.drop_column("resources", "login_prefix")
