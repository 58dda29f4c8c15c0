"""How does labelled data get in without a device?"""

from __future__ import annotations

import numpy as np
import pytest
import sqlalchemy as sa
from device_words import NOW_MS

from models.errors import DataError
from server.errors import StoreError
from server.store import fingerprints, labels
from server.store.samples import sample_array
from server.store.schema import label, sample
from server.store.store import Store
from server.teach.imports import import_file

X = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
Y = np.array([2, 0, 2, 0, 2, 2])
NAMES = np.array(["walk", "run", "sit"])


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    yield store
    store.close()


def save(path, x=X, **more):
    np.savez(path, x=x, **({"y": Y, "names": NAMES} | more))
    return path


def rows(store, table=sample):
    with store.database.read() as connection:
        return connection.execute(sa.select(table)).all()


def test_rows_become_labelled_samples(store, tmp_path):
    done = import_file(store, save(tmp_path / "my data.npz"), split="holdout", now_ms=NOW_MS)
    assert done == (6, 0, 0)
    found = rows(store)
    assert [row.id for row in found] == [f"import.my-data.0.{n}" for n in range(6)]
    assert {(row.origin, row.split, row.probability, row.ref[:8]) for row in found} == {
        ("import", "holdout", None, "my-data:")
    }
    np.testing.assert_array_equal(np.stack([sample_array(store, row) for row in found]), X)
    with store.database.read() as connection:
        names = labels.names(connection)
    assert names == ("walk", "sit")  # "run" does not occur: a class without samples teaches nothing
    assert [names[row.class_index] for row in rows(store, label)] == NAMES[Y].tolist()
    assert {row.labeler for row in rows(store, label)} == {"import"}


def test_classes_are_told_apart_by_name_not_by_number(store, tmp_path):
    import_file(store, save(tmp_path / "a.npz"), split="train", now_ms=NOW_MS)
    names = np.array(["sit", "walk", "swim"])
    import_file(store, save(tmp_path / "b.npz", names=names), split="train", now_ms=NOW_MS)
    with store.database.read() as connection:
        index = labels.names(connection)
    found = {row.sample_id: index[row.class_index] for row in rows(store, label)}
    assert (found["import.a.0.0"], found["import.b.0.0"], found["import.b.0.1"]) == ("sit", "swim", "sit")


def test_the_same_file_again_adds_nothing(store, tmp_path):
    file = save(tmp_path / "a.npz")
    import_file(store, file, split="train", now_ms=NOW_MS)
    assert import_file(store, file, split="train", now_ms=NOW_MS) == (0, 6, 0)
    assert len(rows(store)) == len(rows(store, label)) == 6


def test_what_is_held_out_is_never_trained_on(store, tmp_path):
    file = save(tmp_path / "a.npz")
    import_file(store, file, split="holdout", now_ms=NOW_MS)
    with pytest.raises(StoreError, match="must never be trained on"):
        import_file(store, file, split="train", now_ms=NOW_MS)


def test_another_file_of_the_same_name_is_refused_whole(store, tmp_path):
    import_file(store, save(tmp_path / "a.npz", X[:2], y=Y[:2]), split="train", now_ms=NOW_MS)
    with pytest.raises(StoreError, match="rename this one"):
        import_file(store, save(tmp_path / "a.npz", X + 1), split="train", now_ms=NOW_MS)
    assert len(rows(store)) == len(rows(store, label)) == 2


def test_samples_that_are_not_finite_are_left_out_and_counted(store, tmp_path):
    x = X.copy()
    x[1, 0, 0] = np.nan
    assert import_file(store, save(tmp_path / "a.npz", x), split="train", now_ms=NOW_MS) == (5, 0, 1)
    assert "import.a.0.1" not in [row.id for row in rows(store)]


def test_a_file_that_does_not_fit_says_what_was_expected(store, tmp_path):
    with pytest.raises(DataError, match="expected float32 or uint8"):
        import_file(store, save(tmp_path / "a.npz", X.astype(np.float64)), split="train", now_ms=NOW_MS)
    assert rows(store) == []


def test_what_they_look_like_is_known_from_the_start(store, tmp_path):
    import_file(store, save(tmp_path / "a.npz"), split="train", now_ms=NOW_MS)
    with store.database.read() as connection:
        assert len(fingerprints.of(connection, [f"import.a.0.{row}" for row in range(6)])) == 6
