"""Labels that are more than a class: boxes, several classes, numbers; and what models say of the kind."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Add the columns; whatever was labelled so far is a class."""
    for table, column in (("sample", "said"), ("label", "truth"), ("consensus", "truth")):
        op.add_column(table, sa.Column(column, sa.JSON(none_as_null=True), nullable=True))
