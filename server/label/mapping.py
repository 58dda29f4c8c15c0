"""What does the champion take for alike, of all that is here?

The map of embeddings: of the newest samples that wait and of those last answered, laid out on a plane and kept
(store/places.py). Beside one sample, its nearest by cosine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import sqlalchemy as sa

from server.errors import LabelError
from server.label.encoder import Encoder
from server.label.layout import lay_out
from server.store import embeddings, places, versions
from server.store.places import POINTS, Place
from server.store.store import Store

GROWN = 1.25  # times as many embeddings as points: the map is out of date
SEED = 0  # a map that is drawn again looks the same


class State(NamedTuple):
    """Of the map."""

    champion: int  # version, 0: none
    version: int  # whose map it is, 0: there is none
    points: int
    due: bool  # it is to be drawn, or drawn anew


def state(connection: sa.Connection) -> State:
    """How things stand."""
    champion = versions.champion(connection)
    number = champion.number if champion else 0
    version, points = places.drawn(connection)
    there = min(places.embedded(connection, number), POINTS)
    return State(number, version, points, bool(number) and (version != number or there > GROWN * points))


def draw(store: Store, *, seed: int = SEED) -> int:
    """Embed what is not, lay it out, keep it; returns how many points. LabelError: there is nothing to draw."""
    manifest = Encoder(store, waiting=POINTS // 2, labelled=POINTS // 2).catch_up(stopped=lambda: False)
    if manifest is None:
        raise LabelError("map: there is no champion to see samples with: train one, or `winnow-server model add`")
    rng = np.random.default_rng(seed)
    with store.database.read() as connection:
        ids = embeddings.ids(connection, manifest.version)
        if len(ids) > POINTS:
            ids = [ids[i] for i in np.sort(rng.choice(len(ids), POINTS, replace=False))]
        seen = embeddings.of(connection, version=manifest.version, ids=ids)
    if not ids:
        raise LabelError(f"map: version {manifest.version} could be run on no sample")
    points = lay_out(np.stack([np.asarray(seen[one].vector, np.float32) for one in ids]), rng=rng)
    made = [Place(one, manifest.version, float(x), float(y)) for one, (x, y) in zip(ids, points.tolist(), strict=True)]
    with store.database.write() as connection:
        places.put(connection, made)
    return len(made)


class Near(NamedTuple):
    """One that is alike."""

    sample_id: str
    cosine: float


def nearest(connection: sa.Connection, sample_id: str, *, count: int) -> list[Near]:
    """Those that the champion sees most alike, of those that are embedded; [] when the sample is not."""
    champion = versions.champion(connection)
    if champion is None:
        return []
    ids = embeddings.ids(connection, champion.number)
    if sample_id not in set(ids):
        return []
    seen = embeddings.of(connection, version=champion.number, ids=ids)
    x = np.stack([np.asarray(seen[one].vector, np.float32) for one in ids])
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    cosine = x @ x[ids.index(sample_id)]
    order = np.argsort(-cosine, kind="stable")
    return [Near(ids[i], float(cosine[i])) for i in order[: count + 1] if ids[i] != sample_id][:count]
