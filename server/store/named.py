"""Which bytes does a row name?

By the columns' names, so that a table that is added later is not forgotten. Bytes that no row names any more may go
(`orphans`); what a row names must be there (`required`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa

from server.store.insert import insert
from server.store.schema import doomed_blob, metadata

COLUMNS = ("body_sha256", "manifest_sha256", "weights_sha256")
NOT_YET = ("doomed_blob", "part")
"""Tables whose names are of bytes that are to go, or are not whole."""


def doom(connection: sa.Connection, names: Iterable[str]) -> None:
    """Note bytes whose rows went: they are deleted when no other row names them."""
    rows = [{"sha256": name} for name in dict.fromkeys(names)]
    if rows:
        connection.execute(insert(connection, doomed_blob).on_conflict_do_nothing(), rows)


def orphans(connection: sa.Connection, *, limit: int | None = None) -> list[str]:
    """The doomed blobs that no row names; so many at most."""
    query = sa.select(doomed_blob.c.sha256)
    for column in _columns():
        query = query.where(doomed_blob.c.sha256.not_in(sa.select(column).where(column.is_not(None))))
    return list(connection.scalars(query.limit(limit)))


def required(connection: sa.Connection) -> Iterator[str]:
    """The sha256 of all bytes that must be there, in order, each once.

    What else a model consists of is named in its manifest, which is among the blobs.
    """
    columns = [one for one in _columns() if one.table.name != "parcel" or one.name == "sha256"]
    each = [sa.select(one.label("sha256")).where(one.is_not(None), one != "") for one in columns]
    yield from connection.scalars(sa.union(*each).order_by("sha256"))


def _columns() -> list[sa.Column[Any]]:
    return [column for table in metadata.sorted_tables for column in table.c if _names_blob(column)]


def _names_blob(column: sa.Column[Any]) -> bool:
    if column.table.name in NOT_YET:
        return False
    return column.name in COLUMNS or (column.table.name == "parcel" and column.name.endswith("sha256"))
