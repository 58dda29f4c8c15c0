"""Row ids of 64 bits in PostgreSQL, whose INTEGER has 32; SQLite's integers are all as wide."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"

COUNTED = (
    "delivery", "revocation", "stretch", "quarantine", "event", "label", "question", "lease", "data_rule", "run",
    "curve", "rollout", "rollout_step", "rollout_command", "request", "erasure", "training_order", "api_token", "chore",
)  # fmt: skip
NAMING = (
    ("trail", "id"),
    ("portfolio", "run_id"),
    ("curve", "run_id"),
    ("version", "run_id"),
    ("training_order", "run_id"),
    ("consensus", "label_id"),
    ("skill", "label_id"),
    ("rollout_step", "rollout_id"),
    ("rollout_command", "rollout_id"),
    ("tombstone", "erasure_id"),
    ("erased_member", "erasure_id"),
    ("erased_device", "erasure_id"),
    ("purge_order", "erasure_id"),
)


def upgrade() -> None:
    """Widen the ids, what counts them, and what names one."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in COUNTED:
        op.alter_column(table, "id", type_=sa.BigInteger())
        op.execute(f"ALTER SEQUENCE {table}_id_seq AS bigint")
    for table, column in NAMING:
        op.alter_column(table, column, type_=sa.BigInteger())
