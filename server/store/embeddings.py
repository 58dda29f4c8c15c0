"""What does the champion make of the samples that choosing looks at?

One row a sample, of the newest model that ran on it, half precision: about 300 bytes for 128 + 10 numbers. Rows of
older models are of no use beside newer ones, so they are replaced, and what is left of them goes. A row goes with its
sample.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from server.store import labels
from server.store.insert import insert
from server.store.samples import body_names
from server.store.schema import embedding, sample

_IDS_AT_ONCE = 500  # values in one IN (...): SQLite allows 32,766

Halves = NDArray[np.float16]


class Embedding(NamedTuple):
    """One sample, as one version sees it. vector and logits are None where the version cannot be run on it."""

    sample_id: str
    version: int
    vector: Halves | None  # (D,)
    logits: Halves | None  # (C,), over the temperature


def put(connection: sa.Connection, made: Sequence[Embedding]) -> None:
    """Keep them, instead of those of other versions; of samples erased meanwhile nothing is kept."""
    here = body_names(connection, [one.sample_id for one in made])
    rows = [
        one._asdict() | {"vector": _packed(one.vector), "logits": _packed(one.logits)}
        for one in made
        if one.sample_id in here
    ]
    if rows:
        statement = insert(connection, embedding)
        new = {name: statement.excluded[name] for name in ("version", "vector", "logits")}
        connection.execute(statement.on_conflict_do_update(index_elements=[embedding.c.sample_id], set_=new), rows)


def missing(connection: sa.Connection, *, version: int, waiting: int, labelled: int) -> list[str]:
    """Ids of samples that version was not run on, the most urgent first.

    Of the newest `waiting` that wait for a label, then of the last `labelled` that were answered.
    """
    there = sa.exists().where(embedding.c.sample_id == sample.c.id, embedding.c.version == version)
    found: list[str] = []
    for ids in (labels.waiting_ids(limit=waiting, newest=True), labels.last_answered_ids(limit=labelled)):
        some = ids.subquery()
        query = sa.select(sample.c.id).join(some, some.c.id == sample.c.id).where(~there)
        found += connection.execute(query).scalars()
    return found


def of(connection: sa.Connection, *, version: int, ids: Collection[str]) -> dict[str, Embedding]:
    """Those of that version, for the ids that have one and on which it could be run."""
    found: dict[str, Embedding] = {}
    wanted = list(ids)
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        some = embedding.c.sample_id.in_(wanted[start : start + _IDS_AT_ONCE])
        query = sa.select(embedding).where(some, embedding.c.version == version, embedding.c.vector.is_not(None))
        found |= {row.sample_id: _unpacked(row) for row in connection.execute(query)}
    return found


def ids(connection: sa.Connection, version: int) -> list[str]:
    """Of the samples on which that version could be run, in order."""
    mine = (embedding.c.version == version, embedding.c.vector.is_not(None))
    return list(connection.scalars(sa.select(embedding.c.sample_id).where(*mine).order_by(embedding.c.sample_id)))


def delete_others(connection: sa.Connection, *, version: int) -> int:
    """Forget the rows of every other version; returns how many."""
    return connection.execute(sa.delete(embedding).where(embedding.c.version != version)).rowcount


def _packed(array: Halves | None) -> bytes | None:
    return None if array is None else array.astype("<f2").tobytes()


def _unpacked(row: Any) -> Embedding:
    return Embedding(row.sample_id, row.version, np.frombuffer(row.vector, "<f2"), np.frombuffer(row.logits, "<f2"))
