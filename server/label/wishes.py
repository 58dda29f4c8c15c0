"""Which samples did somebody ask to have labelled soon, where it is not people here who are asked?

An operator's order (orders.py) puts a question into the queue, for people. Whatever else answers is given it before
what a plan chooses; it would wait for people who never come.
"""

from __future__ import annotations

from server.label.chooser import Asked
from server.store import questions, samples
from server.store.store import Store


def taken(store: Store, *, now_ms: int, limit: int) -> list[Asked]:
    """At most `limit`, the first order first, out of the queue; not those that somebody has at hand.

    None has a probability: it was no draw.
    """
    with store.database.read() as connection:
        ids = questions.wished(connection, now_ms=now_ms, limit=limit)
    if not ids:
        return []
    with store.database.write() as connection:
        for one in ids:
            questions.drop(connection, one)
        rows = {row.id: row for row in samples.rows(connection, ids)}
        return [Asked(rows[one], None) for one in ids if one in rows]
