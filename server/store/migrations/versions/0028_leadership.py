"""Who alone may act."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Make a table with a row for each seat, which nobody holds."""
    made = op.create_table(
        "leadership",
        sa.Column("name", sa.String(20), nullable=False),
        sa.Column("holder", sa.String(200), nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    free = {"holder": "", "term": 0, "since_ms": 0, "until_ms": 0}
    op.bulk_insert(made, [{"name": name, **free} for name in ("schedule", "train")])
