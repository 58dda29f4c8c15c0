"""Which rows are of these thousand?

The values go as one list, whatever their number: a parameter to each takes longer to write than its row to find.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

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


class Listed(NamedTuple):
    """Rows that are given, to be joined or looked up by."""

    rows: sa.FromClause
    columns: Sequence[sa.ColumnElement[Any]]


def listed(connection: sa.Connection, columns: Sequence[sa.Column[Any]], rows: Sequence[Sequence[Any]]) -> Listed:
    """Some rows of these columns' types."""
    if connection.dialect.name == POSTGRESQL:
        each = zip(columns, zip(*rows, strict=True), strict=True)
        lists = (sa.bindparam(None, list(values), postgresql.ARRAY(column.type)) for column, values in each)
        given = sa.func.unnest(*lists).table_valued(*(column.name for column in columns), name="given").render_derived()
        return Listed(given, list(given.c))
    made = sa.func.json_each(sa.bindparam(None, json.dumps(rows), sa.Text)).table_valued("value", name="given")
    parts = (sa.func.json_extract(made.c.value, f"$[{place}]", type_=one.type) for place, one in enumerate(columns))
    return Listed(made, list(parts))
