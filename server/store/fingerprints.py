"""What does each sample look like, without a model?

One row a sample, made once and never changed (teach/fingerprint.py says of what). A row goes with its sample.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from server.store.insert import insert
from server.store.samples import body_names
from server.store.schema import fingerprint

_IDS_AT_ONCE = 500  # values in one IN (...): SQLite allows 32,766


class Fingerprint(NamedTuple):
    """Of one sample; only those of one kind can be compared."""

    kind: str
    vector: NDArray[np.float32]  # (64,)
    bits: int  # 64 of them


def put(connection: sa.Connection, made: Sequence[tuple[str, Fingerprint]]) -> None:
    """Keep them, by sample id; of samples erased meanwhile nothing is kept."""
    here = body_names(connection, [sample_id for sample_id, _ in made])
    rows = [
        {
            "sample_id": sample_id,
            "kind": one.kind,
            "vector": _packed(one.vector),
            "bits": one.bits.to_bytes(8, "little"),
        }
        for sample_id, one in made
        if sample_id in here
    ]
    if rows:
        connection.execute(insert(connection, fingerprint).on_conflict_do_nothing(), rows)


def of(connection: sa.Connection, ids: Collection[str]) -> dict[str, Fingerprint]:
    """Those that are here."""
    found: dict[str, Fingerprint] = {}
    wanted = list(ids)
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        query = sa.select(fingerprint).where(fingerprint.c.sample_id.in_(wanted[start : start + _IDS_AT_ONCE]))
        for sample_id, kind, vector, bits in connection.execute(query):
            found[sample_id] = Fingerprint(kind, np.frombuffer(vector, "<f4"), int.from_bytes(bits, "little"))
    return found


def _packed(vector: NDArray[np.float32]) -> bytes:
    return vector.astype("<f4").tobytes()
