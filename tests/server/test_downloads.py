"""Do devices get what they ask for, at the fleet's pace, and a plain no for what there is not?"""

from __future__ import annotations

import threading
import time

import pytest
import quadrants
from device_words import FLEET, NOW_MS

from edge_agent.contract.artifact import read_artifact, sha256_hex
from edge_agent.contract.wire import BLOCK_BYTES, BlockHeader, Fetch, decode_frame, parse_topic
from server.release.blocks import Blocks
from server.release.downloads import IDLE_S, Downloads
from server.release.registry import add_artifact
from server.store.store import Store

RATE = 100_000.0


class Scene:
    """A store with one version of 40 blocks, and what was sent to whom."""

    def __init__(self, folder, *, bytes_per_s: float):
        self.store = Store.open(folder / "store")
        quadrants.artifact(folder / "1", version=1)
        self.manifest_sha256 = add_artifact(self.store, folder / "1", weights=None, now_ms=NOW_MS).manifest_sha256
        self.onnx_sha256 = sha256_hex(read_artifact(folder / "1")[1])
        self.sent: list[tuple[str, BlockHeader, bytes]] = []
        self.arrived = threading.Event()
        self.downloads = Downloads(Blocks(self.store), fleet=FLEET, bytes_per_s=bytes_per_s, publish=self._publish)

    def large(self) -> str:
        """A file that is longer: as if it had been published."""
        sha256 = self.store.blobs.put(bytes(range(251)) * (40 * BLOCK_BYTES // 251))
        self.downloads._blocks._public.add(sha256)
        return sha256

    def _publish(self, topic, payload, *, qos, retain):
        address = parse_topic(topic)
        assert (address.kind, qos, retain) == ("block", 1, False)
        header, body = decode_frame(BlockHeader, payload)
        self.sent.append((address.device, header, bytes(body)))
        self.arrived.set()

    def ask(self, device: str, sha256: str, *blocks: int) -> None:
        self.downloads.ask(device, Fetch(sha256=sha256, blocks=blocks))


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path, bytes_per_s=RATE)
    yield scene
    scene.downloads.stop()
    scene.store.close()


def test_blocks_go_to_whom_they_were_asked_by(scene):
    scene.ask("cam-1", scene.manifest_sha256, 0)
    scene.ask("cam-2", scene.onnx_sha256, 0, 1, -1, 10**9)
    assert scene.downloads.step(0.0) == IDLE_S
    assert [(device, header.sha256, header.index, header.error) for device, header, _ in scene.sent] == [
        ("cam-1", scene.manifest_sha256, 0, ""),
        ("cam-2", scene.onnx_sha256, 0, ""),
    ]
    assert scene.sent[1][2] == scene.store.blobs.get(scene.onnx_sha256)[:BLOCK_BYTES]


def test_the_fleet_has_one_rate_and_takes_turns(scene):
    sha256 = scene.large()
    for device in ("cam-1", "cam-2", "cam-3"):
        scene.ask(device, sha256, *range(8))
    now_s = 0.0
    while (wait_s := scene.downloads.step(now_s)) < IDLE_S:
        now_s += wait_s
        for device in ("cam-1", "cam-2", "cam-3"):  # impatient: only what it still waits for is not asked for twice
            scene.ask(device, sha256, 7)
        if len(scene.sent) >= 24:
            break
    assert now_s >= 22 * BLOCK_BYTES / RATE
    devices = [device for device, _, _ in scene.sent]
    assert devices[:6] == ["cam-1", "cam-2", "cam-3"] * 2
    assert all(abs(devices.count(a) - devices.count(b)) <= 1 for a in devices for b in devices)


def test_who_fetches_another_way_takes_turns_at_the_same_rate(scene):
    sha256, gone = scene.large(), []
    scene.ask("cam-1", sha256, *range(8))

    def take(pieces: int) -> None:
        if pieces:
            assert scene.downloads.turn(BLOCK_BYTES, lambda: (gone.append(len(scene.sent)), take(pieces - 1)))

    take(8)
    now_s = 0.0
    while (wait_s := scene.downloads.step(now_s)) < IDLE_S:
        now_s += wait_s
    assert (len(scene.sent), gone) == (8, list(range(1, 9)))  # after each block of the other's, one
    assert now_s >= 14 * BLOCK_BYTES / RATE


def test_a_line_that_is_full_takes_nobody_in(scene, monkeypatch):
    monkeypatch.setattr("server.release.pace.WAITING_MAX", 1)
    gone = []
    assert scene.downloads.turn(1, lambda: gone.append(1))
    assert not scene.downloads.turn(1, lambda: gone.append(2))
    scene.downloads.step(0.0)
    assert gone == [1]
    assert scene.downloads.turn(1, lambda: gone.append(3))


def test_what_is_not_published_is_refused_at_once_and_costs_no_turn(scene):
    for sha256 in ("f" * 64, "", "x" * 5000, scene.store.blobs.put(b"a sample")):
        scene.ask("cam-1", sha256, *range(64))
    assert [(header.error, header.sha256, body) for _, header, body in scene.sent] == [
        ("unknown", "f" * 64, b""),
        ("unknown", "", b""),
        ("unknown", "x" * 64, b""),
        ("unknown", sha256_hex(b"a sample"), b""),
    ]
    assert scene.downloads.step(0.0) == IDLE_S


@pytest.mark.of_shards
def test_a_damaged_file_is_refused_and_the_others_go_on(scene, caplog):
    name = bytes.fromhex(scene.onnx_sha256)
    scene.store.blobs._shards[0]._connection.execute("UPDATE blob SET data = ? WHERE sha256 = ?", (b"?", name))
    scene.ask("cam-1", scene.onnx_sha256, 0)
    scene.ask("cam-2", scene.manifest_sha256, 0)
    scene.downloads.step(0.0)
    assert [(device, header.error) for device, header, _ in scene.sent] == [("cam-1", "cannot be read"), ("cam-2", "")]
    assert "damaged" in caplog.text


def test_the_thread_sends_and_ends(scene):
    threads = threading.active_count()
    scene.downloads.start()
    for device in ("cam-1", "cam-2"):
        scene.arrived.clear()
        scene.ask(device, scene.manifest_sha256, 0)
        assert scene.arrived.wait(20.0)
    scene.downloads.stop()
    assert [device for device, _, _ in scene.sent] == ["cam-1", "cam-2"]
    assert threading.active_count() == threads


def test_a_block_that_cannot_be_sent_does_not_end_the_thread(scene, caplog):
    publish, scene.downloads._publish = scene.downloads._publish, None
    scene.downloads.start()
    scene.ask("cam-1", scene.manifest_sha256, 0)
    while "could not be sent" not in caplog.text:
        time.sleep(0.01)
    scene.downloads._publish = publish
    scene.ask("cam-2", scene.manifest_sha256, 0)
    assert scene.arrived.wait(20.0)
    assert [device for device, _, _ in scene.sent] == ["cam-2"]
