"""Which cards were kept with the versions?

One to a version, as JSON among the blobs: what could be said of it when it was published. What was erased since is in
none of them: those that told of it are gone, and made anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from server.store.insert import insert
from server.store.schema import card, version
from server.store.store import Store


def put(store: Store, number: int, made: Mapping[str, Any], *, now_ms: int) -> None:
    """Keep the card of a version; one that is here stays."""
    with store.database.write() as connection:  # the bytes too: nothing is erased meanwhile
        values = {"version": number, "at_ms": now_ms, "body_sha256": store.blobs.put(msgspec.json.encode(made))}
        connection.execute(insert(connection, card).values(values).on_conflict_do_nothing())


def get(store: Store, number: int) -> dict[str, Any] | None:
    """The card of a version; None: none was kept. StoreError when it is damaged."""
    with store.database.read() as connection:
        name = connection.scalar(sa.select(card.c.body_sha256).where(card.c.version == number))
    return None if name is None else msgspec.json.decode(store.blobs.get(name), type=dict[str, Any])


def missing(connection: sa.Connection) -> Sequence[int]:
    """Versions without one, oldest first."""
    kept = sa.exists().where(card.c.version == version.c.number)
    return connection.scalars(sa.select(version.c.number).where(~kept).order_by(version.c.number)).all()
