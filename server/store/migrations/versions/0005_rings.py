"""Rollouts in rings: channels, pinned devices, commands, steps that name their ring and device."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add what is new, and write the plans of the two fixed rings as rings."""
    op.add_column("device", sa.Column("channel", sa.String(length=63), server_default="stable", nullable=False))
    op.add_column("device", sa.Column("ring", sa.String(length=63)))
    op.add_column("rollout", sa.Column("channel", sa.String(length=63), server_default="stable", nullable=False))
    for name, length in (("kind", 20), ("ring", 63), ("device", 63)):
        op.add_column("rollout_step", sa.Column(name, sa.String(length=length), server_default="", nullable=False))
    op.create_index("rollout_step_by_rollout", "rollout_step", ["rollout_id", "id"])
    op.create_table(
        "rollout_command",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("rollout_id", sa.Integer(), nullable=False),
        sa.Column("word", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("answered_at_ms", sa.BigInteger()),
        sa.Column("answer", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    connection = op.get_bind()
    table = sa.table("rollout", sa.column("id", sa.Integer()), sa.column("plan", sa.JSON()))
    for row in connection.execute(sa.select(table)).all():
        plan = _with_rings(row.plan)
        connection.execute(sa.update(table).where(table.c.id == row.id).values(plan=plan))


def _with_rings(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan as version 0001 wrote it: a canary ring that soaks, then everybody."""
    if "rings" in plan or "version" not in plan:
        return plan
    rules = {"max_failed_share": plan.pop("max_failed_share", 0.0), "timeout_s": plan.pop("timeout_s", 600.0)}
    unjudged = {"max_latency_ratio": 0.0, "max_confidence_drop": 1.0, "max_accuracy_drop": 1.0}
    canary = {"name": "canary", "rules": rules | unjudged | {"soak_s": plan.pop("soak_s", 10.0)}}
    devices, share = plan.pop("canary_devices", []), plan.pop("canary_share", 0.1)
    canary |= {"devices": devices} if devices else {"share": share}
    return plan | {"rings": [canary, {"name": "all", "rules": rules | unjudged | {"soak_s": 0.0}}]}
