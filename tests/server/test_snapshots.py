"""Does a snapshot stand still?"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, SELECTION, image, uploads
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.artifact import InputSpec
from server.collect.ingest import Ingest
from server.errors import TrainingError
from server.store import labels, snapshots
from server.store.labels import CANNOT_TELL, Label
from server.store.schema import sample
from server.store.snapshots import Member, identify
from server.store.store import Store
from server.teach import dataset
from server.teach.snapshot import freeze

SELECTIONS = (SELECTION, msgspec.structs.replace(SELECTION, reason="random"))


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message for seq in range(20) for message in uploads("cam-1", seq, selection=SELECTIONS[seq % 4 == 3])])
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat", "dog"])
        labels.add(connection, [Label(f"cam-1.main.1.{seq}", seq % 2, "ann", 1) for seq in range(20)])
    yield store
    store.close()


def relabel(store, seq: int, class_index: int) -> None:
    with store.database.write() as connection:
        labels.add(connection, [Label(f"cam-1.main.1.{seq}", class_index, "bob", 2)])


def frozen(store, snapshot_id: str) -> list[tuple[str, int]]:
    with store.database.read() as connection:
        return [(row.id, row.class_index) for row in snapshots.members(connection, snapshot_id)]


def test_the_same_labels_give_the_same_snapshot(store):
    first, again = freeze(store, now_ms=NOW_MS), freeze(store, now_ms=NOW_MS + 1)
    assert first == again
    assert (first.train_count + first.holdout_count, first.device_label_count) == (20, 20)
    assert first.classes == ("cat", "dog")


def test_it_does_not_change_when_labels_do(store):
    first = freeze(store, now_ms=NOW_MS)
    before = frozen(store, first.id)
    relabel(store, 3, 0)
    relabel(store, 4, CANNOT_TELL)
    second = freeze(store, now_ms=NOW_MS)
    assert frozen(store, first.id) == before
    assert first.id != second.id
    assert dict(frozen(store, second.id)).get("cam-1.main.1.3") == 0
    assert "cam-1.main.1.4" not in dict(frozen(store, second.id))


def test_splits_are_those_of_arrival_and_probabilities_are_kept(store):
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.read() as connection:
        members = snapshots.members(connection, snapshot.id)
    assert {(row.reason, row.frozen_split, row.frozen_probability) for row in members} == {
        ("informative", "train", 0.25),
        ("random", "holdout", 0.01),
    }


def test_the_chance_of_having_been_asked_about_counts_too(store):
    with store.database.write() as connection:
        labels.add(connection, [Label(f"cam-1.main.1.{seq}", 0, "ann", 9, probability=0.5) for seq in (2, 3)])
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.read() as connection:
        found = {row.seq: row for row in snapshots.members(connection, snapshot.id)}
    assert (found[2].frozen_split, found[2].frozen_probability) == ("train", 0.125)
    assert (found[3].frozen_split, found[3].frozen_probability) == ("holdout", 0.01)  # the audit is asked about alike


members_of = st.lists(
    st.builds(Member, st.text(max_size=5), st.integers(0, 3), st.sampled_from(["train", "holdout"]), st.none()),
    unique_by=lambda member: member.sample_id,
)


@given(members_of, st.randoms())
def test_an_id_depends_on_the_members_and_not_on_their_order(members, random):
    mixed = list(members)
    random.shuffle(mixed)
    assert identify(mixed, ["a"]) == identify(members, ["a"])
    assert identify(members, ["a", "b"]) != identify(members, ["a"])
    if members:
        changed = [members[0]._replace(class_index=9), *members[1:]]
        assert identify(changed, ["a"]) != identify(members, ["a"])


def test_the_arrays_are_what_the_devices_sent(store):
    data = dataset.load(store, freeze(store, now_ms=NOW_MS), takes=None)
    ids = sorted(f"cam-1.main.1.{seq}" for seq in range(20))
    with store.database.read() as connection:
        split = dict(connection.execute(sa.select(sample.c.id, sample.c.split)).all())
    held = [int(name.rsplit(".", 1)[1]) for name in ids if split[name] == "holdout"]
    np.testing.assert_array_equal(data.holdout.x, np.stack([image(seq) for seq in held]))
    assert data.holdout.y.tolist() == [seq % 2 for seq in held]
    assert len(data.train.x) + len(data.holdout.x) == 20
    assert (data.train.stream.all(), set(data.train.probability), data.left_out) == (True, {0.25}, 0)


def test_samples_of_another_shape_are_left_out_and_counted(store):
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take(uploads("cam-2", 1, data=image(1, (9, 9))))
    with store.database.write() as connection:
        labels.add(connection, [Label("cam-2.main.1.1", 0, "ann", 1)])
    snapshot = freeze(store, now_ms=NOW_MS)
    assert dataset.load(store, snapshot, takes=None).left_out == 1
    with pytest.raises(TrainingError, match=r"no train sample of \(5, 5\) uint8, but 20 of \(6, 6\) uint8"):
        dataset.load(store, snapshot, takes=InputSpec(name="x", shape=(5, 5), dtype="uint8"))


def test_nothing_labelled_says_what_to_do(tmp_path):
    store = Store.open(tmp_path / "empty")
    with pytest.raises(TrainingError, match="import data, or connect devices"):
        dataset.load(store, freeze(store, now_ms=NOW_MS), takes=None)
    store.close()
