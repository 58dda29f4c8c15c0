"""Are planted mistakes found, and looked at again?"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import quadrants
from device_words import FLEET, NOW_MS, uploads

from server.collect.ingest import Ingest
from server.errors import LabelError
from server.label import orders, suspects
from server.label.queue import Queue, Rules
from server.release.registry import add_artifact
from server.store import labels
from server.store.labels import Label
from server.store.store import Store

pytestmark = pytest.mark.skipif(importlib.util.find_spec("cleanlab") is None, reason="cleanlab is not installed")
COUNT = 160


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    with store.database.write() as connection:
        labels.ensure_names(connection, ["a", "b", "c", "d"])
    yield store
    store.close()


def planted(store, tmp_path, *, mistakes: int) -> set[str]:
    """Bright images, so that the truth is plain; returns the ids of those whose label is wrong."""
    quadrants.artifact(tmp_path / "artifact", version=1)
    add_artifact(store, tmp_path / "artifact", weights=None, now_ms=NOW_MS)
    x, y = quadrants.images(3 * COUNT)
    bright = np.argsort(-x.reshape(len(x), -1).max(axis=1), kind="stable")[:COUNT]
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message for seq, i in enumerate(bright) for message in uploads("cam-1", seq, data=x[i])])
    wrong = set(np.random.default_rng(0).choice(COUNT, mistakes, replace=False).tolist())
    said = [(int(y[i]) + (seq in wrong)) % 4 for seq, i in enumerate(bright)]
    with store.database.write() as connection:
        labels.add(connection, [Label(f"cam-1.main.1.{seq}", k, "ann", NOW_MS) for seq, k in enumerate(said)])
    return {f"cam-1.main.1.{seq}" for seq in wrong}


def test_planted_mistakes_are_found_and_a_second_look_mends_them(store, tmp_path):
    wrong = planted(store, tmp_path, mistakes=12)
    found = suspects.find(store)
    assert (found.judged, found.left_out) == (COUNT, 0)
    named = {one.sample_id: one for one in found.suspects}
    assert len(wrong & named.keys()) >= 10  # recall
    assert len(wrong & named.keys()) >= 0.8 * len(named)  # precision
    assert all(one.own_probability < one.suggested_probability for one in named.values())
    with store.database.write() as connection:
        orders.look_again(connection, list(named), who="boss", why="suspected", now_ms=NOW_MS + 1)
    queue = Queue(store, Rules(), now_ms=lambda: NOW_MS + 2, rng=np.random.default_rng(0))
    tasks = queue.next("ann", count=99)
    assert {task.sample_id for task in tasks} == named.keys()
    for task in tasks:
        queue.answer("ann", task.sample_id, named[task.sample_id].suggested)
    again = suspects.find(store)
    assert not {one.sample_id for one in again.suspects} & named.keys()  # nobody is asked for ever
    assert again.judged == COUNT - len(named)


def test_without_a_champion_or_labels_it_says_so(store, tmp_path):
    with pytest.raises(LabelError, match="no champion"):
        suspects.find(store)
    quadrants.artifact(tmp_path / "artifact", version=1)
    add_artifact(store, tmp_path / "artifact", weights=None, now_ms=NOW_MS)
    with pytest.raises(LabelError, match="0 labels: expected two classes with 5 each"):
        suspects.find(store)


def test_clean_labels_are_left_alone(store, tmp_path):
    planted(store, tmp_path, mistakes=0)
    assert len(suspects.find(store).suspects) <= COUNT * 0.03
