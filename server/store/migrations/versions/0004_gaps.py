"""Samples that devices kept and that will never come."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make their table."""
    op.create_table(
        "gap",
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("until_boot", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("since_boot", sa.BigInteger(), nullable=False),
        sa.Column("put_total", sa.BigInteger(), nullable=False),
        sa.Column("evicted", sa.BigInteger(), nullable=False),
        sa.Column("noticed_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device", "until_boot"),
    )
