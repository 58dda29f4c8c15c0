"""What may be done with samples, what they look like, and what a snapshot left out."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the tables, and room for what snapshots say."""
    op.add_column("sample", sa.Column("transforms", sa.JSON(), nullable=True))
    op.add_column("snapshot", sa.Column("format", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("snapshot", sa.Column("rules", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("snapshot_member", sa.Column("labeler", sa.String(length=100), nullable=False, server_default=""))
    op.add_column("snapshot_member", sa.Column("rule", sa.Integer(), nullable=True))
    op.create_table(
        "snapshot_left_out",
        sa.Column("snapshot_id", sa.String(length=64), nullable=False),
        sa.Column("sample_id", sa.String(length=190), nullable=False),
        sa.Column("why", sa.String(length=20), nullable=False),
        sa.Column("beside", sa.String(length=190), nullable=False),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshot.id"]),
        sa.ForeignKeyConstraint(["sample_id"], ["sample.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("snapshot_id", "sample_id"),
    )
    op.create_table(
        "fingerprint",
        sa.Column("sample_id", sa.String(length=190), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("bits", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["sample.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sample_id"),
    )
    op.create_table(
        "data_rule",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("stream", sa.String(length=63), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("licence", sa.String(length=200), nullable=False),
        sa.Column("consent", sa.String(length=20), nullable=False),
        sa.Column("region", sa.String(length=100), nullable=False),
        sa.Column("retention", sa.String(length=63), nullable=False),
        sa.Column("retention_days", sa.Integer(), nullable=False),
        sa.Column("uses", sa.JSON(), nullable=False),
        sa.Column("ended", sa.Boolean(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("data_rule_by_scope", "data_rule", ["device", "stream", "id"])
