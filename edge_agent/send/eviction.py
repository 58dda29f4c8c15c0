"""Which sample goes when the outbox has no room?

First what the server refused, then the least useful, the older before the newer; and last of all the newest sample of
a predicted class of which few wait, so that a full outbox does not lose the only sight of a rare class.
"""

from __future__ import annotations

import sqlite3

FEW_OF_CLASS = 3
"""With fewer waiting than this, the newest sample of a predicted class is kept until nothing else is left to evict.

At 1 the rule protects nothing; at 2 a rare class is left with whichever sample was the more useful, maybe an old one;
much higher, the newest sample of nearly every class is held and a small outbox cannot follow utility.
"""


def least_useful(db: sqlite3.Connection) -> str:
    """The id to evict from the table `sample` of `db`, "" when it is empty. A look or two into an index."""
    protected = ""
    order = "SELECT id, label FROM sample WHERE parked = ? ORDER BY utility, boot, seq"
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
