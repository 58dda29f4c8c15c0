"""In which smaller forms is a version offered, and to whom?"""

from __future__ import annotations

import dataclasses
import random

import msgspec
import numpy as np
import pytest
import quadrants
import sqlalchemy as sa
from device_words import FLEET, MODEL, NOW_MS, birth, heartbeat, message, uploads
from graphs import as_onnx

from edge_agent.contract.artifact import OnnxFile, read_artifact, sha256_hex, write_artifact
from edge_agent.contract.parcel import unpack
from edge_agent.contract.wire import BLOCK_BYTES, PARCELS_MAX, Assignment, BlockHeader, Desired, decode_frame, encode
from server.collect.ingest import Ingest
from server.errors import DeposedError
from server.release.blocks import Blocks
from server.release.registry import add_artifact
from server.roles.election import Election
from server.store import devices, identities, parcels, rollouts, trail
from server.store.schema import sample
from server.store.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    yield store
    store.close()


def weights(seed: int, *, changed: int = 0, count: int = 40_000) -> bytes:
    """Bytes that stand for a model: int8 weights of which some differ from those of the same seed."""
    rng = np.random.default_rng(seed)
    codes = rng.normal(0, 20, count).astype(np.int8)
    codes[rng.choice(count, changed, replace=False)] += 1
    return as_onnx(codes.tobytes())


def published(store, folder, number: int, onnx: bytes):
    manifest, _ = read_artifact(quadrants.ARTIFACT)
    file = OnnxFile(sha256=sha256_hex(onnx), bytes=len(onnx))
    manifest = msgspec.structs.replace(manifest, version=number, files={"cpu-int8": file})
    write_artifact(folder / str(number), manifest, onnx)
    add_artifact(store, folder / str(number), weights=None, now_ms=NOW_MS)
    return file


def found(store, file: OnnxFile):
    with store.database.read() as connection:
        return parcels.of(connection, [file.sha256])


def runs(store, device: str, sha256: str, *, said=heartbeat) -> None:
    """A device says that it executes that file."""
    kind = "heartbeat" if said is heartbeat else "birth"
    word = msgspec.structs.replace(said("s"), model=msgspec.structs.replace(MODEL, sha256=sha256))
    Ingest(store, fleet=FLEET, offline_after_s=9.0).take([message(device, kind, encode(word))])


OLD, NEAR, FAR = weights(1), weights(1, changed=2000), weights(2)


def test_a_version_near_the_champion_is_offered_against_it_and_packed(store, tmp_path):
    old = published(store, tmp_path, 1, OLD)
    assert [parcel.packing for parcel in found(store, old)] == ["zstd"]
    near = published(store, tmp_path, 2, NEAR)
    delta, packed = found(store, near)
    assert (delta.packing, delta.base_sha256, delta.file_sha256) == ("bsdiff4", old.sha256, near.sha256)
    assert (packed.packing, packed.base_sha256) == ("zstd", "")
    assert delta.bytes < packed.bytes < near.bytes
    for parcel in (delta, packed):
        data = store.blobs.get(parcel.sha256)
        assert len(data) == parcel.bytes
        assert unpack(parcel, data, base=OLD if parcel.base_sha256 else b"", file=near) == NEAR


def test_what_saves_nothing_is_not_offered(store, tmp_path):
    published(store, tmp_path, 1, OLD)
    assert [parcel.packing for parcel in found(store, published(store, tmp_path, 2, FAR))] == ["zstd"]
    noise = as_onnx(random.Random(0).randbytes(40_000))
    assert found(store, published(store, tmp_path, 3, noise)) == ()


def test_devices_that_run_something_else_have_a_parcel_of_their_own(store, tmp_path):
    first = published(store, tmp_path, 1, OLD)
    published(store, tmp_path, 2, FAR)
    runs(store, "cam-1", first.sha256)
    runs(store, "cam-2", first.sha256, said=birth)
    runs(store, "cam-3", "f" * 64)  # given by hand, never seen here
    runs(store, "cam-4", "")
    bases = {parcel.base_sha256 for parcel in found(store, published(store, tmp_path, 3, NEAR))}
    assert bases == {"", first.sha256}  # and not against version 2, which saves nothing


def test_only_so_many_bases_are_tried(store, tmp_path):
    for number in range(1, 8):
        file = published(store, tmp_path, number, weights(1, changed=10 * number))
        runs(store, f"cam-{number}", file.sha256)
    last = found(store, published(store, tmp_path, 9, NEAR))
    assert len(last) == parcels.BASES_MAX + 1 <= PARCELS_MAX
    assert [parcel.bytes for parcel in last] == sorted(parcel.bytes for parcel in last)


def test_the_same_again_changes_nothing(store, tmp_path):
    published(store, tmp_path, 1, OLD)
    near = published(store, tmp_path, 2, NEAR)
    before = found(store, near)
    parcels.make(store, read_artifact(tmp_path / "2")[0])
    assert found(store, near) == before


def test_old_weights_need_no_delta_against_themselves(store, tmp_path):
    published(store, tmp_path, 1, OLD)
    again = published(store, tmp_path, 2, OLD)
    assert [parcel.packing for parcel in found(store, again)] == ["zstd"]


@pytest.mark.of_shards
def test_a_damaged_base_costs_only_its_parcel(store, tmp_path, caplog):
    old = published(store, tmp_path, 1, OLD)
    name = bytes.fromhex(old.sha256)
    store.blobs._shards[0]._connection.execute("UPDATE blob SET data = ? WHERE sha256 = ?", (OLD[:-1] + b"?", name))
    assert [parcel.packing for parcel in found(store, published(store, tmp_path, 2, NEAR))] == ["zstd"]
    assert "damaged" in caplog.text


def test_a_large_model_is_only_packed(store, tmp_path, monkeypatch):
    monkeypatch.setattr(parcels, "DELTA_MAX_BYTES", 39_999)
    published(store, tmp_path, 1, OLD)
    assert [parcel.packing for parcel in found(store, published(store, tmp_path, 2, NEAR))] == ["zstd"]


def test_a_parcel_that_a_device_could_not_unpack_is_not_offered(store, tmp_path, monkeypatch, caplog):
    published(store, tmp_path, 1, OLD)
    monkeypatch.setattr("edge_agent.contract.parcel.STEPS_MAX", 0)
    assert [parcel.packing for parcel in found(store, published(store, tmp_path, 2, NEAR))] == ["zstd"]
    assert "bsdiff4 parcel" in caplog.text


def test_parcels_are_served(store, tmp_path):
    published(store, tmp_path, 1, OLD)
    blocks = Blocks(store)
    for parcel in found(store, published(store, tmp_path, 2, NEAR)):
        assert blocks.has(parcel.sha256)
        frames = [blocks.frame(parcel.sha256, n) for n in range(-(-parcel.bytes // BLOCK_BYTES))]
        assert b"".join(decode_frame(BlockHeader, frame)[1] for frame in frames) == store.blobs.get(parcel.sha256)


def swept(store) -> int:
    return parcels.sweep(store, now_ms=NOW_MS)


def test_parcels_of_versions_that_nobody_can_need_are_deleted_and_it_is_recorded(store, tmp_path):
    count = parcels.NEWEST_KEPT + 6
    files = {number: published(store, tmp_path, number, weights(number)) for number in range(1, count + 1)}
    made = {number: found(store, file) for number, file in files.items()}
    assert all(made.values())
    no_manifest = {"manifest_sha256": "0" * 64, "manifest_bytes": 1}
    runs(store, "cam-1", files[1].sha256)  # MODEL: it says version 1
    runs(store, "cam-2", files[1].sha256)
    runs(store, "cam-3", files[1].sha256)
    with store.database.write() as connection:
        devices.set_desired(connection, "cam-3", Desired(revision=0, model=Assignment(version=5, **no_manifest)))
        identities.revoke(connection, "cam-3", why="stolen", samples_left_out=False, now_ms=NOW_MS)
        devices.set_desired(connection, "cam-2", Desired(revision=0, model=Assignment(version=2, **no_manifest)))
        rollouts.insert(connection, number=4, previous=3, plan={}, state={}, now_ms=NOW_MS)
    assert swept(store) == len(made[5]) + len(made[6])
    for number, file in files.items():
        assert found(store, file) == (() if number in (5, 6) else made[number])
        for parcel in made[number]:
            assert store.blobs.has(parcel.sha256) == (number not in (5, 6))
        assert store.blobs.has(file.sha256)
    with store.database.read() as connection:
        (entry,) = trail.entries(connection, subject="parcels")
    assert (entry.what, entry.who) == ("delete", trail.SERVER)
    assert entry.detail["files"] == sorted(files[number].sha256 for number in (5, 6))
    assert entry.detail["bytes"] == sum(parcel.bytes for number in (5, 6) for parcel in made[number])
    assert swept(store) == 0


def test_old_weights_under_a_new_number_keep_their_parcels(store, tmp_path):
    first = published(store, tmp_path, 1, OLD)
    for number in range(2, parcels.NEWEST_KEPT + 2):
        published(store, tmp_path, number, weights(number))
    published(store, tmp_path, parcels.NEWEST_KEPT + 2, OLD)
    before = found(store, first)
    swept(store)
    assert found(store, first) == before != ()


def test_a_sweep_that_was_killed_is_done_again_and_touches_nothing_else(store, tmp_path, monkeypatch):
    files = [published(store, tmp_path, number, weights(number)) for number in range(1, parcels.NEWEST_KEPT + 3)]
    first, second = (found(store, file)[0] for file in files[:2])
    manifest, _ = read_artifact(tmp_path / "1")
    candidate = OnnxFile(sha256=store.blobs.put(NEAR), bytes=len(NEAR))  # in training, and not published yet
    parcels.make(store, msgspec.structs.replace(manifest, files={"cpu-int8": candidate}))
    Ingest(store, fleet=FLEET, offline_after_s=9.0).take(uploads("cam-1", 1))
    with store.database.write() as connection:  # a device that fetched a parcel sends its bytes as a sample
        connection.execute(sa.update(sample).values(body_sha256=second.sha256))
    with monkeypatch.context() as patched:
        patched.setattr(trail, "record", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            swept(store)
    assert not store.blobs.has(first.sha256)
    assert swept(store) >= 2
    assert store.blobs.has(second.sha256)
    assert found(store, files[0]) == found(store, files[1]) == ()
    assert found(store, candidate) != ()


def test_who_was_deposed_or_is_overtaken_by_an_order_deletes_nothing(store, tmp_path):
    first, *_ = [published(store, tmp_path, number, weights(number)) for number in range(1, parcels.NEWEST_KEPT + 2)]
    (made,) = found(store, first)
    for _ in range(2):
        election = Election(store, "schedule", lease_s=60.0)
        assert election.stand()
        election.give_back()
    with pytest.raises(DeposedError):
        swept(store.under({"schedule": 1}))
    assert store.blobs.has(made.sha256)

    def order(connection: sa.Connection) -> None:  # after the look, before anything is deleted
        rollouts.insert(connection, number=1, previous=0, plan={}, state={}, now_ms=NOW_MS)

    assert swept(dataclasses.replace(store, database=store.database.fenced(order))) == 0
    assert (store.blobs.has(made.sha256), found(store, first)) == (True, (made,))
    with store.database.write() as connection:
        rollouts.insert(connection, number=2, previous=0, plan={}, state={}, now_ms=NOW_MS)
    assert swept(store) == 1


class SweptOnce:
    """Blobs, of which a sweep begins right after something was put."""

    def __init__(self, store: Store) -> None:
        self._store, self._swept = store, 0

    def __getattr__(self, name: str):
        return getattr(self._store.blobs, name)

    def put(self, data: bytes) -> str:
        sha256 = self._store.blobs.put(data)
        if not self._swept:
            self._swept = swept(self._store)
            assert self._swept == 1
            assert not self._store.blobs.has(sha256)
        return sha256


def test_parcels_whose_bytes_a_sweep_takes_before_they_have_a_row_are_made_again(store, tmp_path):
    """Of old weights that are to be published again: the parcel that is made is the one that is old."""
    first = published(store, tmp_path, 1, OLD)
    for number in range(2, parcels.NEWEST_KEPT + 2):
        published(store, tmp_path, number, weights(number))
    manifest, _ = read_artifact(tmp_path / "1")
    beside = dataclasses.replace(store, blobs=SweptOnce(store))
    (made,) = parcels.make(beside, manifest)
    assert found(store, first) == (made,)
    assert store.blobs.has(made.sha256)
