"""How is text looked for, the same in every engine?

LIKE is not the same: SQLite's takes "a" for "A", PostgreSQL's does not. Both order text by code point (postgresql.py
insists on it), so that what begins with something lies between two borders, in an index as well.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from server.config import POSTGRESQL

_PAST = chr(0x10FFFF)  # after whatever follows a beginning


def begins(column: sa.ColumnElement[str], text: str) -> sa.ColumnElement[bool]:
    """Whether it begins so; letters in their case."""
    return sa.and_(column >= text, column < text + _PAST)


def holds(column: sa.ColumnElement[Any], part: str | bytes) -> sa.ColumnElement[bool]:
    """Whether a text, or bytes, have that in them; letters in their case."""
    return _Place(column, sa.literal(part, column.type)) > 0


class _Place(sa.sql.functions.GenericFunction[int]):
    """Where one is in the other: 1 where that begins with it, 0 where it is not."""

    type = sa.Integer()
    inherit_cache = True


@compiles(_Place)
def _place(element: _Place, compiler: SQLCompiler, **options: Any) -> str:
    return f"instr({compiler.process(element.clauses, **options)})"


@compiles(_Place, POSTGRESQL)
def _place_in_postgresql(element: _Place, compiler: SQLCompiler, **options: Any) -> str:
    return f"pg_catalog.position({compiler.process(element.clauses, **options)})"
