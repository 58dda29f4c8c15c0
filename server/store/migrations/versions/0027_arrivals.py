"""Births that nobody has answered yet: whoever takes them in may be another process than who answers."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0025"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "arrival",
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("session", sa.String(length=64), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device", "session"),
    )
