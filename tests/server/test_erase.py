"""Is what was to be forgotten forgotten: every row, every byte, for ever?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, OUTBOX, answers, birth, frames, heartbeat, message, uploads
from erasing import WHY, World, files_with, marks, planted

from edge_agent.contract.wire import PURGE_SAMPLES_MAX, PURGES_MAX, Desired, Purge, Purged, decode, encode
from server import config
from server.__main__ import main
from server.errors import GovernError, StoreError
from server.govern.erase import KEPT
from server.govern.scrub import AGAIN_MS, Scrub, finish
from server.inventory import fleet as fleet_rows
from server.release.fleet import Fleet
from server.store import devices, erasures, events, requests, runs, samples, snapshots, trail
from server.store.schema import doomed_blob, duplicate, erasure, event, metadata, part, quarantine, sample, version
from server.store.spoken import Spoken
from server.store.sqlite import sqlite3
from server.store.store import Store
from server.teach import snapshot as snapshot_of
from server.teach.snapshot import freeze
from server.teach.splits import sort_out


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


@pytest.mark.of_shards
@pytest.mark.of_a_file
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


@pytest.mark.catalogues
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


@pytest.mark.of_a_file
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


@pytest.mark.of_shards
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


def test_a_server_that_begins_does_not_write_all_anew_before_anything_else(world: World) -> None:
    world.erase("sample", "cam-1.main.1.4")
    with world.store.database.write() as connection:  # as if it had been killed
        connection.execute(sa.update(erasure).values(finished_at_ms=None))
    scrub, now_ms = Scrub(world.store), NOW_MS + 10 * AGAIN_MS
    for after_ms, left in ((0, 1), (AGAIN_MS - 1, 1), (AGAIN_MS, 0)):
        scrub.tick(now_ms + after_ms)
        scrub.stop(timeout_s=60.0)
        assert world.count(erasure, erasure.c.finished_at_ms.is_(None)) == left


def test_what_points_at_it_in_any_table_goes(world: World) -> None:
    with world.store.database.write() as connection:
        events.record(connection, Spoken("cam-1", decode_event(), NOW_MS))
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
