"""Whole numbers of 64 bits in PostgreSQL, whose INTEGER has 32; SQLite's integers are all as wide."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Widen every column that there is, and what counts row ids."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    tables = sa.MetaData()
    tables.reflect(connection)
    for table in tables.sorted_tables:
        for column in table.c:
            if type(column.type) is sa.INTEGER:
                op.alter_column(table.name, column.name, type_=sa.BigInteger())
        if table.autoincrement_column is not None and "id" in table.c:
            op.execute(f"ALTER SEQUENCE IF EXISTS {table.name}_id_seq AS bigint")
