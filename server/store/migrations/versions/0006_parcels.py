"""Smaller forms in which a model file may travel."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make their table."""
    op.create_table(
        "parcel",
        sa.Column("file_sha256", sa.String(length=64), nullable=False),
        sa.Column("packing", sa.String(length=20), nullable=False),
        sa.Column("base_sha256", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("file_sha256", "packing", "base_sha256"),
    )
