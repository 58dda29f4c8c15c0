"""What operators told devices."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0016"


def upgrade() -> None:
    """Make its table."""
    op.create_table(
        "device_order",
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("word", sa.String(length=10), nullable=False),
        sa.Column("said", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("device", "word"),
    )
    op.create_index("device_order_by_revision", "device_order", ["revision"])
