"""Several answers to a sample, the class that they come to, and the queue of questions."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Label provenance, consensus, question, lease, gold, skill. What is in force stays so: the latest answer."""
    _add_provenance()
    op.create_table(
        "consensus",
        sa.Column("sample_id", sa.String(length=190), nullable=False),
        sa.Column("class_index", sa.Integer(), nullable=False),
        sa.Column("confidence", sa.Float()),
        sa.Column("labelers", sa.Integer(), nullable=False),
        sa.Column("labeler", sa.String(length=100), nullable=False),
        sa.Column("label_id", sa.Integer(), nullable=False),
        sa.Column("probability", sa.Float()),
        sa.Column("plan_ms", sa.BigInteger()),
        sa.Column("stands_for", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["sample.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sample_id"),
    )
    op.execute(
        "INSERT INTO consensus (sample_id, class_index, labelers, labeler, label_id, probability, plan_ms, stands_for)"
        " SELECT sample_id, class_index, 1, labeler, id, probability, plan_ms, stands_for FROM label"
        " WHERE id IN (SELECT max(id) FROM label GROUP BY sample_id)"
    )
    op.create_index("consensus_by_label", "consensus", ["label_id"])
    op.create_index("consensus_by_labelers", "consensus", ["labelers", "label_id"])
    _make_queue()


def _add_provenance() -> None:
    for column in (
        sa.Column("kind", sa.String(length=100), nullable=False, server_default=""),
        sa.Column("price", sa.Float(), nullable=False, server_default="0"),
        sa.Column("purpose", sa.String(length=20), nullable=False, server_default="first"),
        sa.Column("guess", sa.Integer()),
        sa.Column("guess_by", sa.String(length=100), nullable=False, server_default=""),
        sa.Column("shown", sa.Boolean(), nullable=False, server_default="0"),
        sa.Column("key", sa.String(length=200)),
        sa.Column("undone_at_ms", sa.BigInteger()),
    ):
        op.add_column("label", column)
    op.execute("UPDATE label SET kind = labeler")
    op.create_index("label_by_labeler", "label", ["labeler", "sample_id", "id"])
    op.create_index("label_by_kind", "label", ["kind", "at_ms"])
    op.create_index("label_by_key", "label", ["key"], unique=True)


def _make_queue() -> None:
    op.create_table(
        "question",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("sample_id", sa.String(length=190), nullable=False),
        sa.Column("purpose", sa.String(length=20), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("probability", sa.Float()),
        sa.Column("plan_ms", sa.BigInteger()),
        sa.Column("beside", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["sample.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("question_by_sample", "question", ["sample_id"], unique=True)
    op.create_index("question_by_turn", "question", ["turn", "id"])
    op.create_table(
        "lease",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("sample_id", sa.String(length=190), nullable=False),
        sa.Column("labeler", sa.String(length=100), nullable=False),
        sa.Column("purpose", sa.String(length=20), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.Column("guess", sa.Integer()),
        sa.Column("guess_by", sa.String(length=100), nullable=False),
        sa.Column("confidence", sa.Float()),
        sa.Column("shown", sa.Boolean(), nullable=False),
        sa.Column("skipped", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["sample.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("lease_by_sample", "lease", ["sample_id", "labeler"], unique=True)
    op.create_index("lease_by_labeler", "lease", ["labeler", "until_ms"])
    op.create_table(
        "gold",
        sa.Column("sample_id", sa.String(length=190), nullable=False),
        sa.Column("class_index", sa.Integer(), nullable=False),
        sa.Column("labeler", sa.String(length=100), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["sample.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sample_id"),
    )
    op.create_table(
        "skill",
        sa.Column("labeler", sa.String(length=100), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("label_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("labeler"),
    )
