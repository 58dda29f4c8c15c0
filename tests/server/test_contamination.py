"""Is what shows a held-out sample's scene found, whoever sent it and however, and nothing else?"""

from __future__ import annotations

import io

import msgspec
import numpy as np
import pytest
from device_words import FLEET, NOW_MS, SELECTION, uploads
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from server.collect.ingest import Ingest
from server.config import Snapshot as Settings
from server.errors import TrainingError
from server.govern.erase import erase
from server.govern.subject import Subject
from server.store import erasures, identities, labels, snapshots
from server.store import fingerprints as stored
from server.store.fingerprints import Fingerprint
from server.store.labels import Label
from server.store.store import Store
from server.teach import contamination
from server.teach.contamination import NONE, Look, twins
from server.teach.fingerprint import LIKENESS, fingerprints
from server.teach.snapshot import check, freeze


def scene(seed: int, side: int = 48, channels: int = 0) -> np.ndarray:
    """A few blurred patches of light: as unlike each other as photographs are."""
    rng = np.random.default_rng(seed)
    shape = (8, 8, channels) if channels else (8, 8)
    coarse = rng.uniform(0, 255, shape)
    return np.kron(coarse, np.ones((side // 8, side // 8, *([1] if channels else [])))).astype(np.uint8)


def compressed(x: np.ndarray, quality: int) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(x).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out))


def look(x: np.ndarray, class_index: int = 0, embedding=None) -> Look:
    return Look(fingerprints(x[None])[0], None if embedding is None else np.array(embedding, np.float16), class_index)


@pytest.mark.parametrize("channels", [0, 3])
def test_a_scene_is_known_again_compressed_resized_or_in_other_light(channels):
    seen = [scene(seed, channels=channels) for seed in range(20)]
    held = [look(x) for x in seen]
    for change in (
        lambda x: compressed(x, 60),
        lambda x: np.clip(x * 0.9 + 5.0, 0, 255).astype(np.uint8),
        lambda x: np.kron(x, np.ones((2, 2, 1) if channels else (2, 2))).astype(np.uint8),
        lambda x: np.clip(x + np.random.default_rng(0).normal(0, 3, x.shape), 0, 255).astype(np.uint8),
    ):
        assert twins([look(change(x)) for x in seen], held, cosine=0.98).tolist() == list(range(20))
    assert set(twins([look(scene(seed, channels=channels)) for seed in range(100, 400)], held, cosine=0.98)) == {NONE}


def test_what_is_near_must_have_the_same_perceptual_hash_but_for_a_few_bits():
    near = np.linspace(0.0, 1.0, 64, dtype=np.float32)
    few = LIKENESS["grey"].bits
    mine = [Look(Fingerprint("grey", near, 0), None, NONE)]
    for differing, twin in ((few, 0), (few + 1, NONE)):
        held = [Look(Fingerprint("grey", near, (1 << differing) - 1), None, NONE)]
        assert twins(mine, held, cosine=0.9).tolist() == [twin]


def test_red_is_not_green():
    red, green = (np.full((16, 16, 3), 40, np.uint8) for _ in range(2))
    red[4:12, 4:12] = (250, 0, 0)
    green[4:12, 4:12] = (0, 128, 0)  # as bright
    assert twins([look(red)], [look(green)], cosine=0.98).tolist() == [NONE]


def test_of_two_that_look_the_same_and_are_of_different_classes_none_gives_the_other_away():
    x = scene(1)
    held = [look(x, 1), look(x, 0)]
    assert twins([look(x, 0)], held, cosine=0.98).tolist() == [1]
    assert twins([look(x, 2)], held, cosine=0.98).tolist() == [NONE]
    assert twins([look(x, 2)], [look(x, NONE)], cosine=0.98).tolist() == [0]  # not labelled yet


def test_embeddings_have_a_say_where_there_are_two():
    x = scene(1)
    near, far = [1.0, 0.02], [0.0, 1.0]
    assert twins([look(x, 0, [1.0, 0.0])], [look(x, 0, far), look(x, 0, near)], cosine=0.98).tolist() == [1]
    assert twins([look(x, 0, [1.0, 0.0])], [look(x, 0)], cosine=0.98).tolist() == [0]


def test_recordings_are_alike_when_they_are_nearly_the_same():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 128, 3)).astype(np.float32) + 9.81  # what stands still in them says nothing
    nearly = x * np.float32(1.001) + rng.normal(0, 1e-3, x.shape).astype(np.float32)
    others = rng.normal(size=x.shape).astype(np.float32) + 9.81
    held = [Look(one, None, 0) for one in fingerprints(x)]
    assert twins([Look(one, None, 0) for one in fingerprints(nearly)], held, cosine=0.98).tolist() == list(range(50))
    assert set(twins([Look(one, None, 0) for one in fingerprints(others)], held, cosine=0.98)) == {NONE}


def test_few_numbers_and_what_stands_still_must_be_equal():
    a, b = np.array([1.0, 2.0], np.float32), np.array([1.0, 2.0001], np.float32)
    assert twins([look(a)], [look(b), look(a.copy())], cosine=0.98).tolist() == [1]
    still, elsewhere = np.full((64, 2), 3.0, np.float32), np.full((64, 2), 5.0, np.float32)
    assert twins([look(still)], [look(elsewhere), look(still.copy())], cosine=0.98).tolist() == [1]


def test_many_rows_of_a_table_are_not_held_against_each_other_pair_by_pair():
    """It would be a billion of them."""
    table = fingerprints(np.random.default_rng(0).integers(0, 9, (30_000, 4)).astype(np.float32))
    found = twins([Look(one, None, 0) for one in table], [Look(one, None, 0) for one in table], cosine=0.98)
    assert [table[row].bits for row in found] == [one.bits for one in table]


vectors = arrays(
    np.float32, (st.integers(1, 40)).map(lambda n: (n, 64)), elements=st.sampled_from([0.0, 0.3, 0.31, 1.0])
)


@settings(deadline=None, max_examples=60)
@given(vectors, vectors, st.sampled_from(["grey", "numbers"]), st.integers(1, 20))
def test_the_search_in_blocks_finds_what_a_plain_one_finds(a, b, kind, block):
    a, b = a / np.float32(8), b / np.float32(8)
    old, contamination.BLOCK = contamination.BLOCK, block
    try:
        found = twins(*([Look(Fingerprint(kind, v, 0), None, 0) for v in side] for side in (a, b)), cosine=0.98)
    finally:
        contamination.BLOCK = old
    apart = np.linalg.norm(a[:, None] - b[None], axis=2)
    limit = np.full(len(a), LIKENESS[kind].distance)
    if LIKENESS[kind].relative:
        limit *= np.linalg.norm(a, axis=1)
    for row, twin in enumerate(found):
        if twin == NONE:
            assert (apart[row] > 0.99 * limit[row]).all()
        else:
            assert apart[row, twin] <= 1.01 * limit[row] + 2e-3


# --- through the store ------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    """Ten scenes of cam-1 are held out; cam-2 sent four of them, compressed, for their own sake, and six others."""
    store = Store.open(tmp_path)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    audit = msgspec.structs.replace(SELECTION, reason="explore")
    for seq in range(10):
        ingest.take(uploads("cam-1", seq, data=scene(seq), selection=audit))
        ingest.take(uploads("cam-2", seq, data=compressed(scene(seq), 70) if seq < 4 else scene(100 + seq)))
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat", "dog"])
        audited = [Label(f"cam-1.main.1.{seq}", 0, "ann", 1) for seq in range(10) if seq != 3]  # one waits yet
        labels.add(connection, audited + [Label(f"cam-2.main.1.{seq}", 0, "ann", 1) for seq in range(10)])
    yield store
    store.close()


def left_out(store, snapshot):
    with store.database.read() as connection:
        return {one.sample_id: (one.why, one.beside) for one in snapshots.left_out(connection, snapshot.id)}


def test_no_snapshot_trains_on_what_it_judges_by(store):
    snapshot = freeze(store, now_ms=NOW_MS)
    expected = {f"cam-2.main.1.{seq}": ("near_duplicate", f"cam-1.main.1.{seq}") for seq in range(4)}
    assert left_out(store, snapshot) == expected  # the one that is not labelled yet included
    assert (snapshot.train_count, snapshot.holdout_count) == (6, 9)


def test_what_stood_beside_something_erased_leaves_the_record_with_it(store):
    snapshot = freeze(store, now_ms=NOW_MS)
    erase(store, Subject("sample", ("cam-1.main.1.0",)), who="ada", why="asked to", now_ms=NOW_MS)
    assert left_out(store, snapshot).keys() == {f"cam-2.main.1.{seq}" for seq in range(1, 4)}
    with store.database.read() as connection:
        assert erasures.verify(connection, snapshot.id) == (14, 1, True)


def test_a_device_that_was_left_out_takes_nobody_with_it(store):
    with store.database.write() as connection:
        identities.revoke(connection, "cam-1", why="it sent rubbish", samples_left_out=True, now_ms=NOW_MS)
    snapshot = freeze(store, now_ms=NOW_MS)
    assert (snapshot.train_count, snapshot.holdout_count, left_out(store, snapshot)) == (10, 0, {})


def test_fingerprints_are_made_once(store, monkeypatch):
    first = freeze(store, now_ms=NOW_MS)
    monkeypatch.setattr("server.teach.snapshot.sample_arrays", None)  # nothing is read again
    assert freeze(store, now_ms=NOW_MS) == first
    with store.database.read() as connection:
        assert len(stored.of(connection, [f"cam-{n}.main.1.{seq}" for n in (1, 2) for seq in range(10)])) == 20


def test_strictness_is_configured(store):
    snapshot = freeze(store, now_ms=NOW_MS)
    check(store, snapshot)
    with pytest.raises(
        TrainingError, match=r"4 of 10 samples to train on show .* cam-2.main.1.0 cam-1.main.1.0.*refuse"
    ):
        check(store, snapshot, Settings(near_duplicates="refuse"))
    assert freeze(store, now_ms=NOW_MS, settings=Settings(near_duplicates="keep")).train_count == 10


def test_a_scene_that_stands_still_is_told_apart_from_a_leak(store):
    with pytest.raises(TrainingError, match='max_duplicate_share = 0.3.*near_duplicates = "keep"'):
        check(store, freeze(store, now_ms=NOW_MS), Settings(max_duplicate_share=0.3))
