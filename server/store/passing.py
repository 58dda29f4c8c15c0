"""Which samples may be removed, as the catalogue has them?

`server/keep/rules.py` says which may; this is how they are found. What is removed leaves its number (removed.py), and
its bytes go in a transaction after that, unless something else names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from server.config import RetentionClass
from server.store import erasures, named, questions, removed
from server.store.schema import (
    consensus,
    doomed_blob,
    duplicate,
    gold,
    lease,
    metadata,
    part,
    question,
    request,
    sample,
    snapshot_left_out,
    snapshot_member,
)
from server.store.store import Store

RESTS_ON = (snapshot_member, snapshot_left_out, gold, question, lease, request)
"""Tables by whose rows a sample is never removed."""


def labelled() -> sa.ColumnElement[bool]:
    """Whether a sample has an answer."""
    return sa.exists().where(consensus.c.sample_id == sample.c.id)


_ANSWERED = labelled().label("answered")
_FOUND = sa.select(sample.c.id, sample.c.body_bytes, _ANSWERED)


def is_named() -> sa.ColumnElement[bool]:
    """Whether something rests on a sample."""
    some = [sa.exists().where(table.c.sample_id == sample.c.id) for table in RESTS_ON]
    return sa.or_(*some, sa.exists().where(duplicate.c.stands_with == sample.c.id))


def class_of(*, split: str, labelled: bool) -> RetentionClass:
    """What a sample of a device is kept as.

    >>> class_of(split="train", labelled=False), class_of(split="holdout", labelled=True)
    ('unlabelled', 'held_out')
    """
    if labelled:
        return "held_out" if split == "holdout" else "labelled"
    return "audit" if split == "holdout" else "unlabelled"


def of_class(kept_as: RetentionClass) -> sa.ColumnElement[bool]:
    """Whether a sample of a device is kept as that."""
    split = "holdout" if kept_as in ("audit", "held_out") else "train"
    answered = labelled() if kept_as in ("labelled", "held_out") else ~labelled()
    return sa.and_(sample.c.origin == "device", sample.c.split == split, answered)


def older(connection: sa.Connection, wanted: sa.ColumnElement[bool], *, before_ms: int, limit: int) -> Sequence[Any]:
    """Samples that came before then and on which nothing rests, the oldest first: id, body_bytes, answered."""
    query = _FOUND.where(sample.c.received_at_ms < before_ms, sample.c.origin == "device", wanted, ~is_named())
    return connection.execute(query.order_by(sample.c.received_at_ms, sample.c.id).limit(limit)).all()


def least_useful(connection: sa.Connection, *, before_ms: int, limit: int) -> Sequence[Any]:
    """Unlabelled ones that came before then and on which nothing rests: of the least utility first, then the oldest."""
    query = _FOUND.where(sample.c.received_at_ms < before_ms, of_class("unlabelled"), ~is_named())
    worth = sa.func.coalesce(sample.c.utility, -1.0)
    return connection.execute(query.order_by(worth, sample.c.received_at_ms, sample.c.id).limit(limit)).all()


def still(connection: sa.Connection, rows: Sequence[Any]) -> Sequence[Any]:
    """Rows of `sample`, of what was found in an earlier transaction: on which nothing rests now, answered as then."""
    query = sa.select(sample, _ANSWERED).where(sample.c.id.in_([row.id for row in rows]), ~is_named())
    before = {row.id: row.answered for row in rows}
    return [row for row in connection.execute(query) if bool(row.answered) == bool(before[row.id])]


def remove(connection: sa.Connection, rows: Sequence[Any]) -> None:
    """Forget samples: rows of `sample`, as found in this transaction. Their bytes go by `drop_bytes`."""
    ids = [row.id for row in rows]
    removed.add(connection, rows)
    for column in pointing():
        connection.execute(sa.delete(column.table).where(column.in_(ids)))
    questions.forget(connection, set(ids))
    connection.execute(sa.delete(sample).where(sample.c.id.in_(ids)))
    named.doom(connection, [row.body_sha256 for row in rows])


def drop_bytes(store: Store) -> int:
    """Delete the bytes of samples that were removed, unless another row names them; returns how many went.

    Some of an erasure that is not finished may be among them: these leave no trace, once govern/scrub.py is done.
    """
    with store.database.write() as connection:  # nobody puts bytes meanwhile that we are about to delete
        forget = store.blobs.erase if erasures.unfinished(connection) else store.blobs.delete_many
        gone = forget(named.orphans(connection))
        connection.execute(sa.delete(doomed_blob))
    return gone


def pointing() -> list[sa.Column[Any]]:
    """The columns that name a sample, those of rows that others refer to last."""
    return [column for table in reversed(metadata.sorted_tables) for column in table.c if _points_at_sample(column)]


def _points_at_sample(column: sa.Column[Any]) -> bool:
    if column.table in (sample, part):
        return False
    if column is duplicate.c.stands_with:
        return True
    return column.name == "sample_id" or any(key.column is sample.c.id for key in column.foreign_keys)
