"""When did a device last say what it runs? Any message is a sign of life, few are a word on the model."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the time; for devices that are known, the nearest that is known."""
    op.add_column("device", sa.Column("said_ms", sa.BigInteger(), server_default="0", nullable=False))
    op.execute("UPDATE device SET said_ms = last_seen_ms")
