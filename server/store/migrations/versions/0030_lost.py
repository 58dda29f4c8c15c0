"""When the broker lost a device, so that what was heard before and is written later does not bring it back."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    """A column."""
    op.add_column("device", sa.Column("lost_ms", sa.BigInteger(), server_default="0", nullable=False))
