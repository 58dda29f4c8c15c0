"""Which earlier versions is a candidate held against, and what else does the store say?"""

from __future__ import annotations

import msgspec
import pytest
import quadrants
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, birth, frames, heartbeat, message

from edge_agent.contract.artifact import encode_manifest, read_artifact
from server.collect.ingest import Ingest
from server.release.registry import publish_passed
from server.store import labels, runs, whereabouts
from server.store.labels import Label
from server.store.schema import version
from server.store.store import Store
from server.teach import champions
from server.teach.snapshot import freeze

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def ingest(store) -> Ingest:
    return Ingest(store, fleet=FLEET, offline_after_s=90.0)


def answer(store, ingest: Ingest, start: int, stop: int, *, labeler: str = "ann") -> None:
    x, y = quadrants.images(stop, seed=5)
    for seq in range(start, stop):
        ingest.take([message("cam-1", "sample", frame) for frame in frames("cam-1", seq, data=x[seq])])
    with store.database.write() as connection:
        index = labels.ensure_names(connection, NAMES)
        ids = [f"cam-1.main.1.{seq}" for seq in range(start, stop)]
        rows = range(start, stop)
        labels.add(connection, [Label(i, index[NAMES[y[k]]], labeler, NOW_MS) for i, k in zip(ids, rows, strict=True)])


def publish(store, parent: int) -> int:
    """A version that was made of what is labelled now."""
    manifest, onnx = read_artifact(quadrants.ARTIFACT)
    snapshot = freeze(store, now_ms=NOW_MS)
    manifest = msgspec.structs.replace(manifest, parent=parent, snapshot=snapshot.id, classes=NAMES)
    store.blobs.put(onnx)
    candidate = {"manifest_sha256": store.blobs.put(encode_manifest(manifest)), "weights_sha256": ""}
    with store.database.write() as connection:
        run = runs.insert(connection, snapshot_id=snapshot.id, champion=parent, recipe="", report={}, now_ms=NOW_MS)
        runs.finish(connection, run, state="passed", report={"candidate": candidate}, now_ms=NOW_MS)
    (made,) = publish_passed(store, now_ms=NOW_MS)
    return made.number


def test_the_first_of_the_line_and_the_one_before_the_champion_are_elders(store, ingest):
    for parent in range(4):
        answer(store, ingest, 10 * parent, 10 * parent + 10)
        assert publish(store, parent) == parent + 1
    champion = champions.load(store, 4)
    elders = champions.known(store, champion.manifest.snapshot, champion).elders
    assert [(elder.version.number, len(elder.samples)) for elder in elders] == [(1, 10), (3, 30)]
    second = champions.load(store, 2)
    assert [one.version.number for one in champions.known(store, "", second).elders] == [1]
    with store.database.write() as connection:
        connection.execute(sa.update(version).where(version.c.number == 3).values(manifest_sha256="0" * 64))
    elders = champions.known(store, "", champion).elders  # what cannot be read any more stops no round
    assert [one.version.number for one in elders] == [1]
    first = champions.load(store, 1)
    assert champions.known(store, "", first).elders == []
    assert champions.load(store, 9) is None


def test_every_labeler_counts_with_the_newest_answer_to_a_sample(store, ingest):
    answer(store, ingest, 0, 5)
    answer(store, ingest, 3, 5, labeler="bob")
    with store.database.write() as connection:
        labels.add(connection, [Label("cam-1.main.1.0", labels.CANNOT_TELL, "bob", NOW_MS)])
        labels.add(connection, [Label("cam-1.main.1.1", labels.NONE_OF_THESE, "bob", NOW_MS)])
        labels.add(connection, [Label("cam-1.main.1.3", 0, "bob", NOW_MS)])
    snapshot = freeze(store, now_ms=NOW_MS)
    said = champions.known(store, snapshot.id, None).answers
    by = sorted(zip(said.labeler.tolist(), said.sample.tolist(), strict=True))
    assert [who for who, _ in by].count("bob") == 2
    assert said.label[(said.labeler == "bob") & (said.sample == "cam-1.main.1.3")].tolist() == ["a"]
    assert champions.known(store, "none", None).answers is None


def test_a_device_says_how_long_the_champion_takes_there(store, ingest):
    answer(store, ingest, 0, 5)
    publish(store, 0)
    champion = champions.load(store, 1)
    ingest.take([message("cam-1", "birth", msgspec.json.encode(birth("s1")))])
    said = heartbeat("s1")
    for number, latency, expected in ((1, 7.5, {"cam-1": 7.5}), (2, 7.5, {}), (1, 0.0, {})):
        model = msgspec.structs.replace(said.model, version=number)
        word = msgspec.structs.replace(said, model=model, latency_p50_ms=latency, at_ms=said.at_ms + 1)
        ingest.take([message("cam-1", "heartbeat", msgspec.json.encode(word))])
        assert champions.known(store, "", champion).latency_ms == expected


def test_where_devices_are_is_known(store, ingest):
    for name in ("cam-1", "cam-2"):
        ingest.take([message(name, "birth", msgspec.json.encode(birth("s1")))])
    with store.database.write() as connection:
        whereabouts.put(connection, ["cam-2"], site="hall")
    assert champions.known(store, "", None).sites == {"cam-2": "hall"}
    answer(store, ingest, 0, 5)
    publish(store, 0)
    assert champions.known(store, "", champions.load(store, 1)).sites == {"cam-2": "hall"}
