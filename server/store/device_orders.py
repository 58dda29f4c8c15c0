"""What did operators tell devices, beside the model?

One row to a device and a word; the latest replaces the one before. An order that was taken back stays as a row that
says so: by whom and when.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from server.store.insert import insert
from server.store.schema import device_order

Word = Literal["pause", "budget"]
_ROWS = 500  # to one statement


class Order(NamedTuple):
    """One that was given, or taken back."""

    device: str
    word: Word
    said: dict[str, Any] | None  # None: taken back
    who: str
    why: str
    at_ms: int


Orders = dict[str, Order]
"""Of one device, by word."""


def give(
    connection: sa.Connection,
    names: Iterable[str],
    word: Word,
    said: dict[str, Any] | None,
    *,
    who: str,
    why: str,
    now_ms: int,
) -> None:
    """Tell devices something, in place of what that word said before; None: nothing any more."""
    number = revision(connection) + 1
    rows = [(Order(name, word, said, who, why, now_ms)._asdict() | {"revision": number}) for name in names]
    for start in range(0, len(rows), _ROWS):
        statement = insert(connection, device_order)
        changed = {key: statement.excluded[key] for key in rows[0] if key not in ("device", "word")}
        statement = statement.on_conflict_do_update(index_elements=["device", "word"], set_=changed)
        connection.execute(statement, rows[start : start + _ROWS])


def revision(connection: sa.Connection) -> int:
    """It grows with every order that is given or taken back; 0: there was none."""
    return connection.scalar(sa.select(sa.func.max(device_order.c.revision))) or 0


def standing(connection: sa.Connection, device: str = "") -> dict[str, Orders]:
    """The orders in force of every device that has any; of one alone, if one is named."""
    return _read(connection, device_order.c.said.is_not(None), device_order.c.device == device if device else sa.true())


def latest(connection: sa.Connection) -> dict[str, Orders]:
    """The last of each word to every device, those that were taken back as well."""
    return _read(connection)


def _read(connection: sa.Connection, *which: sa.ColumnElement[bool]) -> dict[str, Orders]:
    query = sa.select(*(device_order.c[key] for key in Order._fields)).where(*which)
    found: dict[str, Orders] = defaultdict(dict)
    for row in connection.execute(query.order_by(device_order.c.device)):
        found[row.device][row.word] = Order(*row)
    return dict(found)
