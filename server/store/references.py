"""What does a model say of samples whose truth is known?

Its drift signals and its predictions on held-out imports, computed on the very file that ships: what the stream is held
against when class shares and accuracy are to be told without labels. Kept by the hash of that file, rows and not
moments, so that a later rule may ask of them what it likes.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from server.errors import StoreError
from server.store.insert import insert
from server.store.schema import reference
from server.store.store import Store


class Reference(NamedTuple):
    """n samples. values: (n, P) whole numbers as `edge_agent.choose.signals` has them. predicted, true: (n,)."""

    values: NDArray[np.int64]
    predicted: NDArray[np.int64]
    true: NDArray[np.int64]


def put(store: Store, onnx_sha256: str, made: Reference, *, now_ms: int) -> None:
    """Keep it, in place of an earlier one of the same file."""
    file = io.BytesIO()
    np.savez_compressed(file, **made._asdict())
    values = {"body_sha256": store.blobs.put(file.getvalue()), "samples": len(made.true), "at_ms": now_ms}
    with store.database.write() as connection:
        statement = insert(connection, reference).values(onnx_sha256=onnx_sha256, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=[reference.c.onnx_sha256], set_=values))


def get(store: Store, onnx_sha256: str) -> Reference | None:
    """The reference of a file; None when there was nothing held out to make one of. StoreError when it is damaged."""
    with store.database.read() as connection:
        name = connection.scalar(sa.select(reference.c.body_sha256).where(reference.c.onnx_sha256 == onnx_sha256))
    if name is None:
        return None
    try:
        with np.load(io.BytesIO(store.blobs.get(name)), allow_pickle=False) as arrays:
            return Reference(*(arrays[field] for field in Reference._fields))
    except (ValueError, KeyError, OSError) as error:
        raise StoreError(f"reference of model file {onnx_sha256[:12]}: {error}") from error
