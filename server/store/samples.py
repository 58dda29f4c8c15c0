"""Which samples are there, and what do they hold?

A sample is written once, by its id; a second time is nothing new. Whether it serves to train or to judge is decided on
arrival, by why it was selected, and for ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from edge_agent.contract.encoding import unpack
from edge_agent.contract.errors import MessageError
from edge_agent.contract.images import KINDS
from server.config import POSTGRESQL
from server.errors import StoreError
from server.store.among import Question, looked_up
from server.store.insert import insert_new
from server.store.many import Many
from server.store.schema import consensus, sample
from server.store.store import Store

AUDIT_REASONS = ("random", "explore")
"""Reasons whose samples stand for the whole stream: never trained on, they say how good a model is."""


def split_of(reason: str) -> Literal["train", "holdout"]:
    """Where a device's sample belongs: what was drawn from the whole stream alike judges, the rest teaches.

    >>> split_of("random"), split_of("informative")
    ('holdout', 'train')
    """
    return "holdout" if reason in AUDIT_REASONS else "train"


def insert_samples(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Add rows of the table `sample`; returns the ids that were not there before. The others stay as they were."""
    return insert_new(connection, sample, rows)


def add_samples(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows of the table `sample` that are known not to be there, what is JSON in them as text (encoded.py).

    To a file at half of what it costs to ask which are there.
    """
    if connection.dialect.name == POSTGRESQL:
        raw = [column.name for column in sample.c if isinstance(column.type, sa.JSON)]
        insert_new(connection, sample, [{**row, **{name: _raw(row[name]) for name in raw}} for row in rows])
    else:
        _ADDED.run(connection, rows)


_ADDED = Many(lambda _: sa.insert(sample), *sample.c.keys())


def _raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text)


def body_names(connection: sa.Connection, ids: Collection[str]) -> dict[str, str]:
    """The sha256 of the body, for those of the ids that are here."""
    return dict(map(tuple, _BODIES.ask(connection, list(ids)))) if ids else {}


def _bodies(connection: sa.Connection) -> sa.Select[Any]:
    return looked_up(connection, sa.select(sample.c.id, sample.c.body_sha256), sample.c.id)


_BODIES = Question(_bodies)


def newest_ms(connection: sa.Connection) -> int:
    """When the last sample came; 0 before the first."""
    return connection.scalar(sa.select(sa.func.max(sample.c.received_at_ms))) or 0


def rows(connection: sa.Connection, ids: Collection[str]) -> Sequence[sa.Row[Any]]:
    """The rows of these ids, those that are here; at most 32,000 ids."""
    return connection.execute(sa.select(sample).where(sample.c.id.in_(list(ids)))).all()


def one(connection: sa.Connection, sample_id: str) -> sa.Row[Any] | None:
    """The sample of that id, with what is in force (`class_index`, or None; `truth`)."""
    return connection.execute(_with_class().where(sample.c.id == sample_id)).one_or_none()


def _with_class() -> sa.Select[Any]:
    joined = sample.outerjoin(consensus, consensus.c.sample_id == sample.c.id)
    return sa.select(sample, consensus.c.class_index, consensus.c.truth).select_from(joined)


def sample_counts(connection: sa.Connection) -> dict[str, dict[str, int]]:
    """Samples by device and reason of selection; imports have the reason "import"."""
    reason = sa.func.coalesce(sample.c.reason, sample.c.origin)
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    query = sa.select(sample.c.device, reason, sa.func.count()).group_by(sample.c.device, reason)
    for device, why, number in connection.execute(query):
        counts[device][why] = number
    return dict(counts)


def counts_by_reason(connection: sa.Connection) -> dict[str, int]:
    """Samples by reason of selection, in its order; what no device chose has the reason "import"."""
    found = connection.execute(sa.select(sample.c.reason, sa.func.count()).group_by(sample.c.reason))
    return dict(sorted((reason or "import", number) for reason, number in found))


def sample_array(store: Store, row: sa.Row[Any]) -> NDArray[np.generic]:
    """What the device sent: array of the dtype and shape of the row (of the table `sample`).

    StoreError when its body is missing or damaged.
    """
    ((_, array),) = sample_arrays(store, [row])
    if isinstance(array, StoreError):
        raise array
    return array


Row = TypeVar("Row")


def sample_arrays(store: Store, rows: Sequence[Row]) -> Iterator[tuple[Row, NDArray[np.generic] | StoreError]]:
    """The same of many, each with its row, in order; bodies are read ahead.

    Of one that is missing or damaged, what is wrong with it. StoreError, raised, when none can be read now.
    """
    bodies = store.blobs.get_many(row.body_sha256 for row in rows)  # type: ignore[attr-defined]  # of `sample`
    for row, body in zip(rows, bodies, strict=True):
        yield row, body if isinstance(body, StoreError) else unpacked(store, row, body)


def unpacked(store: Store, row: Any, body: bytes) -> NDArray[np.generic] | StoreError:
    """The array of a body that was read, or what is wrong with it."""
    shape = tuple(row.shape)
    try:
        if row.encoding in KINDS:
            return store.images.decode(body, row.encoding, shape)
        return unpack(row.encoding, body, dtype=row.dtype, shape=shape)
    except (MessageError, ValueError, TypeError) as error:
        return StoreError(f"sample {row.id}: body is not {row.shape} of {row.dtype}: {error}")
