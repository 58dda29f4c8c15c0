"""Where does each sample lie on the map of embeddings?

Rows, so that the map is drawn once and looked at often, and an erased sample is off it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from server.store.samples import body_names
from server.store.schema import consensus, embedding, place, sample

POINTS = 20_000  # on a map: more take minutes to lay out, and cover each other


class Place(NamedTuple):
    """One point."""

    sample_id: str
    version: int  # whose embedding it is
    x: float  # 0..1
    y: float


def put(connection: sa.Connection, made: Sequence[Place]) -> None:
    """They are the map from now on; of samples erased meanwhile nothing is kept."""
    here = body_names(connection, [one.sample_id for one in made])
    connection.execute(sa.delete(place))
    if rows := [one._asdict() for one in made if one.sample_id in here]:
        connection.execute(sa.insert(place), rows)


def every(connection: sa.Connection) -> Sequence[Any]:
    """All points, by id: sample_id, x, y, predicted, said, truth, and class_index: None where nobody answered."""
    query = (
        sa.select(
            *(place.c[name] for name in ("sample_id", "x", "y")),
            *(sample.c[name] for name in ("predicted", "said")),
            *(consensus.c[name] for name in ("class_index", "truth")),
        )
        .join(sample, sample.c.id == place.c.sample_id)
        .outerjoin(consensus, consensus.c.sample_id == place.c.sample_id)
        .order_by(place.c.sample_id)
    )
    return connection.execute(query).all()


def drawn(connection: sa.Connection) -> tuple[int, int]:
    """(version, points) of the map as it is; zeros: there is none."""
    row = connection.execute(sa.select(sa.func.max(place.c.version), sa.func.count()).select_from(place)).one()
    return row[0] or 0, row[1]


def embedded(connection: sa.Connection, version: int) -> int:
    """Samples that could be on it: the version has embedded them."""
    seen = embedding.c.vector.is_not(None)  # what it cannot be run on is never drawn, and would be due for ever
    query = sa.select(sa.func.count()).where(embedding.c.version == version, seen)
    return connection.scalar(query) or 0
