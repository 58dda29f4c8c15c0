"""Is what was to be forgotten forgotten: every row, every byte, for ever?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, OUTBOX, SELECTION, answers, birth, frames, heartbeat, message, uploads
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quadrants import artifact

from edge_agent.contract.artifact import Golden, Tensor, decode_manifest
from edge_agent.contract.wire import PURGE_SAMPLES_MAX, PURGES_MAX, Desired, Purge, Purged, decode, encode
from server import config
from server.__main__ import main
from server.collect.ingest import Ingest
from server.errors import GovernError, StoreError
from server.govern import card as cards
from server.govern.erase import KEPT, erase
from server.govern.lineage import of_labeler
from server.govern.scrub import finish
from server.govern.subject import Subject
from server.label.labeler import Given
from server.label.queue import Queue, Rules
from server.release.fleet import Fleet
from server.release.registry import add_artifact
from server.release.signing import Policy, Signing
from server.status import fleet as fleet_rows
from server.store import (
    devices,
    embeddings,
    erasures,
    labels,
    questions,
    requests,
    runs,
    samples,
    snapshots,
    trail,
    users,
    versions,
)
from server.store.database import sqlite3
from server.store.embeddings import Embedding
from server.store.labels import Label
from server.store.questions import Queued
from server.store.schema import (
    doomed_blob,
    duplicate,
    erased_member,
    event,
    label,
    metadata,
    part,
    quarantine,
    reference,
    sample,
    snapshot_member,
    version,
)
from server.store.snapshots import Member, Snapshot, identify
from server.store.store import Store
from server.teach import snapshot as snapshot_of
from server.teach.imports import import_file
from server.teach.snapshot import freeze
from server.teach.splits import sort_out

RANDOM = msgspec.structs.replace(SELECTION, reason="random")
SHAPE = (40, 40)  # of noise: as it is in the blobs, since nothing makes it smaller
WHY = "its owner asked"


def planted(seq: int) -> np.ndarray:
    return np.random.default_rng(1000 + seq).integers(0, 256, SHAPE, np.uint8)


def files_with(folder: Path, what: bytes) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and what in path.read_bytes()]


def marks(seq: int) -> list[bytes]:
    """Pieces of a sample: nobody else's bytes are like these."""
    raw = planted(seq).tobytes()
    return [raw[:24], raw[800:824], raw[-24:]]


class World:
    """A store with two devices, what they sent labelled and frozen, and a version that learned from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        self.store = Store.open(self.folder)
        self.ingest = Ingest(self.store, fleet=FLEET, offline_after_s=90.0)
        for name, first in (("cam-1", 0), ("cam-2", 50)):
            self.send(name, *range(first, first + 8))
            self.hears(name, encode(heartbeat("s")))
        with self.store.database.write() as connection:
            labels.ensure_names(connection, ["cat", "dog"])
            rows = connection.execute(sa.select(sample.c.id, sample.c.seq).order_by(sample.c.id)).all()
            labels.add(connection, [Label(row.id, row.seq % 2, "ann" if row.seq < 50 else "bob", 1) for row in rows])
            vectors = [Embedding(row.id, 1, np.full(64, row.seq, np.float16), np.zeros(2, np.float16)) for row in rows]
            embeddings.put(connection, vectors)
        self.snapshot = freeze(self.store, now_ms=NOW_MS)

    def send(self, name: str, *numbers: int, **how: object) -> dict[str, str]:
        sent = [
            m
            for seq in numbers
            for m in uploads(name, seq, data=planted(seq), selection=RANDOM if seq % 4 == 3 else SELECTION, **how)
        ]
        return answers(self.ingest.take(sent).receipts)

    def hears(self, name: str, payload: bytes, kind: str = "heartbeat") -> None:
        self.ingest.take([message(name, kind, payload)])

    def erase(self, kind: str, *names: str):
        return erase(self.store, Subject(kind, names), who="ada", why=WHY, now_ms=NOW_MS + 1)

    def count(self, table: sa.Table, where: sa.ColumnElement[bool] | None = None) -> int:
        with self.store.database.read() as connection:
            query = sa.select(sa.func.count()).select_from(table)
            return connection.scalar(query if where is None else query.where(where))

    def verified(self) -> erasures.Known:
        with self.store.database.read() as connection:
            return erasures.verify(connection, self.snapshot.id)

    def publish(self, *golden: int, folder: str = "model", snapshot: str | None = None) -> versions.Version:
        """A version of the snapshot, whose golden inputs are these samples."""
        changes: dict[str, object] = {"snapshot": self.snapshot.id if snapshot is None else snapshot}
        if golden:
            inputs = np.stack([np.zeros(SHAPE, np.uint8), *(planted(seq) for seq in golden)])
            logits = np.zeros((len(inputs), 4), np.float32)
            changes["golden"] = Golden(inputs=Tensor.of(inputs), logits=Tensor.of(logits), tolerance=1.0)
        manifest = artifact(self.folder.parent / folder, **changes)
        if golden:
            spec = msgspec.structs.replace(manifest.input, shape=SHAPE)
            artifact(self.folder.parent / folder, **changes, input=spec)
        return add_artifact(self.store, self.folder.parent / folder, weights=None, now_ms=NOW_MS)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def test_no_byte_of_a_device_is_left_in_any_file_though_a_server_has_them_open(world: World) -> None:
    server = Store.open(world.folder)  # as the running server does, which goes on
    with server.database.read() as connection:
        samples.sample_counts(connection)
    header = frames("cam-1", 90, data=np.random.default_rng(7).integers(0, 256, (700, 700), np.uint8))
    world.ingest.take([message("cam-1", "sample", header[0])])  # the first part of one that never became whole
    world.ingest.take([message("cam-1", "sample", frames("cam-1", 91, data=planted(91), dtype="rubbish")[0])])
    assert (world.count(part), world.count(quarantine)) == (1, 1)
    first_part = header[0][-40:]
    every = [mark for seq in (*range(8), 91) for mark in marks(seq)] + [first_part, b"cam-1.main."]
    assert all(files_with(world.folder, what) for what in every)

    world.hears("cam-1", encode(birth("s")), "birth")
    done = world.erase("device", "cam-1")
    assert [files_with(world.folder, what) for what in every] == [[]] * len(every)
    with server.database.read() as connection:
        said = devices.get(connection, "cam-1")
    assert said is not None
    assert (said.birth, said.heartbeat) == (None, None)
    assert all(files_with(world.folder, mark) for seq in range(50, 58) for mark in marks(seq))
    assert done.counts["sample"] == 8
    assert done.counts["snapshot_member"] == 8
    assert world.count(sample) == 8
    assert world.count(doomed_blob) == 0
    with server.database.read() as connection:
        assert samples.sample_counts(connection).keys() == {"cam-2"}
        assert not erasures.unfinished(connection)
    server.close()


def test_what_is_kept_of_it_says_who_when_and_why_but_nothing_of_it(world: World) -> None:
    done = world.erase("sample", "cam-1.main.1.3", "cam-1.main.1.4")
    with world.store.database.read() as connection:
        (kept,) = erasures.every(connection)
        (entry,) = trail.entries(connection)
        assert trail.verify(connection) is None
    assert (kept.at_ms, kept.who, kept.why, kept.kind) == (NOW_MS + 1, "ada", WHY, "sample")
    assert (kept.counts, kept.boots) == (done.counts, {"cam-1": {"1": 2}})
    assert (entry.what, entry.who, entry.why) == ("erase", "ada", WHY)
    assert entry.detail["tombstones_sha256"] == kept.sha256
    said = repr((kept, entry))
    assert "main.1.3" not in said


def test_it_is_refused_when_it_comes_again_and_its_device_is_to_forget_it(world: World) -> None:
    world.erase("sample", "cam-1.main.1.3")
    taken = world.ingest.take(uploads("cam-1", 3, data=planted(3)) + uploads("cam-1", 9, data=planted(9)))
    ((_, receipt),) = taken.receipts
    assert receipt.accepted == ("cam-1.main.1.9",)
    assert receipt.erased == ("cam-1.main.1.3",)
    assert "erased (erasure 1)" in receipt.refused["cam-1.main.1.3"]
    assert [files_with(world.folder, mark) for mark in marks(3)] == [[], [], []]
    assert world.count(quarantine) == 0


def test_one_that_has_not_come_yet_may_be_erased_and_never_comes(world: World) -> None:
    assert world.erase("sample", "cam-1.main.1.77").counts == {}
    assert world.send("cam-1", 77) == {"cam-1.main.1.77": "refused"}


def test_of_an_erased_device_nothing_is_taken_until_it_has_purged_and_then_what_is_new(world: World) -> None:
    world.erase("device", "cam-1")
    assert set(world.send("cam-1", 1, 20, boot=1).values()) == {"refused"}
    assert set(world.send("cam-1", 0, boot=9).values()) == {"refused"}
    said = birth("s", boot=9, outbox=msgspec.structs.replace(OUTBOX, purged=Purged(id=1, boot=9, seq=4)))
    new, old = uploads("cam-1", 5, boot=9, data=planted(5)), uploads("cam-1", 4, boot=9, data=planted(4))
    told = answers(world.ingest.take([message("cam-1", "birth", encode(said)), *old, *new]).receipts)
    assert told == {"cam-1.main.9.4": "refused", "cam-1.main.9.5": "accepted"}
    assert world.send("cam-1", 20, boot=1) == {"cam-1.main.1.20": "refused"}
    assert world.send("cam-1", 0, boot=10) == {"cam-1.main.10.0": "accepted"}


def test_a_device_is_told_of_no_more_orders_at_once_than_a_message_may_carry(world: World) -> None:
    made = erasures.Erasure(0, NOW_MS, "sample", "", "ada", WHY, {}, {}, "", None)
    with world.store.database.write() as connection:
        for seq in range(PURGES_MAX + 2):
            erasures.order(connection, erasures.insert_erasure(connection, made), {"cam-1": [f"cam-1.main.1.{seq}"]})
        told = erasures.orders(connection)["cam-1"]
        assert [purge.id for purge in told] == list(range(1, PURGES_MAX + 1))
        erasures.heard(connection, "cam-1", Purged(id=PURGES_MAX, boot=1, seq=8))
        assert [purge.id for purge in erasures.orders(connection)["cam-1"]] == [PURGES_MAX + 1, PURGES_MAX + 2]


def test_a_device_that_obeyed_an_earlier_order_has_not_obeyed_a_later_one(world: World) -> None:
    outbox = msgspec.structs.replace(OUTBOX, purged=Purged(id=1, boot=1, seq=8))
    world.erase("device", "cam-1")
    world.hears("cam-1", encode(heartbeat("s", outbox=outbox)))
    assert world.send("cam-1", 20) == {"cam-1.main.1.20": "accepted"}
    world.erase("device", "cam-1")
    world.hears("cam-1", encode(heartbeat("s", outbox=outbox)))
    assert world.send("cam-1", 21) == {"cam-1.main.1.21": "refused"}
    with world.store.database.read() as connection:
        assert erasures.orders(connection) == {"cam-1": (Purge(id=2),)}


def test_what_an_erased_device_sends_wrongly_is_counted_but_not_kept(world: World) -> None:
    world.erase("device", "cam-1")
    world.ingest.take([message("cam-1", "sample", frames("cam-1", 91, data=planted(91), dtype="rubbish")[0])])
    assert world.count(quarantine) == 1
    assert [files_with(world.folder, mark) for mark in marks(91)] == [[], [], []]


def test_devices_are_told_to_purge_until_they_say_that_they_did(world: World) -> None:
    told: list[tuple[str, Desired]] = []

    def publish(topic: str, payload: bytes, **_how: object) -> None:
        told.append((topic.split("/")[3], decode(Desired, payload)))

    looks = Fleet(world.store, fleet=FLEET, rules=config.Rollout(), publish=publish)
    looks.tick(NOW_MS)
    told.clear()
    world.erase("device", "cam-1")
    world.erase("sample", "cam-2.main.1.50", "cam-2.main.1.51")
    looks.tick(NOW_MS + 1000)
    assert {name: desired.purges for name, desired in told} == {
        "cam-1": (Purge(id=1),),
        "cam-2": (Purge(id=2, samples=("cam-2.main.1.50", "cam-2.main.1.51")),),
    }
    told.clear()
    for name, number in (("cam-1", 1), ("cam-2", 2)):
        outbox = msgspec.structs.replace(OUTBOX, purged=Purged(id=number, boot=1, seq=8))
        world.hears(name, encode(heartbeat("s", outbox=outbox)))
    looks.tick(NOW_MS + 2000)
    assert sorted((name, desired.purges) for name, desired in told) == [("cam-1", ()), ("cam-2", ())]
    world.store.database.forget_deleted()
    assert files_with(world.folder, b"cam-2.main.1.50") == []  # nor is what was ordered kept


def test_pieces_of_it_and_messages_that_named_it_go_and_others_stay(world: World) -> None:
    for seq in (90, 92):
        large = np.random.default_rng(seq).integers(0, 256, (700, 700), np.uint8)
        world.ingest.take([message("cam-1", "sample", frames("cam-1", seq, data=large)[0])])
        bad = frames("cam-1", seq + 1, data=planted(seq + 1), dtype="rubbish")
        world.ingest.take([message("cam-1", "sample", bad[0])])
    done = world.erase("sample", "cam-1.main.1.90", "cam-1.main.1.91")
    assert (done.counts["part"], done.counts["quarantine"]) == (1, 1)
    assert [files_with(world.folder, mark) for mark in marks(91)] == [[], [], []]
    assert all(files_with(world.folder, mark) for mark in marks(93))
    assert (world.count(part), world.count(quarantine)) == (1, 1)


def test_the_counts_of_a_device_still_add_up(world: World) -> None:
    outbox = msgspec.structs.replace(OUTBOX, put_total=10, acked_total=8, evicted={"full_rows": 2}, since_boot=1)
    world.hears("cam-1", encode(heartbeat("s", outbox=outbox)))
    world.erase("sample", "cam-1.main.1.3")
    (row,) = [row for row in fleet_rows(world.store) if row["device"] == "cam-1"]
    assert (row["stored"], row["missing"]) == (7, 0)


def test_a_body_that_another_sample_shares_stays_until_that_goes_too(world: World) -> None:
    world.ingest.take(uploads("cam-2", 99, data=planted(3)))
    world.erase("sample", "cam-1.main.1.3")
    with world.store.database.read() as connection:
        (row,) = samples.rows(connection, ["cam-2.main.1.99"])
    np.testing.assert_array_equal(samples.sample_array(world.store, row), planted(3))
    world.erase("sample", "cam-2.main.1.99")
    assert [files_with(world.folder, mark) for mark in marks(3)] == [[], [], []]


def test_bytes_that_a_version_has_for_something_else_stay(world: World) -> None:
    world.publish()
    with world.store.database.write() as connection:
        rows = {row.seq: row.body_sha256 for row in samples.rows(connection, ["cam-1.main.1.3", "cam-1.main.1.4"])}
        connection.execute(sa.update(version).values(weights_sha256=rows[3]))
    world.erase("sample", "cam-1.main.1.3", "cam-1.main.1.4")
    assert (world.store.blobs.has(rows[3]), world.store.blobs.has(rows[4])) == (True, False)


# --- snapshots and versions ---


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


# --- labelers ---


def test_what_a_labeler_answered_goes_with_the_name_and_the_samples_wait_again(world: World) -> None:
    done = world.erase("labeler", "ann")
    assert (done.counts["label"], done.counts["snapshot_member"]) == (8, 8)
    assert world.count(sample) == 16
    with world.store.database.read() as connection:
        assert labels.counts(connection).waiting == 8
    assert world.verified() == (8, 8, True)
    assert world.send("cam-1", 3) == {"cam-1.main.1.3": "duplicate"}


def test_a_snapshot_from_before_a_labeler_answered_keeps_its_members(world: World) -> None:
    world.publish()
    late = [Label(f"cam-1.main.1.{seq}", seq % 2, "eve", NOW_MS + 1) for seq in range(3)]
    taken_back = Label("cam-1.main.1.4", 0, "eve", NOW_MS - 2)
    with world.store.database.write() as connection:
        labels.add(connection, [*late, taken_back])
        connection.execute(sa.update(label).where(label.c.at_ms == NOW_MS - 2).values(undone_at_ms=NOW_MS - 1))
        assert of_labeler(connection, "eve")["versions"]["learned"] == {}
    done = world.erase("labeler", "eve")
    assert (done.learned, done.counts.get("snapshot_member", 0), done.counts["label"]) == ((), 0, 4)
    assert world.verified() == (16, 0, True)


def test_what_stood_with_a_sample_that_nobody_else_answered_waits_again(world: World) -> None:
    world.send("cam-2", 60, 61)
    with world.store.database.write() as connection:
        labels.spare(connection, {"cam-2.main.1.60": "cam-1.main.1.1", "cam-2.main.1.61": "cam-2.main.1.50"})
    world.erase("labeler", "ann")
    with world.store.database.read() as connection:
        left = connection.execute(sa.select(duplicate)).all()
        waiting = {row.id for row in labels.waiting(connection, limit=50)}
    assert [row.sample_id for row in left] == ["cam-2.main.1.61"]
    assert {"cam-1.main.1.1", "cam-2.main.1.60"} <= waiting


def test_answers_of_an_erased_labeler_that_come_again_are_not_kept(world: World) -> None:
    queue = Queue(world.store, Rules(), now_ms=lambda: NOW_MS, rng=np.random.default_rng(0))
    given = Given("cam-1.main.1.1", "dog", "label_studio:eve@example.org", "label_studio", 1.0, "label_studio:7:noon")
    assert queue.take_in([given]) == 1
    world.erase("labeler", "label_studio:eve@example.org")
    queue.take_in([given])  # a server that was started anew asks for all of them once more
    assert files_with(world.folder, b"eve@example.org") == []
    queue.take_in([given._replace(key="label_studio:8:noon", labeler="label_studio:dan")])
    assert world.count(label, label.c.labeler == "label_studio:dan") == 1


def test_a_labeler_who_may_sign_in_has_no_account_any_more(world: World) -> None:
    with world.store.database.write() as connection:
        for name in ("ann", "dan"):
            users.add(connection, name, "labeler", password_hash="secret-of-" + name, by="root", now_ms=NOW_MS)
            users.open_session(
                connection, name, secret_sha256=name, csrf="c", now_ms=NOW_MS, expires_at_ms=NOW_MS + 1000
            )
            users.add_token(connection, name, "t", secret_sha256=name, expires_at_ms=None, by="root", now_ms=NOW_MS)
    done = world.erase("labeler", "ann")
    assert {name: done.counts[name] for name in ("user", "web_session", "api_token")} == {
        "user": 1, "web_session": 1, "api_token": 1,
    }  # fmt: skip
    assert files_with(world.folder, b"secret-of-ann") == []
    with world.store.database.read() as connection:
        assert users.of_session(connection, "ann", now_ms=NOW_MS) is None
        assert users.of_session(connection, "dan", now_ms=NOW_MS) is not None
    assert world.erase("labeler", "dan").counts == {"user": 1, "web_session": 1, "api_token": 1}  # answered nothing


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("device", "cam-11", "device 'cam-11' is unknown (did you mean 'cam-1'?)"),
        ("labeler", "an", "labeler 'an' is unknown (did you mean 'ann'?)"),
        ("sample", "cam-9.main.1.1", "expected device.stream.boot.sequence, of a device that is known"),
    ],
)
def test_what_nobody_knows_cannot_be_erased(world: World, kind: str, name: str, said: str) -> None:
    with pytest.raises(GovernError) as error:
        world.erase(kind, name)
    assert said in str(error.value)


def test_too_many_samples_for_one_order_are_refused_and_none_goes(world: World) -> None:
    with pytest.raises(GovernError, match="samples: expected .* at most in one erasure"):
        world.erase("sample", *(f"cam-1.main.1.{seq}" for seq in range(PURGE_SAMPLES_MAX + 1)))
    assert world.count(sample) == 16


def test_by_command(world: World, tmp_path: Path, capsys) -> None:
    toml = tmp_path / "server.toml"
    toml.write_text(f'[server]\nfleet = "{FLEET}"\ndata_dir = "{world.folder}"\n[labeler]\nkind = "label_studio"\n')

    def told(*words: str, code: int = 0) -> str:
        assert main(["erase", *words, str(toml)]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    world.publish()
    assert "expected one of --device, --sample and --labeler" in told("--why", "x", code=1)
    assert "expected one of" in told("--why", "x", "--device", "cam-1", "--labeler", "ann", code=1)
    assert "and a reason" in told("--why", " ", "--device", "cam-1", code=1)
    assert world.count(sample) == 16
    said = told("--sample", "cam-1.main.1.4", "--sample", "cam-1.main.1.3", "--why", WHY, "--by", "ada").splitlines()
    assert said[0].startswith("erasure 1: ")
    assert "2 of sample" in said[0]
    assert said[1:] == [
        "version 1 learned from it: to be trained again, from scratch",
        "judged by it: versions 1",
        "cam-1 is told to purge; what it sends of it until then is refused",
        "not here, so not erased: tasks of Label Studio, http://127.0.0.1:8080, project 1: look for sample_uid",
    ]
    done = json.loads(told("--labeler", "bob", "--why", WHY, "--json"))
    assert (done["id"], done["counts"]["label"], done["learned"]) == (2, 8, [1])
    with world.store.database.read() as connection:
        first, _ = trail.entries(connection, limit=2)
    assert (first.who, first.why) == ("ada", WHY)


# --- when something goes wrong, and when others add tables ---


def test_bytes_that_could_not_be_deleted_at_once_are_deleted_later(world: World) -> None:
    shard = sqlite3.connect(next((world.folder / "blobs").glob("*.db")), timeout=0.1, isolation_level=None)
    shard.execute("BEGIN IMMEDIATE")  # somebody writes into the shard for a very long time
    for one in world.store.blobs._shards:
        one._connection.execute("PRAGMA busy_timeout = 50")
    with pytest.raises(StoreError):
        world.erase("sample", "cam-1.main.1.4")
    assert world.send("cam-1", 4) == {"cam-1.main.1.4": "refused"}
    assert files_with(world.folder, marks(4)[1])
    shard.execute("ROLLBACK")
    shard.close()
    finish(world.store, now_ms=NOW_MS + 2)
    assert [files_with(world.folder, mark) for mark in marks(4)] == [[], [], []]


def test_what_points_at_it_in_any_table_goes(world: World) -> None:
    with world.store.database.write() as connection:
        devices.record_event(connection, "cam-1", decode_event(), now_ms=NOW_MS)
        connection.execute(sa.insert(duplicate).values(sample_id="cam-2.main.1.50", stands_with="cam-1.main.1.1"))
        asked = requests.Request(0, "cam-1.main.1.2", None, 0.9, 5, NOW_MS, NOW_MS + 10)
        requests.insert(connection, asked)
    done = world.erase("device", "cam-1")
    assert {"event", "duplicate", "request", "label", "embedding"} <= done.counts.keys()
    assert world.count(event, event.c.device == "cam-1") == 0
    left = {
        table.name
        for table in metadata.sorted_tables
        if "device" in table.c and world.count(table, table.c.device == "cam-1")
    }
    assert left <= set(KEPT)


def decode_event():
    from device_words import event as said

    return said(1)


def test_of_a_round_that_is_at_it_with_some_of_it_nothing_comes(world: World) -> None:
    with world.store.database.write() as connection:
        number = runs.insert(connection, snapshot_id=world.snapshot.id, champion=0, recipe="", report={}, now_ms=NOW_MS)
    world.erase("sample", "cam-1.main.1.4")
    with world.store.database.read() as connection:
        ended = runs.get(connection, number)
    assert (ended.state, ended.error) == ("failed", "some of what it learns from was erased meanwhile")


def test_copies_that_were_carried_away_are_named(world: World) -> None:
    with world.store.database.write() as connection:
        for what, of in (("export", world.snapshot.id), ("export", "0" * 64), ("publish", world.snapshot.id)):
            trail.record(connection, what, f"snapshot {of}", why="", who="eve", now_ms=NOW_MS)
    away = world.erase("sample", "cam-1.main.1.4").elsewhere
    assert away == (f"export of snapshot {world.snapshot.id[:12]} by eve (audit entry 1)",)


def test_what_is_erased_while_a_snapshot_is_made_is_not_in_it(world: World, monkeypatch) -> None:
    def sorted_out(*args: object) -> list:
        monkeypatch.undo()
        world.erase("sample", "cam-1.main.1.4", "cam-1.main.1.3")  # somebody, just then
        return sort_out(*args)

    monkeypatch.setattr(snapshot_of, "sort_out", sorted_out)
    made = freeze(world.store, now_ms=NOW_MS + 5)
    with world.store.database.read() as connection:
        assert len(snapshots.sample_ids(connection, made.id)) == 14


def test_a_version_frozen_later_holds_nothing_of_it(world: World) -> None:
    world.erase("device", "cam-1")
    again = freeze(world.store, now_ms=NOW_MS + 5)
    with world.store.database.read() as connection:
        assert len(snapshots.sample_ids(connection, again.id)) == 8
