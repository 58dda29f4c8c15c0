"""Which models are versions, and which bytes may a device have of them?"""

from __future__ import annotations

import itertools

import msgspec
import pytest
import quadrants
from device_words import FLEET, MODEL, NOW_MS, birth, message, uploads

from edge_agent.contract.artifact import MANIFEST, decode_manifest, encode_manifest, read_artifact, sha256_hex
from edge_agent.contract.errors import ArtifactError
from edge_agent.contract.wire import BLOCK_BYTES, BlockHeader, decode_frame, encode
from server.collect.ingest import Ingest
from server.errors import RolloutError
from server.release.blocks import Blocks
from server.release.registry import add_artifact, publish_passed
from server.store import labels, rollouts, runs, versions
from server.store.store import Store
from server.store.versions import Version
from server.teach.snapshot import freeze


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    yield store
    store.close()


def add(store, tmp_path, number: int) -> Version:
    quadrants.artifact(tmp_path / str(number), version=number)
    return add_artifact(store, tmp_path / str(number), weights=None, now_ms=NOW_MS)


def passed_run(store, champion: int = 0) -> int:
    """A run that left a candidate, as training does."""
    manifest, onnx = read_artifact(quadrants.ARTIFACT)
    snapshot = freeze(store, now_ms=NOW_MS)
    manifest = msgspec.structs.replace(manifest, version=77, parent=champion, snapshot=snapshot.id)
    store.blobs.put(onnx)
    candidate = {
        "manifest_sha256": store.blobs.put(encode_manifest(manifest)),
        "weights_sha256": store.blobs.put(b"weights"),
    }
    with store.database.write() as connection:
        run_id = runs.insert(
            connection, snapshot_id=snapshot.id, champion=champion, recipe="", report={}, now_ms=NOW_MS
        )
        runs.finish(connection, run_id, state="passed", report={"candidate": candidate}, now_ms=NOW_MS)
    return run_id


def roll(store, number: int, status: str) -> None:
    with store.database.write() as connection:
        rollout_id = rollouts.insert(connection, number=number, previous=0, plan={}, state={}, now_ms=NOW_MS)
        kept = rollouts.get(connection, rollout_id)
        assert rollouts.save(connection, kept, state={}, status=status, now_ms=NOW_MS)
        rollouts.add_steps(connection, rollout_id, ["a step"], now_ms=NOW_MS)


def test_an_artifact_is_published_as_it_is(store, tmp_path):
    version = add(store, tmp_path, 3)
    data = (tmp_path / "3" / MANIFEST).read_bytes()
    assert (version.number, version.manifest_sha256, version.manifest_bytes) == (3, sha256_hex(data), len(data))
    assert store.blobs.get(version.manifest_sha256) == data
    with store.database.read() as connection:
        assert labels.names(connection) == decode_manifest(data).classes
        assert versions.champion(connection) == version


def test_numbers_only_grow_and_the_same_again_changes_nothing(store, tmp_path):
    first = add(store, tmp_path, 3)
    assert add(store, tmp_path, 3) == first
    with pytest.raises(RolloutError, match="version 2, expected 4 or more"):
        add(store, tmp_path, 2)
    quadrants.artifact(tmp_path / "other", version=3, name="another")
    with pytest.raises(RolloutError, match="version 3, expected 4 or more"):
        add_artifact(store, tmp_path / "other", weights=None, now_ms=NOW_MS)
    with pytest.raises(RolloutError, match=r"a model for classification, and \[server\] task is 'detection': give one"):
        add_artifact(store, tmp_path / "other", weights=None, now_ms=NOW_MS, task="detection")


def test_weights_come_along(store, tmp_path):
    quadrants.artifact(tmp_path / "1", version=1)
    (tmp_path / "weights.pt").write_bytes(b"weights")
    version = add_artifact(store, tmp_path / "1", weights=tmp_path / "weights.pt", now_ms=NOW_MS)
    assert store.blobs.get(version.weights_sha256) == b"weights"
    with pytest.raises(ArtifactError, match="missing.pt"):
        add_artifact(store, tmp_path / "1", weights=tmp_path / "missing.pt", now_ms=NOW_MS)


def test_a_candidate_that_passed_gets_the_next_number_once(store, tmp_path):
    add(store, tmp_path, 3)
    run_id = passed_run(store, champion=3)
    (version,) = publish_passed(store, now_ms=NOW_MS)
    assert (version.number, version.parent, version.run_id) == (4, 3, run_id)
    assert decode_manifest(store.blobs.get(version.manifest_sha256)).version == 4
    assert store.blobs.get(version.weights_sha256) == b"weights"
    assert publish_passed(store, now_ms=NOW_MS) == []
    with store.database.read() as connection:
        assert [run.state for run in runs.latest(connection)] == ["published"]


def test_a_number_is_above_what_any_device_executes(store):
    model = msgspec.structs.replace(MODEL, version=9)
    said = msgspec.structs.replace(birth("s"), model=model)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=9.0)
    ingest.take([message("cam-1", "birth", encode(said))])
    liar = msgspec.structs.replace(said, model=msgspec.structs.replace(MODEL, version=2**31 - 1))  # the last number
    ingest.take([message("cam-2", "birth", encode(liar))])
    passed_run(store)
    assert [version.number for version in publish_passed(store, now_ms=NOW_MS)] == [10]


def test_a_run_ends_once(store):
    run_id = passed_run(store)
    with store.database.write() as connection:
        assert not runs.fail(connection, run_id, error="late", now_ms=NOW_MS)
        assert not runs.mark(connection, run_id, state="judging")
        found = runs.get(connection, run_id)
    assert found is not None
    assert (found.state, found.error) == ("passed", None)


@pytest.mark.parametrize(
    ("fates", "champion", "rolled_out"),
    [
        ({1: None}, 1, None),
        ({1: "done", 2: None}, 2, 1),
        ({1: "done", 2: "running"}, 2, 1),
        ({1: "done", 2: "halted"}, 1, 1),
        ({1: "done", 2: "superseded", 3: "halted"}, 1, 1),
        ({1: "done", 2: None, 3: "halted"}, 1, 1),  # 2 was never tried: nobody runs it
    ],
)
def test_the_champion_is_what_the_fleet_runs_or_is_about_to(store, tmp_path, fates, champion, rolled_out):
    for number, status in fates.items():
        add(store, tmp_path, number)
        if status:
            roll(store, number, status)
    with store.database.read() as connection:
        assert getattr(versions.champion(connection), "number", None) == champion
        assert getattr(versions.rolled_out(connection), "number", None) == rolled_out


# --- blocks ---


def whole(blocks: Blocks, sha256: str) -> bytes:
    """All blocks of a file, one after the other."""
    frames = itertools.takewhile(lambda frame: frame is not None, (blocks.frame(sha256, n) for n in itertools.count()))
    parts = [decode_frame(BlockHeader, frame or b"") for frame in frames]
    data = b"".join(bytes(body) for _, body in parts)
    assert [(h.sha256, h.index, h.total_bytes) for h, _ in parts] == [(sha256, n, len(data)) for n in range(len(parts))]
    return data


def test_a_device_gets_the_manifest_and_then_the_model_it_names(store, tmp_path):
    version = add(store, tmp_path, 1)
    blocks = Blocks(store)
    manifest, onnx = read_artifact(tmp_path / "1")
    for sha256, data in (
        (version.manifest_sha256, (tmp_path / "1" / MANIFEST).read_bytes()),
        (sha256_hex(onnx), onnx),
    ):
        assert blocks.has(sha256)
        assert whole(blocks, sha256) == data
    assert manifest.version == 1


def test_a_version_published_later_is_found(store, tmp_path):
    blocks = Blocks(store)
    add(store, tmp_path, 1)
    assert blocks.has(add(store, tmp_path, 2).manifest_sha256)


def test_samples_are_not_served(store, tmp_path):
    add(store, tmp_path, 1)
    Ingest(store, fleet=FLEET, offline_after_s=9.0).take(uploads("cam-1", 1))
    secret = store.blobs.put(b"another device's sample")
    for sha256 in (secret, "f" * 64, "", "../catalogue.db", "x" * 5000):
        assert not Blocks(store).has(sha256)


def test_there_are_no_blocks_but_those_of_the_file(store):
    data = bytes(range(256)) * (2 * BLOCK_BYTES // 256) + b"rest"
    sha256 = store.blobs.put(data)
    blocks = Blocks(store)
    assert [blocks.frame(sha256, index) is not None for index in range(-2, 5)] == [False] * 2 + [True] * 3 + [False] * 2
    assert whole(blocks, sha256) == data


def test_a_damaged_manifest_costs_its_own_version_alone(store, tmp_path, caplog):
    first, second = add(store, tmp_path, 1), add(store, tmp_path, 2)
    store.blobs.delete(first.manifest_sha256)
    blocks = Blocks(store)
    assert blocks.has(second.manifest_sha256)
    assert not blocks.has(first.manifest_sha256)
    assert "version 1 is offered to nobody" in caplog.text


def test_what_is_held_in_memory_is_bounded_in_bytes(store, monkeypatch):
    monkeypatch.setattr("server.release.blocks.CACHED_BYTES", 100)
    blocks = Blocks(store)
    for size in (40, 50, 60, 300, 20):
        assert blocks.frame(store.blobs.put(bytes(size)), 0)
        held = [len(data) for data in blocks._cached.values()]
        assert held[-1] == size
        assert len(held) == 1 or sum(held) <= 100
