"""Which sample goes when the outbox has no room?

First what the server refused, then the least useful, the older before the newer; and last of all the newest sample of
a predicted class of which the server has hardly any from here, so that a full outbox does not lose the only sight of a
rare class.

Where bytes are short, the least useful is that of the least utility per byte: the greedy order of the knapsack
(Dantzig, Operations Research 1957). Where rows are, that of the least utility.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Literal, NamedTuple

FEW_OF_CLASS = 3
"""With fewer delivered than this, the newest sample of a predicted class is kept until nothing else is left to evict.

At 1 a single sample, which the model may have mistaken, ends the protection; much higher, a small outbox holds the
newest of nearly every class for a long time, and cannot follow utility.
"""


PER_BYTE = "CASE WHEN utility < 0 THEN utility * bytes ELSE utility / bytes END"
"""What keeping a byte of a sample is worth; of negative utility (energy's) the larger sample is the worse. Indexed."""


class Limits(NamedTuple):
    """How much may be kept."""

    rows: int
    bytes: int

    def passed(self, *, rows: int, size: int) -> Literal["", "rows", "bytes"]:
        """Which of them is passed by so many rows, of so many bytes."""
        if rows > self.rows:
            return "rows"
        return "bytes" if size > self.bytes else ""


def least_useful(db: sqlite3.Connection, *, delivered: Callable[[int], int], per_byte: bool = False) -> str:
    """The id to evict from the table `sample` of `db`, "" when it is empty. A few looks into an index.

    `delivered`: of a class, how many samples have their receipt; more than FEW_OF_CLASS need not be told apart.
    """
    protected = ""
    least = PER_BYTE if per_byte else "utility"
    order = f"SELECT id, label FROM sample WHERE parked = ? ORDER BY {least}, boot, seq"  # noqa: S608 - one of two
    for parked in (1, 0):
        rows = db.execute(order, (parked,))
        for id_, label in rows:
            if parked or delivered(label) >= FEW_OF_CLASS or not _is_newest(db, id_, label):
                rows.close()
                return str(id_)
            protected = protected or id_
    return protected


def _is_newest(db: sqlite3.Connection, id_: str, label: int) -> bool:
    newest = "SELECT id FROM sample WHERE parked = 0 AND label = ? ORDER BY boot DESC, seq DESC LIMIT 1"
    return bool(db.execute(newest, (label,)).fetchone()[0] == id_)
