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
from server.config import Snapshot as Settings
from server.errors import StoreError, TrainingError
from server.govern.lineage import labelers_of
from server.store import consensus, labels, passing, questions, rules, snapshots
from server.store.labels import CANNOT_TELL, Label
from server.store.rules import Rule
from server.store.schema import sample
from server.store.snapshots import LeftOut, Member, identify
from server.store.store import Store
from server.teach import dataset
from server.teach import snapshot as snapshot_made
from server.teach.imports import import_file
from server.teach.listing import is_whole, shown
from server.teach.snapshot import freeze

pytestmark = pytest.mark.catalogues

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


def test_what_retention_removes_while_it_is_made_is_not_in_it(store, monkeypatch):
    look = snapshot_made._look

    def then_removed(*arguments):
        found = look(*arguments)
        monkeypatch.setattr(snapshot_made, "_look", look)
        with store.database.write() as connection:
            passing.remove(connection, connection.execute(sa.select(sample).where(sample.c.seq == 5)).all())
        return found

    monkeypatch.setattr(snapshot_made, "_look", then_removed)
    made = freeze(store, now_ms=NOW_MS)
    assert "cam-1.main.1.5" not in dict(frozen(store, made.id))
    assert made.train_count + made.holdout_count == 19


def test_the_same_labels_give_the_same_snapshot(store):
    first, again = freeze(store, now_ms=NOW_MS), freeze(store, now_ms=NOW_MS + 1)
    assert first == again
    assert (first.train_count + first.holdout_count, first.device_label_count) == (20, 20)
    assert first.classes == ("cat", "dog")


def test_what_waits_is_frozen_where_wanted_by_the_rules_for_what_teaches(store):
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)

    def comes(device: str, *numbers: int) -> None:
        ingest.take([message for seq in numbers for message in uploads(device, seq, selection=SELECTIONS[seq == 103])])

    comes("cam-1", 100, 101, 102, 103, 104)  # 103 is held out
    comes("cam-2", 100)
    with store.database.write() as connection:
        rules.add(connection, Rule(device="cam-2", uses=("evaluate",)), now_ms=NOW_MS)
    settings = Settings(embargo_samples=1, near_duplicates="keep")
    plain = freeze(store, now_ms=NOW_MS, settings=settings)
    made = freeze(store, now_ms=NOW_MS, settings=settings, unlabelled=True)
    assert made.id != plain.id
    assert made[2:5] == plain[2:5]  # classes and counts are of labels
    with store.database.read() as connection:
        waiting = [row.id for row in snapshots.unlabelled(connection, made.id)]
        assert waiting == ["cam-1.main.1.100", "cam-1.main.1.101"]  # not a neighbour of what is held out, not cam-2's
        assert snapshots.left_out(connection, made.id) == snapshots.left_out(connection, plain.id)
        assert snapshots.sample_ids(connection, made.id) == snapshots.sample_ids(connection, plain.id)
        assert is_whole(connection, made)
    assert shown(store, made.id)["by_split"]["unlabelled"] == 2
    assert frozen(store, made.id) == frozen(store, plain.id)
    with store.database.write() as connection:
        labels.add(connection, [Label("cam-1.main.1.100", 1, "ann", 3)])
        assert snapshots.count_new(connection, made.id) == 1  # a label is news, though the sample is not


def test_an_audit_that_waits_does_not_keep_what_teaches_from_being_frozen(store, monkeypatch):
    monkeypatch.setattr(snapshot_made, "UNLABELLED_MOST", 2)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    audit = [message for seq in range(100, 106) for message in uploads("cam-1", seq, selection=SELECTIONS[1])]
    ingest.take(audit + [message for seq in range(200, 203) for message in uploads("cam-1", seq)])
    made = freeze(store, now_ms=NOW_MS, settings=Settings(near_duplicates="keep"), unlabelled=True)
    with store.database.read() as connection:
        assert [row.seq for row in snapshots.unlabelled(connection, made.id)] == [200, 201]


def test_answers_that_were_taken_back_contradict_nobody(store):
    relabel(store, 3, 0)
    relabel(store, 4, 1)
    with store.database.write() as connection:
        questions.take_back(connection, questions.last_given(connection, "bob").id, now_ms=NOW_MS - 1)
        consensus.resolve(connection, ["cam-1.main.1.4"])
    made = freeze(store, now_ms=NOW_MS)
    with store.database.read() as connection:
        said = [(name, who) for name, _, who in labels.answers_of(connection, made.id) if who != "ann"]
        assert said == [("cam-1.main.1.3", "bob")]
        assert labelers_of(connection, made.id) == {"ann": 20, "bob": 1}


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
        ("informative", "train", 0.24),  # by the rule alone: by the floor it would have been held out
        ("random", "holdout", 0.01),
    }


def test_the_chance_of_having_been_asked_about_counts_too(store):
    with store.database.write() as connection:
        labels.add(connection, [Label(f"cam-1.main.1.{seq}", 0, "ann", 9, probability=0.5) for seq in (2, 3)])
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.read() as connection:
        found = {row.seq: row for row in snapshots.members(connection, snapshot.id)}
    assert (found[2].frozen_split, found[2].frozen_probability) == ("train", 0.12)
    assert (found[3].frozen_split, found[3].frozen_probability) == ("holdout", 0.01)  # the audit is asked about alike


members_of = st.lists(
    st.builds(
        Member,
        st.text(max_size=5),
        st.integers(0, 3),
        st.sampled_from(["train", "holdout"]),
        st.none() | st.floats(0.01, 1.0),
        st.sampled_from(["ann", "bob"]),
        st.none() | st.integers(0, 2),
        st.none() | st.just({"boxes": [[0, 0.25, 0.5, 0.5, 1.0, 1.0]]}) | st.just({"values": [[0, 2.5, 0.0]]}),
    ),
    unique_by=lambda member: member.sample_id,
)


@given(members_of, st.randoms())
def test_an_id_depends_on_the_members_and_not_on_their_order(members, random):
    mixed = list(members)
    random.shuffle(mixed)
    assert identify(mixed, ["a"]) == identify(members, ["a"])
    assert identify(members, ["a", "b"]) != identify(members, ["a"])
    assert identify(members, ["a"], left_out=[LeftOut("z", "too_new")]) != identify(members, ["a"])
    assert identify(members, ["a"], rules=[Rule()]) != identify(members, ["a"])
    if members:
        changed = [members[0]._replace(class_index=9), *members[1:]]
        assert identify(changed, ["a"]) != identify(members, ["a"])
        moved = [members[0]._replace(truth={"boxes": [[0, 0.25, 0.5, 0.5, 0.75, 1.0]]}), *members[1:]]
        assert identify(moved, ["a"]) != identify(members, ["a"])


def test_an_id_from_before_there_were_truths_is_the_same():
    members = [Member("a", 0, "train", None, "ann", 0), Member("b", 1, "holdout", 0.5)]
    assert identify(members, ["x", "y"]) == "9763a5dd6d20dca8a5b16bb51053609bc2b8e05c1ecd243575bc6f0650626401"


def test_the_arrays_are_what_the_devices_sent(store):
    data = dataset.load(store, freeze(store, now_ms=NOW_MS), takes=None)
    ids = sorted(f"cam-1.main.1.{seq}" for seq in range(20))
    with store.database.read() as connection:
        split = dict(connection.execute(sa.select(sample.c.id, sample.c.split)).all())
    held = [int(name.rsplit(".", 1)[1]) for name in ids if split[name] == "holdout"]
    np.testing.assert_array_equal(data.holdout.x, np.stack([image(seq) for seq in held]))
    assert data.holdout.y.tolist() == [seq % 2 for seq in held]
    assert len(data.train.x) + len(data.holdout.x) == 20
    assert (data.train.stream.all(), set(data.train.probability), data.left_out) == (True, {0.24}, 0)


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


def test_over_several_plans_the_probability_is_that_of_all_of_them(store):
    ids = [f"cam-1.main.1.{seq}" for seq in (4, 5, 6)]
    with store.database.write() as connection:  # three plans after the samples came, and one before
        for number, (one, plan) in enumerate(zip(ids, (NOW_MS + 1, NOW_MS + 2, NOW_MS + 3), strict=True)):
            labels.add(connection, [Label(one, 0, "ann", plan, 0.0, 0.5, plan, stands_for=1 + number)])
        labels.add(connection, [Label("cam-1.main.1.8", 0, "ann", NOW_MS - 9, 0.0, 0.5, NOW_MS - 9)])
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.read() as connection:
        found = {row.id: row.frozen_probability for row in snapshots.members(connection, snapshot.id)}
    # weights (1/p + m s) / n of n plans since it came, m of them later, s it stands for (server/audit/inclusion.py)
    weights = ((2 + 2 * 1) / 3, (2 + 1 * 2) / 3, (2 + 0 * 3) / 3)
    np.testing.assert_allclose([found[one] for one in ids], [0.24 / weight for weight in weights])
    assert found["cam-1.main.1.7"] == 0.01  # the audit: by the floor


def test_it_says_who_answered_and_that_it_is_whole(store):
    relabel(store, 4, 1)
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.read() as connection:
        assert {row.id: row.labeler for row in snapshots.members(connection, snapshot.id)}["cam-1.main.1.4"] == "bob"
        assert is_whole(connection, snapshot) is True
    with store.database.write() as connection:
        connection.exec_driver_sql("UPDATE snapshot_member SET labeler = 'eve' WHERE sample_id = 'cam-1.main.1.4'")
    with store.database.read() as connection:
        assert is_whole(connection, snapshot) is False


def test_pages_are_the_members(store):
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.read() as connection:
        every = [row.id for row in snapshots.members(connection, snapshot.id)]
        held = [row.id for row in snapshots.page(connection, snapshot.id, split="holdout", limit=3)]
        assert held == [one for one in every if one.rsplit(".", 1)[1] in ("3", "7", "11", "15", "19")][:3]
        assert [row.id for row in snapshots.page(connection, snapshot.id, after=every[6], limit=7)] == every[7:14]
        assert [row.id for page in snapshots.pages(connection, snapshot.id) for row in page] == every


def test_an_id_is_found_by_its_beginning(store):
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.read() as connection:
        assert snapshots.find(connection, snapshot.id[:6]) == snapshot
        for said in ("", snapshot.id[:5], "%%%%%%", "ffffffff"):
            with pytest.raises(StoreError, match="expected an id of `winnow-server snapshot list`"):
                snapshots.find(connection, said)


# --- what takes no part ----------------------------------------------------------------------------------------------


def why(store, snapshot) -> dict[str, str]:
    with store.database.read() as connection:
        return {one.sample_id: one.why for one in snapshots.left_out(connection, snapshot.id)}


def test_neighbours_of_what_is_held_out_are_left_out_when_told(store):
    snapshot = freeze(store, now_ms=NOW_MS, settings=Settings(embargo_samples=1))
    held = {3, 7, 11, 15, 19}
    beside = {seq for seq in range(20) if seq not in held and held & {seq - 1, seq + 1}}
    assert why(store, snapshot) == {f"cam-1.main.1.{seq}": "neighbour" for seq in beside}
    assert snapshot.train_count == 20 - len(held) - len(beside)


def test_whole_devices_are_held_out_when_told(store):
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message for seq in (50, 51) for message in uploads("cam-2", seq, selection=SELECTIONS[seq % 2])])
    with store.database.write() as connection:
        labels.add(connection, [Label(f"cam-2.main.1.{seq}", 0, "ann", 1) for seq in (50, 51)])
    snapshot = freeze(store, now_ms=NOW_MS, settings=Settings(holdout_devices=("cam-2",)))
    assert why(store, snapshot) == {"cam-2.main.1.50": "held_out_device"}
    assert "cam-2.main.1.51" in dict(frozen(store, snapshot.id))  # what was held out of it judges, as ever


def test_the_newest_hours_only_judge_when_told(store, tmp_path):
    np.savez(
        tmp_path / "new.npz", x=np.eye(6, dtype=np.float32)[None], y=np.zeros(1, int), names=np.array(["cat", "dog"])
    )
    import_file(store, tmp_path / "new.npz", split="train", now_ms=NOW_MS + 4 * 3_600_000)  # of no time of a stream
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    later = [msg._replace(received_ms=NOW_MS + 3 * 3_600_000) for seq in (40, 43) for msg in uploads(
        "cam-1", seq, selection=SELECTIONS[seq % 4 == 3])]  # fmt: skip
    ingest.take(later)
    with store.database.write() as connection:
        labels.add(connection, [Label(f"cam-1.main.1.{seq}", 0, "ann", 1) for seq in (40, 43)])
    snapshot = freeze(store, now_ms=NOW_MS, settings=Settings(forward_hours=2.0))
    assert why(store, snapshot) == {"cam-1.main.1.40": "too_new"}


def test_what_is_left_out_is_no_new_label_for_ever(store):
    """Else a round would follow upon the other."""
    snapshot = freeze(store, now_ms=NOW_MS, settings=Settings(embargo_samples=1))
    with store.database.read() as connection:
        assert snapshots.count_new(connection, "") == 20
        assert snapshots.count_new(connection, snapshot.id) == 0


# --- what is damaged --------------------------------------------------------------------------------------------------


def damage(store, *seqs: int) -> None:
    with store.database.read() as connection:
        names = [
            connection.scalar(sa.select(sample.c.body_sha256).where(sample.c.id == f"cam-1.main.1.{seq}"))
            for seq in seqs
        ]
    for name in names:
        store.blobs.delete(name)


def test_damaged_bodies_are_left_out_and_said(store):
    snapshot = freeze(store, now_ms=NOW_MS)
    damage(store, 3, 4)
    data = dataset.load(store, snapshot, takes=None)
    assert data.damaged == ("cam-1.main.1.4", "cam-1.main.1.3")
    assert (len(data.train.y), len(data.holdout.y)) == (14, 4)
    assert not {*data.damaged} & {*data.train.sample, *data.holdout.sample}


def test_too_many_damaged_bodies_are_refused(store):
    snapshot = freeze(store, now_ms=NOW_MS)
    damage(store, 3, 7, 11, 15)
    with pytest.raises(TrainingError, match="4 of 5 holdout samples are damaged, as cam-1.main.1.7: restore the blobs"):
        dataset.load(store, snapshot, takes=None)
    assert len(dataset.load(store, snapshot, takes=None, max_damaged_share=0.8).damaged) == 4


def test_a_damaged_body_does_not_keep_a_snapshot_from_being_made(store):
    damage(store, 3, 4)
    snapshot = freeze(store, now_ms=NOW_MS)
    assert (snapshot.train_count, snapshot.holdout_count) == (15, 5)


# --- shards of one ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 40])
def test_shards_together_are_what_one_reads_and_a_damaged_body_keeps_its_place(store, parts):
    snapshot = freeze(store, now_ms=NOW_MS)
    whole = dataset.load(store, snapshot, takes=None).train
    rows = dataset.members(store, snapshot, takes=None).train
    damage(store, int(rows[4].id.rpartition(".")[2]))
    read = [dataset.read(store, rows[dataset.shard(len(rows), part, parts)]) for part in range(parts)]
    x, sound = (np.concatenate([one[i] for one in read if len(one[1])]) for i in range(2))
    assert [row.id for row in rows] == whole.sample.tolist()
    assert np.flatnonzero(~sound).tolist() == [4]
    assert not x[4].any()
    np.testing.assert_array_equal(x[sound], whole.x[sound])
