"""How is one statement executed with a thousand rows?

Compiled once, and handed to the driver with values as it takes them: what SQLAlchemy does to each value of each row
takes longer than the writing of it. So values are None, str, bytes, whole numbers or floats; JSON comes as text.

SQLite is given some hundred rows to an INSERT: the interpreter is free for other threads while a statement runs, but
whoever lets it go for every row waits a thousand times to have it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

Rows = Sequence[Mapping[str, Any]]
T = TypeVar("T")

SIZES = (256, 64, 16, 4)
"""Rows to a statement: few sizes, as each is compiled once; the largest has fewer values than any SQLite takes (32,766
of 128 columns). What is left goes row by row."""
_GROUP = re.compile(r" VALUES (\([^()]*\))")


class Compiled(NamedTuple):
    """A statement as a driver has it."""

    text: str
    ready: Callable[[Rows], Sequence[Any]]  # as the driver takes them
    positional: bool
    said: Mapping[str, Any]  # what the statement itself says of its parameters


class Many:
    """A statement with parameters."""

    def __init__(self, make: Callable[[sa.Connection], sa.Executable], *names: str) -> None:
        """make: the statement for whatever a connection leads to, asked once for each kind of it.

        names: of the columns that an INSERT gets from the rows; what else is said has parameters of its own.
        """
        self._make, self._names = make, names
        self._compiled: dict[str, tuple[Compiled, Mapping[int, str]]] = {}  # with that of several rows, by their number

    def run(self, connection: sa.Connection, rows: Rows) -> None:
        """With each of the rows, name -> value; of what is more in them nothing is looked at."""
        if rows:
            found, several = self._compiled.get(connection.dialect.name) or self._compile(connection)
            for some in pieces(found.ready(rows), list(several)):
                if text := several.get(len(some)):
                    connection.exec_driver_sql(text, tuple(chain.from_iterable(some)))
                else:
                    connection.exec_driver_sql(found.text, some)

    def _compile(self, connection: sa.Connection) -> tuple[Compiled, Mapping[int, str]]:
        made = compiled(connection, self._make(connection), self._names)
        several = of_several(made.text) if made.positional else {}
        return self._compiled.setdefault(connection.dialect.name, (made, several))


def compiled(connection: sa.Connection, statement: sa.Executable, names: Sequence[str] = ()) -> Compiled:
    """For whatever a connection leads to; `names` as in Many."""
    made: Any = statement.compile(dialect=connection.dialect, column_keys=list(names) or None)  # type: ignore[attr-defined]
    said = {name: value for name, value in made.params.items() if value is not None}
    order = list(made.positiontup or made.params)
    ready = _as_tuples(order) if made.positional else _as_mappings(order)
    return Compiled(made.string, ready, made.positional, said)


def pieces(rows: Sequence[T], sizes: Sequence[int]) -> Iterator[Sequence[T]]:
    """The rows in as few pieces of these sizes (the largest first) as may be, and the rest as one.

    >>> [len(piece) for piece in pieces(range(150), (64, 16))]
    [64, 64, 16, 6]
    """
    start = 0
    for size in sizes:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size
    if start < len(rows):
        yield rows[start:]


def of_several(text: str) -> dict[int, str]:
    """An INSERT of one row as one of several, by their number; none where it has parameters beyond its row.

    >>> of_several("INSERT INTO a VALUES (?, 1)")[4]
    'INSERT INTO a VALUES (?, 1),(?, 1),(?, 1),(?, 1)'
    """
    found = _GROUP.search(text)
    if found is None or not text.startswith("INSERT") or text.count("?") > found[1].count("?"):
        return {}
    return {size: f"{text[: found.start(1)]}{','.join([found[1]] * size)}{text[found.end(1) :]}" for size in SIZES}


def _as_tuples(names: Sequence[str]) -> Callable[[Rows], Sequence[Any]]:
    pick = itemgetter(*names) if len(names) > 1 else lambda row: tuple(row[name] for name in names)
    return lambda rows: list(map(pick, rows))


def _as_mappings(names: Sequence[str]) -> Callable[[Rows], Sequence[Any]]:
    return lambda rows: [{name: row[name] for name in names} for row in rows]
