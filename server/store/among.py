"""Which rows are of these thousand?

The values go as one list, whatever their number: a parameter to each takes longer to write than its row to find.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from server.config import POSTGRESQL


def among(connection: sa.Connection, column: sa.Column[Any], values: Iterable[str | int]) -> sa.ColumnElement[bool]:
    """Whether a column has one of these values, each of which is looked up in its index."""
    found = list(values)
    if connection.dialect.name == POSTGRESQL:
        return column == sa.any_(sa.bindparam(None, found, postgresql.ARRAY(column.type)))
    listed = sa.func.json_each(sa.bindparam(None, json.dumps(found), sa.Text)).table_valued("value")
    return column.in_(sa.select(listed.c.value))
