"""How is one statement executed with a thousand rows?

Compiled once, and handed to the driver with values as it takes them: what SQLAlchemy does to each value of each row
takes longer than the writing of it. So values are None, str, bytes, whole numbers or floats; JSON comes as text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import sqlalchemy as sa

Rows = Sequence[Mapping[str, Any]]


class _Compiled(NamedTuple):
    text: str
    ready: Callable[[Rows], Sequence[Any]]  # as the driver takes them


class Many:
    """A statement with parameters."""

    def __init__(self, make: Callable[[sa.Connection], sa.Executable], *names: str) -> None:
        """make: the statement for whatever a connection leads to, asked once for each kind of it.

        names: of the columns that an INSERT gets from the rows; what else is said has parameters of its own.
        """
        self._make, self._names = make, names
        self._compiled: dict[str, _Compiled] = {}

    def run(self, connection: sa.Connection, rows: Rows) -> None:
        """With each of the rows, name -> value; of what is more in them nothing is looked at."""
        if rows:
            found = self._compiled.get(connection.dialect.name) or self._compile(connection)
            connection.exec_driver_sql(found.text, found.ready(rows))

    def _compile(self, connection: sa.Connection) -> _Compiled:
        keys = list(self._names) or None
        made: Any = self._make(connection).compile(dialect=connection.dialect, column_keys=keys)  # type: ignore[attr-defined]
        names = list(made.positiontup or made.params)
        ready = _as_tuples(names) if made.positional else _as_mappings(names)
        return self._compiled.setdefault(connection.dialect.name, _Compiled(made.string, ready))


def _as_tuples(names: Sequence[str]) -> Callable[[Rows], Sequence[Any]]:
    pick = itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)
    return lambda rows: list(map(pick, rows))


def _as_mappings(names: Sequence[str]) -> Callable[[Rows], Sequence[Any]]:
    return lambda rows: [{name: row[name] for name in names} for row in rows]
