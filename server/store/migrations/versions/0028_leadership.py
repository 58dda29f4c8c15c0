"""Who alone may act; and what web servers must share, so that there may be several."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Make a table with a row for each seat, which nobody holds, and one with a key."""
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
    key = op.create_table(
        "csrf_key",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.bulk_insert(key, [{"id": 1, "key": secrets.token_bytes(32)}])
