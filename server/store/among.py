"""Which rows are of these thousand?

The values go as one list, whatever their number: a parameter to each takes longer to write than its row to find. What
is asked for every group of messages is compiled once, and its rows are as the driver gives them: SQLAlchemy takes as
long to make a question and to read its rows as some dozens of rows take to be found.

In a file each value is looked up in an index, whatever was counted of the table: counted when it had ten rows, SQLite
would read all of its ten thousand for every group.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from server.config import POSTGRESQL
from server.store.many import Compiled, compiled

_GIVEN = "given"


def among(connection: sa.Connection, column: sa.Column[Any], values: Iterable[str | int]) -> sa.ColumnElement[bool]:
    """Whether a column has one of these values."""
    found = _as_list(connection, list(values))
    if connection.dialect.name == POSTGRESQL:
        return column == sa.any_(sa.bindparam(None, found, _list_of(column)))
    each = sa.func.json_each(sa.bindparam(None, found, sa.Text)).table_valued("value")
    return column.in_(sa.select(each.c.value))


def looked_up(connection: sa.Connection, query: sa.Select[Any], column: sa.Column[Any]) -> sa.Select[Any]:
    """For a `Question`: of its query's table the rows where an indexed column has one of the given values."""
    if connection.dialect.name == POSTGRESQL:
        return query.where(column == sa.any_(sa.bindparam(_GIVEN, None, _list_of(column))))
    each = sa.func.json_each(sa.bindparam(_GIVEN, None, sa.Text)).table_valued("value", name="given")
    return query.select_from(Lookup(each, column.table, column == each.c.value))


class Lookup(sa.Join):
    """A join for each of whose left rows its right ones are looked up."""

    inherit_cache = True


@compiles(Lookup, "sqlite")
def _as_cross_join(join: Lookup, compiler: SQLCompiler, *, asfrom: bool = False, **options: Any) -> str:  # noqa: ARG001
    """By this word alone SQLite takes the order of the tables from the statement (sqlite.org/optoverview.html, 6.2)."""
    left, right = (compiler.process(side, asfrom=True, **options) for side in (join.left, join.right))
    on: Any = join.onclause
    return f"{left} CROSS JOIN {right} ON {compiler.process(on, **options)}"


class Listed(NamedTuple):
    """Rows that are given, to be joined or looked up by."""

    rows: sa.FromClause
    columns: Sequence[sa.ColumnElement[Any]]


def listed(connection: sa.Connection, columns: Sequence[sa.Column[Any]]) -> Listed:
    """The rows of a `Question`, of these columns' types."""
    if connection.dialect.name == POSTGRESQL:
        lists = (sa.bindparam(f"{_GIVEN}_{place}", None, _list_of(one)) for place, one in enumerate(columns))
        given = sa.func.unnest(*lists).table_valued(*(one.name for one in columns), name="given").render_derived()
        return Listed(given, list(given.c))
    made = sa.func.json_each(sa.bindparam(_GIVEN, None, sa.Text)).table_valued("value", name="given")
    parts = (sa.func.json_extract(made.c.value, f"$[{place}]", type_=one.type) for place, one in enumerate(columns))
    return Listed(made, list(parts))


class Question:
    """What is asked again and again, mostly of many values."""

    def __init__(self, make: Callable[[sa.Connection], sa.Select[Any]]) -> None:
        """make: the question for whatever a connection leads to, asked once for each kind of it; JSON cast to text."""
        self._make = make
        self._compiled: dict[str, Compiled] = {}

    def ask(self, connection: sa.Connection, values: Sequence[str | int] = (), **more: object) -> Sequence[Any]:
        """Its rows. values: of its `looked_up`; more: its other parameters."""
        return self._ask(connection, {_GIVEN: _as_list(connection, values)} | more)

    def ask_of(self, connection: sa.Connection, rows: Sequence[Sequence[str | int]]) -> Sequence[Any]:
        """Its rows, where it has `listed`; of one row at least."""
        if connection.dialect.name != POSTGRESQL:
            return self._ask(connection, {_GIVEN: json.dumps(rows)})
        columns = zip(*rows, strict=True)
        return self._ask(connection, {f"{_GIVEN}_{place}": list(values) for place, values in enumerate(columns)})

    def _ask(self, connection: sa.Connection, given: Mapping[str, object]) -> Sequence[Any]:
        kind = connection.dialect.name
        found = self._compiled.get(kind)
        if found is None:
            found = self._compiled[kind] = compiled(connection, self._make(connection))
        return connection.exec_driver_sql(found.text, found.ready([{**found.said, **given}])[0]).all()


def _as_list(connection: sa.Connection, values: Sequence[str | int]) -> object:
    return list(values) if connection.dialect.name == POSTGRESQL else json.dumps(values)


def _list_of(column: sa.Column[Any]) -> sa.types.TypeEngine[Any]:
    return postgresql.ARRAY(column.type)
