"""Does another machine read the rows of its shard, and those alone, as the round has them?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import quadrants
import sqlalchemy as sa

from server import config
from server.errors import TrainingError
from server.store.schema import sample
from server.store.store import Store
from server.teach import dataset, elsewhere
from server.teach.imports import import_file
from server.teach.snapshot import freeze

NOW_MS = 1_800_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "store")
    for split, count, seed in (("train", 30, 1), ("holdout", 10, 2)):
        x, y = quadrants.images(count, seed=seed)
        np.savez(tmp_path / f"{split}.npz", x=x, y=y, names=np.array(["a", "b", "c", "d"]))
        import_file(store, tmp_path / f"{split}.npz", split=split, now_ms=NOW_MS)
    yield store
    store.close()


def told(store: Store, ids: list[str]) -> str:
    """As for a store that is elsewhere, of one that is not."""
    settings = msgspec.structs.replace(store.settings, blobs=str(store.folder / "blobs"))
    return msgspec.json.encode(elsewhere.Told(store=settings, ids=ids)).decode()


def test_rows_are_those_of_the_round_in_its_order(store: Store) -> None:
    part = dataset.load(store, freeze(store, now_ms=NOW_MS), takes=None).train
    said = told(store, part.sample.tolist())
    for start, stop in ((0, 15), (15, 30), (7, 8)):
        assert np.array_equal(elsewhere.read(said, start, stop), part.x[start:stop])


def test_what_is_not_there_any_more_is_said(store: Store) -> None:
    part = dataset.load(store, freeze(store, now_ms=NOW_MS), takes=None).train
    said, first = told(store, part.sample.tolist()), str(part.sample[3])
    store.blobs.erase([store_body(store, first)])
    store.blobs.scrub()
    with pytest.raises(TrainingError, match=f"sample {first}: is damaged"):
        elsewhere.read(said, 0, 9)
    with pytest.raises(TrainingError, match="sample nobody: is not in the store"):
        elsewhere.read(told(store, ["nobody"]), 0, 1)


def store_body(store: Store, name: str) -> str:
    with store.database.read() as connection:
        return str(connection.scalar(sa.select(sample.c.body_sha256).where(sample.c.id == name)))


def test_a_store_of_this_machine_is_not_read_elsewhere(store: Store) -> None:
    assert elsewhere.rows(store, ["a"]) is None
    far = config.Store(url="postgresql://db/winnow", blobs="s3://bucket/winnow")
    way = elsewhere.rows(Store(store.folder, far, store.database, store.blobs), ["a", "b"])
    assert way is not None
    assert way.reader == "server.teach.elsewhere:read"
    assert msgspec.json.decode(way.told, type=elsewhere.Told) == elsewhere.Told(store=far, ids=["a", "b"])
