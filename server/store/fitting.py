"""Does a text fit into its column?

PostgreSQL refuses one that is too long, or has the character NUL; SQLite takes both. So that a slip is the same error,
in the same words, over either, what people and rules write is looked at before it is sent. What devices say is bounded
where it comes in (collect/inbound.py, contract/sample.py), a thousand at a time, and not looked at again.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from server.errors import StoreError
from server.store.database import TOGETHER, Database

INSTEAD = "\ufffd"  # of NUL, where a text is kept whatever it says
_QUOTED = 40  # characters of what does not fit


def insist(database: Database) -> None:
    """Have whatever is written alone looked at: StoreError says which text does not fit, and nothing is written."""
    sa.event.listen(database.engine, "before_cursor_execute", _look)


def without_nul(text: str) -> str:
    """As either engine takes it."""
    return text.replace("\0", INSTEAD)


def _look(connection: sa.Connection, _cursor: Any, _text: str, _given: Any, context: Any, _many: bool) -> None:
    if not (context.isinsert or context.isupdate) or connection.get_execution_options().get(TOGETHER):
        return
    table: Any = getattr(context.compiled.statement, "table", None)
    if not isinstance(table, sa.Table):
        return
    texts = [column for column in table.c if isinstance(column.type, sa.String)]
    for row in context.compiled_parameters:
        for column in texts:
            if isinstance(value := row.get(column.key), str):
                _fits(column, value)


def _fits(column: sa.Column[Any], value: str) -> None:
    most = getattr(column.type, "length", None)
    if most is not None and len(value) > most:
        raise StoreError(f"{column}: {len(value)} characters, expected {most} at most: {value[:_QUOTED]!r}...")
    if "\0" in value:
        raise StoreError(f"{column}: the character NUL, which no text may have: {value[:_QUOTED]!r}")
