"""Which sample goes when the outbox has no room?

First what the server refused, then the least useful, the older before the newer; and last of all the newest sample of
a predicted class of which the server has hardly any from here, so that a full outbox does not lose the only sight of a
rare class.

Where bytes are short, too, the least useful is that of the least utility, and not of the least utility per byte: with
sizes that differ much the latter keeps up to two thirds more utility in all, but loses a third of the most useful
samples (benchmarks/outbox.py). How many bytes a sample is worth is decided when it is selected.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Literal

import msgspec

FEW_OF_CLASS = 3
"""With fewer delivered than this, the newest sample of a predicted class is kept until nothing else is left to evict.

At 1 a single sample, which the model may have mistaken, ends the protection; much higher, a small outbox holds the
newest of nearly every class for a long time, and cannot follow utility.
"""


class Limits(msgspec.Struct, frozen=True):
    """How much may be kept."""

    rows: int
    bytes: int

    def passed(self, *, rows: int, size: int) -> Literal["", "rows", "bytes"]:
        """Which of them is passed by so many rows, of so many bytes."""
        if rows > self.rows:
            return "rows"
        return "bytes" if size > self.bytes else ""


def least_useful(db: sqlite3.Connection, *, delivered: Callable[[int], int]) -> str:
    """The id to evict from the table `sample` of `db`, "" when it is empty. A few looks into an index.

    `delivered`: of a class, how many samples have their receipt; more than FEW_OF_CLASS need not be told apart.
    """
    protected = ""
    order = "SELECT id, label FROM sample WHERE parked = ? ORDER BY utility, boot, seq"
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
