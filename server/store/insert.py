"""How are rows added that may be there already?

By `INSERT ... ON CONFLICT`, which SQLite took over from PostgreSQL word for word (sqlite.org/lang_upsert.html). To
SQLAlchemy they are two statements with the same methods, `on_conflict_do_nothing` and `on_conflict_do_update`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from server.config import POSTGRESQL


def insert(connection: sa.Connection, table: sa.Table) -> Any:
    """The statement of whatever `connection` leads to."""
    return (postgresql if connection.dialect.name == POSTGRESQL else sqlite).insert(table)


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> set[Any]:
    """Add those whose key is not there yet; returns these keys. `rows` have the same columns; one is the key.

    To PostgreSQL they go as a list to each column: of one parameter to each value, psycopg takes longer to write the
    statement than all else does.
    """
    (key,) = table.primary_key.columns
    statement = insert(connection, table)
    if not rows:
        return set()
    if connection.dialect.name != POSTGRESQL:
        added = statement.on_conflict_do_nothing(index_elements=[key]).returning(key)
        return set(connection.execute(added, list(rows)).scalars())
    names = list(rows[0])
    kinds = (postgresql.ARRAY(table.c[name].type, dimensions=1) for name in names)
    lists = (sa.bindparam(name, [row[name] for row in rows], kind) for name, kind in zip(names, kinds, strict=True))
    given = sa.func.unnest(*lists).table_valued(*names, name="given").render_derived()
    added = statement.from_select(names, sa.select(*given.c), include_defaults=False)
    return set(connection.execute(added.on_conflict_do_nothing(index_elements=[key]).returning(key)).scalars())
