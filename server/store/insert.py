"""How is a row added that may be there already?

By `INSERT ... ON CONFLICT`, which SQLite took over from PostgreSQL word for word (sqlite.org/lang_upsert.html). To
SQLAlchemy they are two statements with the same methods, `on_conflict_do_nothing` and `on_conflict_do_update`.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from server.config import POSTGRESQL


def insert(connection: sa.Connection, table: sa.Table) -> Any:
    """The statement of whatever `connection` leads to."""
    return (postgresql if connection.dialect.name == POSTGRESQL else sqlite).insert(table)
