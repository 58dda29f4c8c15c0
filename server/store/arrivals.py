"""Who has connected, and was not answered yet?

Whoever takes a birth in leaves it here, in the same commit; whoever tells devices what is wanted of them, perhaps
another process, looks here, and takes it away when that is done. So it is done at least once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from edge_agent.contract.wire import Birth
from server.store.insert import insert
from server.store.schema import arrival
from server.store.spoken import Spoken


class Arrival(NamedTuple):
    """A birth."""

    device: str
    session: str
    at_ms: int


def add(connection: sa.Connection, said: Sequence[Spoken[Birth]]) -> None:
    """Devices have connected; in the place of an earlier time with the same session."""
    new, keys = insert(connection, arrival), [arrival.c.device, arrival.c.session]
    rows = [{"device": one.device, "session": one.word.session, "at_ms": one.at_ms} for one in said]
    connection.execute(new.on_conflict_do_update(index_elements=keys, set_={"at_ms": new.excluded.at_ms}), rows)


def waiting(connection: sa.Connection) -> list[Arrival]:
    """Those that nobody has answered, in the order of their coming."""
    query = sa.select(arrival).order_by(arrival.c.at_ms, arrival.c.device)
    return [Arrival(*row) for row in connection.execute(query)]


def answered(connection: sa.Connection, found: Sequence[Arrival]) -> None:
    """They need nothing more; one that came again since does."""
    mine = (arrival.c.device == sa.bindparam("d"), arrival.c.session == sa.bindparam("s"))
    gone = sa.delete(arrival).where(*mine, arrival.c.at_ms == sa.bindparam("at"))
    if found:
        connection.execute(gone, [{"d": one.device, "s": one.session, "at": one.at_ms} for one in found])
