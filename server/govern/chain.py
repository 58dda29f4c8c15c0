"""When was the audit trail last found whole, and who asked?

An entry of the trail itself says it: what was found, and the head of then, which stands for all before it.
"""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from server.store import trail
from server.store.schema import trail as table
from server.store.store import Store

VERIFIED = "verify"
SUBJECT = "audit trail"


class Checked(NamedTuple):
    """One verification."""

    at_ms: int
    who: str
    entries: int
    head: str
    broken: str  # what was wrong, and where; empty: it was whole


def verify(store: Store, *, who: str, why: str = "", now_ms: int) -> Checked:
    """Verify all of it, and say so in it."""
    with store.database.read() as connection:
        broken, number, head = trail.verify(connection), trail.last_id(connection), trail.head(connection)
    found = f"entry {broken.id}: {broken.why}" if broken else ""
    detail = {"entries": number, "head": head, "broken": found}
    with store.database.write() as connection:
        trail.record(connection, VERIFIED, SUBJECT, why=why, who=who, detail=detail, now_ms=now_ms)
    return Checked(now_ms, who, number, head, found)


def last(connection: sa.Connection) -> Checked | None:
    """The newest verification; None: nobody asked."""
    mine = (table.c.what == VERIFIED, table.c.subject == SUBJECT)
    row = connection.execute(sa.select(table).where(*mine).order_by(table.c.id.desc()).limit(1)).first()
    if row is None:
        return None
    return Checked(row.at_ms, row.who, row.detail["entries"], row.detail["head"], row.detail["broken"])
