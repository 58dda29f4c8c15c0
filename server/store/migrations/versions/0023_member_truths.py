"""Members of snapshots keep the truth that is more than a class."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0020"


def upgrade() -> None:
    """Add the column; whatever was frozen so far has a class."""
    op.add_column("snapshot_member", sa.Column("truth", sa.JSON(none_as_null=True), nullable=True))
