"""How trainings went, and what lists show of rollouts."""

from collections import Counter

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Make a table and a column, and fill the column."""
    op.create_table(
        "curve",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("loss", sa.Float(), nullable=True),
        sa.Column("held_loss", sa.Float(), nullable=True),
        sa.Column("held_accuracy", sa.Float(), nullable=True),
        sa.Column("learning_rate", sa.Float(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("curve_by_run", "curve", ["run_id", "epoch"])
    op.add_column("rollout", sa.Column("brief", sa.JSON(), server_default="{}", nullable=False))
    rollout = sa.table("rollout", sa.column("id"), sa.column("state", sa.JSON()), sa.column("brief", sa.JSON()))
    connection = op.get_bind()
    for (number,) in connection.execute(
        sa.select(rollout.c.id)
    ).all():  # one at a time: a state may have 10,000 devices
        state = connection.execute(sa.select(rollout.c.state).where(rollout.c.id == number)).scalar_one()
        members = Counter(member.get("phase", "") for member in state.get("members", {}).values())
        brief = {"ring": state.get("ring"), "members": dict(members), "paused": bool(state.get("paused"))}
        brief |= {"asks": state.get("asks"), "reason": state.get("reason", "")}
        connection.execute(sa.update(rollout).where(rollout.c.id == number).values(brief=brief))
