"""What goes when a labeler is to be forgotten?

The answers, wherever they are kept, and the account, if the labeler has one: a page that is still open could send the
same answers again. What others answered is in force then, or nothing: the sample waits again, and so does what stood
with it. Answers that come again from elsewhere are known by their keys (label/queue.py).
"""

from __future__ import annotations

from collections import Counter

import sqlalchemy as sa

from server.store import consensus, users
from server.store.schema import consensus as in_force
from server.store.schema import duplicate, label, metadata, snapshot_member

_IDS_AT_ONCE = 500  # values in one IN (...): SQLite allows 32,766


def keys(connection: sa.Connection, labeler: str) -> list[str]:
    """What his answers are known by when they come again."""
    mine = (label.c.labeler == labeler, label.c.key.is_not(None))
    return list(connection.scalars(sa.select(label.c.key).where(*mine)))


def delete(connection: sa.Connection, labeler: str) -> Counter[str]:
    """Delete all that he answered, and his account; table -> rows. His places in snapshots are gone already."""
    counts = Counter[str]()
    answered = list(connection.scalars(sa.select(label.c.sample_id).where(label.c.labeler == labeler).distinct()))
    for table in reversed(metadata.sorted_tables):
        if "labeler" in table.c and table is not snapshot_member:
            counts[table.name] += connection.execute(sa.delete(table).where(table.c.labeler == labeler)).rowcount
    consensus.resolve(connection, answered)
    for start in range(0, len(answered), _IDS_AT_ONCE):
        stood = duplicate.c.stands_with.in_(answered[start : start + _IDS_AT_ONCE])
        nothing = ~sa.exists().where(in_force.c.sample_id == duplicate.c.stands_with)
        counts["duplicate"] += connection.execute(sa.delete(duplicate).where(stood, nothing)).rowcount
    counts.update(users.forget(connection, labeler))
    return +counts
