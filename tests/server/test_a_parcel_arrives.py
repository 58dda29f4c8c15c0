"""From the registry to the shelf of a device: both halves as they are, and between them what would go by the broker."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import quadrants
from device_words import FLEET, MODEL, NOW_MS, birth, message
from graphs import as_onnx

from edge_agent.contract.artifact import OnnxFile, read_artifact, sha256_hex, write_artifact
from edge_agent.contract.wire import BlockHeader, Desired, decode, decode_frame, encode, parse_topic
from edge_agent.update.probation import Commit
from edge_agent.update.slots import Staged
from edge_agent.update.updater import Updater
from server import config
from server.collect.ingest import Ingest
from server.release.blocks import Blocks
from server.release.downloads import IDLE_S, Downloads
from server.release.fleet import Fleet
from server.release.registry import add_artifact
from server.store.store import Store

RATE = 1_000_000.0


class World:
    """A server and one device, on one clock."""

    def __init__(self, folder):
        self.folder, self.now_s, self.bytes_down = folder, 0.0, 0
        self.reports: list[str] = []
        self.store = Store.open(folder / "store")
        self.ingest = Ingest(self.store, fleet=FLEET, offline_after_s=1e9)
        self.fleet = Fleet(self.store, fleet=FLEET, rules=config.Rollout(), publish=self._down)
        self.downloads = Downloads(Blocks(self.store), fleet=FLEET, bytes_per_s=RATE, publish=self._down)
        self.updater = Updater(
            folder / "models", variant="cpu-int8", check=lambda _: None, needs=None, max_starts=3, keep_versions=3,
            request=self._ask, report=lambda kind, text, *_: self.reports.append(f"{kind}: {text}"),
        )  # fmt: skip

    def _ask(self, fetch) -> bool:
        self.downloads.ask("cam-1", fetch)
        return True

    def _down(self, topic, payload, *, qos, retain):
        if parse_topic(topic).kind == "desired":
            self.updater.on_desired(decode(Desired, payload))
        else:
            self.bytes_down += len(payload)
            self.updater.on_block(*decode_frame(BlockHeader, payload))

    def publish(self, number: int, onnx: bytes) -> None:
        manifest, _ = read_artifact(quadrants.ARTIFACT)
        file = OnnxFile(sha256=sha256_hex(onnx), bytes=len(onnx))
        manifest = msgspec.structs.replace(manifest, version=number, files={"cpu-int8": file})
        write_artifact(self.folder / str(number), manifest, onnx)
        add_artifact(self.store, self.folder / str(number), weights=None, now_ms=NOW_MS)

    def run(self, seconds: float, *, until_staged: int) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            state, now_ms = self.updater.state(), NOW_MS + int(self.now_s * 1000)
            model = msgspec.structs.replace(MODEL, version=state.version, sha256=state.sha256, refused={})
            said = msgspec.structs.replace(birth("s"), at_ms=now_ms, model=model)
            self.ingest.take([message("cam-1", "birth", encode(said), at_ms=now_ms)])
            self.fleet.tick(now_ms)
            self.updater.step(self.now_s)
            while (rest_s := self.downloads.step(self.now_s)) < min(IDLE_S, 0.5):
                self.now_s += rest_s
            self.now_s += 0.5
            if isinstance(self.updater.slot_state(), Staged) and self.updater.slot_state().candidate == until_staged:
                return
        pytest.fail(f"not staged: {self.updater.slot_state()}, {self.reports}")

    def trust(self, number: int) -> None:
        self.updater.take()
        self.updater.executing(number)
        self.updater.judge(Commit())


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.store.close()


def test_the_second_version_costs_what_was_learned(world):
    rng = np.random.default_rng(0)
    codes = rng.normal(0, 20, 400_000).astype(np.int8)
    learned = codes.copy()
    learned[rng.choice(codes.size, 12_000, replace=False)] += 1

    world.publish(1, as_onnx(codes.tobytes()))
    world.run(60, until_staged=1)
    first_bytes, world.bytes_down = world.bytes_down, 0
    assert 0.6 * codes.size < first_bytes < 0.95 * codes.size  # packed
    world.trust(1)

    world.publish(2, as_onnx(learned.tobytes()))
    world.run(120, until_staged=2)
    assert world.bytes_down < 0.1 * codes.size
    assert read_artifact(world.folder / "models" / "2")[1] == as_onnx(learned.tobytes())
    assert not [said for said in world.reports if said.startswith("error")]
