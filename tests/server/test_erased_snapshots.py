"""What do snapshots, versions and reports know of what was forgotten?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from device_words import NOW_MS
from erasing import World, files_with, planted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.contract.artifact import decode_manifest
from server import config
from server.govern import card as cards
from server.govern.foreseen import foresee
from server.govern.lineage import trace
from server.govern.subject import Subject
from server.label.queue import Queue, Rules
from server.release.signing import Policy, Signing
from server.store import erasures, labels, questions, runs, snapshots, versions
from server.store.labels import Label
from server.store.questions import Queued
from server.store.schema import erased_member, label, metadata, reference, sample, snapshot_member
from server.store.snapshots import Member, Snapshot, identify
from server.teach.imports import import_file
from server.teach.snapshot import freeze


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def test_a_snapshot_that_lost_members_is_verified_still_and_one_that_somebody_changed_is_not(world: World) -> None:
    assert world.verified() == (16, 0, True)
    world.erase("sample", "cam-1.main.1.3")
    world.erase("device", "cam-2")
    assert world.verified() == (7, 9, True)
    with world.store.database.write() as connection:
        mine = snapshot_member.c.sample_id == "cam-1.main.1.2"
        connection.execute(sa.update(snapshot_member).where(mine).values(class_index=1))
    assert world.verified() == (7, 9, False)


def test_a_snapshot_that_was_changed_before_never_passes_for_whole(world: World) -> None:
    with world.store.database.write() as connection:
        mine = snapshot_member.c.sample_id == "cam-1.main.1.2"
        connection.execute(sa.update(snapshot_member).where(mine).values(class_index=1))
    assert world.erase("sample", "cam-1.main.1.3").unsound == (world.snapshot.id,)
    assert world.verified() == (15, 1, False)


def test_versions_that_learned_from_it_are_named_and_so_are_those_that_went_on_from_them(world: World) -> None:
    world.publish()
    with world.store.database.write() as connection:
        first = versions.get(connection, 1)
        versions.insert(connection, first._replace(number=2, parent=1, snapshot_id=""))
        versions.insert(connection, first._replace(number=3, parent=0, snapshot_id=""))
    held_out = world.erase("sample", "cam-1.main.1.3")  # drawn at random: it judges
    assert (held_out.learned, held_out.judged) == ((), (1,))
    assert world.erase("sample", "cam-1.main.1.4").learned == (1, 2)
    with world.store.database.read() as connection:
        assert erasures.learned(connection) == {1: [2], 2: [2]}


def test_who_learned_from_it_without_a_label_is_named_before_and_by_lineage_as_it_is_afterwards(world: World) -> None:
    world.send("cam-1", 20, 21)
    made = freeze(world.store, now_ms=NOW_MS, unlabelled=True)
    world.publish(snapshot=made.id)
    waits = "cam-1.main.1.20"
    assert trace(world.store, waits)["versions"]["learned"] == {1: 1}
    assert trace(world.store, "cam-1")["versions"]["learned"] == {1: 8}
    subject = Subject("sample", (waits,))
    with world.store.database.read() as connection:
        foreseen = foresee(connection, subject)
    done = world.erase("sample", waits)
    assert (foreseen.snapshots, foreseen.learned, foreseen.judged) == (1, done.learned, done.judged) == (1, (1,), ())


def test_of_a_labeler_no_more_is_foreseen_than_goes(world: World) -> None:
    world.publish()
    with world.store.database.write() as connection:
        labels.add(connection, [Label("cam-1.main.1.0", 0, "eve", NOW_MS + 1)])  # after it was frozen
    with world.store.database.read() as connection:
        foreseen = foresee(connection, Subject("labeler", ("eve",)))
    done = world.erase("labeler", "eve")
    assert (foreseen.snapshots, foreseen.learned) == (0, done.learned) == (0, ())


def test_a_golden_input_that_is_it_goes_out_of_the_manifest_and_the_others_stay(world: World) -> None:
    before = world.publish(4, 52)
    world.erase("device", "cam-1")
    with world.store.database.read() as connection:
        after = versions.get(connection, 1)
    assert after.manifest_sha256 != before.manifest_sha256
    golden = decode_manifest(world.store.blobs.get(after.manifest_sha256)).golden
    assert [len(golden.inputs.array()), len(golden.logits.array())] == [2, 2]
    np.testing.assert_array_equal(golden.inputs.array()[1], planted(52))
    assert not world.store.blobs.has(before.manifest_sha256)


def test_a_version_whose_manifest_lost_a_golden_input_is_signed_anew(world: World) -> None:
    signing = Signing(world.folder)
    signing.init(Policy(), now_ms=NOW_MS)
    before = world.publish(4, 52)
    signing.tick([before], now_ms=NOW_MS)
    assert signing.covers(before)
    world.erase("device", "cam-1")
    with world.store.database.read() as connection:
        after = versions.get(connection, 1)
    assert not signing.covers(after)
    signing.tick([after], now_ms=NOW_MS + 3_600_000)  # it looks every few seconds
    assert signing.covers(after)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_goes_in_whatever_order_a_snapshot_is_verified_and_any_other_change_is_found(empty, data) -> None:
    """Any members, any of them erased one after the other, and then any change to what is left."""
    members = [
        Member(f"cam-1.main.1.{n}", n % 2, "train" if n % 3 else "holdout", 0.5)
        for n in range(data.draw(st.integers(2, 6), label="members"))
    ]
    frozen = Snapshot(identify(members, ("a", "b")), 1, ("a", "b"), len(members), 0, len(members))
    connection = stack_of(empty, frozen, members)
    gone = data.draw(st.lists(st.sampled_from(members), max_size=len(members) - 1, unique=True), label="erased")
    for member in gone:
        assert erasures.seal(connection, frozen.id)
        take_out(connection, frozen.id, member)
    assert erasures.verify(connection, frozen.id) == (len(members) - len(gone), len(gone), True)
    left = data.draw(st.sampled_from([one for one in members if one not in gone]), label="changed")
    mine = snapshot_member.c.sample_id == left.sample_id
    change = data.draw(st.sampled_from([{"class_index": 1 - left.class_index}, {"probability": 0.4}, {}]), label="how")
    query = sa.update(snapshot_member).values(change) if change else sa.delete(snapshot_member)
    connection.execute(query.where(mine))
    assert not erasures.verify(connection, frozen.id).whole


@pytest.fixture
def empty():
    engine = sa.create_engine("sqlite://")
    yield engine
    engine.dispose()


def stack_of(engine: sa.Engine, frozen: Snapshot, members: list[Member]) -> sa.Connection:
    """A catalogue in memory that holds nothing but the snapshot."""
    connection = engine.connect()
    metadata.drop_all(connection)
    metadata.create_all(connection)
    snapshots.insert(connection, frozen, members)
    erasures.insert_erasure(connection, erasures.Erasure(0, 1, "sample", "", "", "", {}, {}, "", None))
    return connection


def take_out(connection: sa.Connection, snapshot_id: str, member: Member) -> None:
    sha256 = erasures.member_hash(erasures.make_key(connection), member)
    row = {"snapshot_id": snapshot_id, "sha256": sha256, "split": member.split, "erasure_id": 1}
    connection.execute(sa.insert(erased_member).values(row))
    connection.execute(sa.delete(snapshot_member).where(snapshot_member.c.sample_id == member.sample_id))


def test_a_card_of_a_version_that_went_on_from_one_that_learned_of_it_is_made_anew(world: World) -> None:
    world.publish()
    with world.store.database.write() as connection:
        first = versions.get(connection, 1)
        versions.insert(connection, first._replace(number=2, parent=1, snapshot_id=""))
    assert cards.keep(world.store, config.Govern(), now_ms=NOW_MS) == [1, 2]
    world.erase("sample", "cam-1.main.1.4")
    heir = cards.card(world.store, 2, config.Govern(), now_ms=NOW_MS)["model"]
    assert heir["lineage"]["erased_since"] == [1]
    assert "it learned from samples that were erased since, and is to be trained again" in heir["limits"]


def test_a_card_of_a_version_that_was_judged_by_it_is_made_anew(world: World) -> None:
    world.publish()
    cards.keep(world.store, config.Govern(), now_ms=NOW_MS)
    assert world.erase("sample", "cam-1.main.1.3").counts["card"] == 1
    assert cards.card(world.store, 1, config.Govern(), now_ms=NOW_MS)["data"]["erased"] == 1


def test_a_reference_that_was_computed_on_it_goes_and_one_that_was_not_stays(world: World, tmp_path: Path) -> None:
    for split in ("train", "holdout"):
        file = tmp_path / f"{split}.npz"
        np.savez(file, x=np.stack([planted(70), planted(71)]), y=np.zeros(2, int), names=np.array(["cat", "dog"]))
        import_file(world.store, file, split=split, now_ms=NOW_MS)
    kept = world.store.blobs.put(b"what a model says of them")
    with world.store.database.write() as connection:
        values = {"onnx_sha256": "0" * 64, "body_sha256": kept, "samples": 2, "at_ms": NOW_MS}
        connection.execute(sa.insert(reference).values(values))
        ids = dict(connection.execute(sa.select(sample.c.split, sample.c.id).where(sample.c.origin == "import")).all())
    assert world.erase("sample", ids["train"]).ordered == ()  # no device has it
    world.erase("device", "cam-1")
    assert (world.count(reference), world.store.blobs.has(kept)) == (1, True)
    world.erase("sample", ids["holdout"])
    assert (world.count(reference), world.store.blobs.has(kept)) == (0, False)


def test_a_golden_input_goes_out_of_a_manifest_that_names_another_snapshot(world: World) -> None:
    by_hand = world.publish(4, 52, snapshot="")
    world.erase("sample", "cam-1.main.1.4")
    with world.store.database.read() as connection:
        after = versions.get(connection, 1)
    assert len(decode_manifest(world.store.blobs.get(after.manifest_sha256)).golden.inputs.array()) == 2
    assert not world.store.blobs.has(by_hand.manifest_sha256)


def test_what_reports_say_of_it_by_name_goes_and_the_reports_stay(world: World) -> None:
    report = {"damaged": ["cam-1.main.1.4", "cam-2.main.1.52"], "train": 12}
    error = "2 of 12 train samples are damaged, as cam-1.main.1.4: restore the blobs"
    with world.store.database.write() as connection:
        number = runs.insert(
            connection, snapshot_id=world.snapshot.id, champion=0, recipe="", report=report, now_ms=NOW_MS
        )
        runs.fail(connection, number, error=error, now_ms=NOW_MS)
    assert world.erase("sample", "cam-1.main.1.4").counts["reports"] == 1
    with world.store.database.read() as connection:
        run = runs.get(connection, number)
    assert (run.report["damaged"][1:], run.report["train"]) == (["cam-2.main.1.52"], 12)
    assert run.error.endswith(": restore the blobs")
    assert "cam-1.main" not in repr(run)


def test_a_question_does_not_name_it_and_its_answer_stands_for_as_many(world: World) -> None:
    world.send("cam-2", 60, 61)
    asked = Queued("cam-2.main.1.60", "first", NOW_MS, probability=0.5, plan_ms=NOW_MS, beside=("cam-1.main.1.4",))
    with world.store.database.write() as connection:
        questions.put(connection, [asked])
    world.erase("device", "cam-1")
    assert files_with(world.folder, b"cam-1.main.") == []
    queue = Queue(world.store, Rules(), now_ms=lambda: NOW_MS, rng=np.random.default_rng(0))
    queue.answer("bob", "cam-2.main.1.60", "cat")
    with world.store.database.read() as connection:
        (said,) = connection.execute(sa.select(label).where(label.c.sample_id == "cam-2.main.1.60")).all()
    assert said.stands_for == 2
