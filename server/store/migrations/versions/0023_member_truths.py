"""Members of snapshots, and what somebody vouches for, keep the truth that is more than a class."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0020"


def upgrade() -> None:
    """Add the columns; whatever was frozen so far has a class."""
    for table in ("snapshot_member", "gold"):
        op.add_column(table, sa.Column("truth", sa.JSON(none_as_null=True), nullable=True))
