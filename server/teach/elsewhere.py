"""How does another machine that trains read its samples?

Straight from the store, when catalogue and blobs are where it can reach them: only the rows of its shard, in the order
of the round. Otherwise the machine of the round sends them (models/shards.py).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from server import config
from server.errors import TrainingError
from server.store import samples
from server.store.store import Store
from server.teach import dataset

if TYPE_CHECKING:
    from models.job import Rows

AT_ONCE = 10_000  # rows of the catalogue in one question


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What another machine has to know."""

    store: config.Store
    ids: list[str]  # of samples, in the order of the job


def rows(store: Store, ids: Sequence[str]) -> Rows | None:
    """How the samples of these ids are read elsewhere; None: catalogue or blobs are on this machine."""
    from models.job import Rows

    settings = store.settings
    if not settings.url.startswith("postgresql:") or "://" not in settings.blobs:
        return None
    return Rows(reader=f"{__name__}:read", told=msgspec.json.encode(Told(store=settings, ids=list(ids))).decode())


def read(told: str, start: int, stop: int) -> NDArray[Any]:
    """X (stop - start, *shape) of those samples, from the store.

    Raises:
        TrainingError: one is not there any more, or its bytes are not what they were for the machine of the round.
        StoreError: the store cannot be read.
    """
    wanted = msgspec.json.decode(told, type=Told)
    ids = wanted.ids[start:stop]
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
        store = Store.open(Path(folder), wanted.store)
        try:
            x, sound = dataset.read(store, _rows(store, ids))
        finally:
            store.close()
    if not sound.all():
        raise TrainingError(f"sample {ids[int(np.argmin(sound))]}: is damaged, and was sound where the round began")
    return x


def _rows(store: Store, ids: Sequence[str]) -> list[Any]:
    found: dict[str, Any] = {}
    with store.database.read() as connection:
        for start in range(0, len(ids), AT_ONCE):
            found |= {row.id: row for row in samples.rows(connection, ids[start : start + AT_ONCE])}
    missing = [one for one in ids if one not in found]
    if missing:
        raise TrainingError(f"sample {missing[0]}: is not in the store, and was where the round began")
    return [found[one] for one in ids]
