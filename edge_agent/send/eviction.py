"""Which sample goes when the outbox has no room?

First what the server refused, then the least useful, the older before the newer; and last of all the newest sample of
a predicted class of which few wait, so that a full outbox does not lose the only sight of a rare class.

Where bytes are short, the least useful is that of the least utility per byte: the greedy order of the knapsack
(Dantzig, Operations Research 1957). Where rows are, that of the least utility.
"""

from __future__ import annotations

import sqlite3

FEW_OF_CLASS = 3
"""With fewer waiting than this, the newest sample of a predicted class is kept until nothing else is left to evict.

At 1 the rule protects nothing; at 2 a rare class is left with whichever sample was the more useful, maybe an old one;
much higher, the newest sample of nearly every class is held and a small outbox cannot follow utility.
"""


PER_BYTE = "CASE WHEN utility < 0 THEN utility * bytes ELSE utility / bytes END"
"""What keeping a byte of a sample is worth; of negative utility (energy's) the larger sample is the worse. Indexed."""


def least_useful(db: sqlite3.Connection, *, per_byte: bool = False) -> str:
    """The id to evict from the table `sample` of `db`, "" when it is empty. A look or two into an index."""
    protected = ""
    least = PER_BYTE if per_byte else "utility"
    order = f"SELECT id, label FROM sample WHERE parked = ? ORDER BY {least}, boot, seq"  # noqa: S608 - one of two
    for parked in (1, 0):
        rows = db.execute(order, (parked,))
        for id_, label in rows:
            if parked or not _is_protected(db, id_, label):
                rows.close()
                return str(id_)
            protected = protected or id_
    return protected


def _is_protected(db: sqlite3.Connection, id_: str, label: int) -> bool:
    newest = "SELECT id FROM sample WHERE parked = 0 AND label = ? ORDER BY boot DESC, seq DESC LIMIT ?"
    ids = db.execute(newest, (label, FEW_OF_CLASS)).fetchall()
    return len(ids) < FEW_OF_CLASS and bool(ids[0][0] == id_)
