"""Which classes or targets does a truth name? As SQL, over its JSON.

{"boxes": [[class, ...], ...]}, {"applies": ...}, {"values": ...}: see edge_agent/contract/task.py
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from server.config import POSTGRESQL


def named_in(table: sa.Table) -> tuple[sa.FromClause, sa.ColumnElement[int]]:
    """A table with a `truth`, joined to every box, class and value in its truths; and the index that each names."""
    part, one = _parts(table.c.truth)
    return table.join(part, sa.true()).join(one, sa.true()), _First(one.c.value)


def names(truth: sa.ColumnElement[Any], class_index: int) -> sa.ColumnElement[bool]:
    """Whether a truth names that one."""
    part, one = _parts(truth)
    found = sa.select(sa.literal(1)).select_from(part.join(one, sa.true()))
    return found.where(_First(one.c.value) == class_index).exists()


def _parts(truth: sa.ColumnElement[Any]) -> tuple[sa.TableValuedAlias, sa.TableValuedAlias]:
    part = sa.func.json_each(truth).table_valued("value", name="part")
    return part, _Elements(part.c.value).table_valued("value", name="one")


class _Elements(sa.sql.functions.GenericFunction[Any]):
    """Those of a JSON list, as rows: SQLite takes a list for an object whose keys are numbers."""

    name = "json_each"
    identifier = "winnow_elements"
    inherit_cache = True


@compiles(_Elements, POSTGRESQL)
def _elements(element: _Elements, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_array_elements({compiler.process(element.clauses, **options)})"


class _First(sa.sql.functions.GenericFunction[int]):
    """The first of a JSON list, a whole number."""

    type = sa.Integer()
    inherit_cache = True


@compiles(_First)
def _first(element: _First, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_extract({compiler.process(element.clauses, **options)}, '$[0]')"


@compiles(_First, POSTGRESQL)
def _first_in_postgresql(element: _First, compiler: SQLCompiler, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)} ->> 0)::bigint"
