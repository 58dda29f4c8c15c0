"""Looking through samples in any order, the map of embeddings, and what is asked for on pages and takes a while."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

INDEXES = {
    "sample": {
        "sample_by_arrival": ["received_at_ms", "id"],
        "sample_by_device_arrival": ["device", "received_at_ms", "id"],
        "sample_by_predicted": ["predicted", "received_at_ms", "id"],
        "sample_by_reason": ["reason", "received_at_ms", "id"],
        "sample_by_version": ["model_version", "received_at_ms", "id"],
    },
    "consensus": {
        "consensus_by_class": ["class_index", "label_id"],
        "consensus_by_labeler": ["labeler", "label_id"],
    },
}


def upgrade() -> None:
    """Make them."""
    op.drop_index("sample_by_arrival", table_name="sample")
    for table, indexes in INDEXES.items():
        for name, columns in indexes.items():
            op.create_index(name, table, columns)
    op.create_table(
        "place",
        sa.Column("sample_id", sa.String(length=190), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("x", sa.Float(), nullable=False),
        sa.Column("y", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["sample.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sample_id"),
    )
    op.create_table(
        "chore",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("order", sa.JSON(), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("chore_by_state", "chore", ["state", "id"])
