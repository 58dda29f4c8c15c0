"""Messages that were left for want of room, by device."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Count them from now on."""
    op.add_column("device", sa.Column("throttled", sa.BigInteger(), nullable=False, server_default="0"))
