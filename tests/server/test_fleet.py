"""Do orders reach the devices, and only those that are meant?"""

from __future__ import annotations

import msgspec
import pytest
import quadrants
from device_words import FLEET, MODEL, NOW_MS, birth, heartbeat, message

from edge_agent.contract.artifact import decode_manifest
from edge_agent.contract.wire import Desired, decode, encode, parse_topic
from server import config
from server.collect.ingest import Ingest
from server.release.fleet import REST_MS, Fleet
from server.release.registry import add_artifact
from server.store import devices, identities, parcels, rollouts, versions
from server.store.store import Store

RULES = config.Rollout(canary_devices=("cam-1",), soak_s=5.0, timeout_s=60.0)


class Scene:
    """A store with devices that report, and what was published to them."""

    def __init__(self, folder):
        self.folder = folder
        self.store = Store.open(folder / "store")
        self.ingest = Ingest(self.store, fleet=FLEET, offline_after_s=90.0)
        self.sent: list[tuple[str, Desired]] = []
        self.now_ms = NOW_MS
        self.restart()

    def restart(self, rules: config.Rollout = RULES) -> None:
        self.fleet = Fleet(self.store, fleet=FLEET, rules=rules, publish=self._publish)

    def _publish(self, topic, payload, *, qos, retain):
        address = parse_topic(topic)
        assert (address.kind, qos, retain) == ("desired", 1, True)
        self.sent.append((address.device, decode(Desired, payload)))

    def add(self, number: int) -> None:
        quadrants.artifact(self.folder / str(number), version=number, name=f"model {number}")
        add_artifact(self.store, self.folder / str(number), weights=None, now_ms=self.now_ms)

    def connects(self, *names: str) -> None:
        said = msgspec.structs.replace(birth("s"), model=msgspec.structs.replace(MODEL, refused={}))
        self.ingest.take([message(name, "birth", encode(said), at_ms=self.now_ms) for name in names])
        for name in names:
            self.fleet.on_birth(name)

    def reports(self, name: str, number: int, **changes) -> None:
        with self.store.database.read() as connection:
            version = versions.get(connection, number)
        sha256 = "00"
        if version is not None:
            manifest = decode_manifest(self.store.blobs.get(version.manifest_sha256))
            sha256 = manifest.variant("cpu-int8").sha256
        model = msgspec.structs.replace(MODEL, version=number, sha256=sha256, refused={}, **changes)
        said = msgspec.structs.replace(heartbeat("s"), at_ms=self.now_ms + 1, model=model)
        self.ingest.take([message(name, "heartbeat", encode(said), at_ms=self.now_ms)])

    def tick(self, seconds: float = 1.0) -> list[tuple[str, int | None, int]]:
        """(device, version, revision) of what one look published."""
        self.now_ms += int(seconds * 1000)
        self.sent.clear()
        self.fleet.tick(self.now_ms)
        return sorted((name, d.model.version if d.model else None, d.revision) for name, d in self.sent)

    def current(self) -> rollouts.Rollout:
        with self.store.database.read() as connection:
            found = rollouts.current(connection)
        assert found is not None
        return found

    def through(self, *names: str, number: int) -> None:
        """Take the version that waits through every ring."""
        for _ in range(3):
            self.tick()
            for name in names:
                self.reports(name, number)
            self.tick(6)


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path)
    yield scene
    scene.store.close()


def test_the_rings_get_their_orders_one_after_the_other(scene):
    scene.connects("cam-1", "cam-2")
    scene.add(7)
    assert scene.tick() == [("cam-1", 7, 1)]  # of cam-2 nothing is wanted yet
    assert scene.tick() == []
    scene.reports("cam-1", 7)
    assert scene.tick() == []
    scene.tick(6)
    scene.reports("cam-1", 7)
    assert scene.tick() == [("cam-2", 7, 1)]
    scene.reports("cam-2", 7)
    scene.tick()
    assert scene.current().status == "done"
    with scene.store.database.read() as connection:
        said = [step.text for step in rollouts.steps(connection, scene.current().id)]
    assert said[0] == "ring canary: version 7 to cam-1"
    assert said[-1] == "ring all is through: 1 running, 0 failed"


def test_a_canary_that_is_revoked_is_told_nothing_more_and_halts_nothing(scene):
    scene.restart(msgspec.structs.replace(RULES, canary_devices=("cam-1", "cam-2")))
    scene.connects("cam-1", "cam-2", "cam-3")
    scene.add(7)
    assert scene.tick() == [("cam-1", 7, 1), ("cam-2", 7, 1)]
    with scene.store.database.write() as connection:
        identities.revoke(connection, "cam-1", why="", samples_left_out=False, now_ms=scene.now_ms)
    for _ in range(3):  # longer than a device may be silent
        scene.reports("cam-2", 7)
        scene.tick(30)
    scene.reports("cam-2", 7)
    scene.connects("cam-3")
    assert ("cam-3", 7, 1) in [*scene.tick(), *scene.tick()]
    assert scene.current().status == "done"
    scene.fleet.on_birth("cam-1")
    assert "cam-1" not in {name for name, _, _ in scene.tick()}


def test_a_halt_withdraws_the_order_and_the_next_version_follows_what_the_fleet_runs(scene):
    scene.connects("cam-1", "cam-2")
    scene.add(2)
    scene.through("cam-1", "cam-2", number=2)
    scene.add(3)
    assert scene.tick() == [("cam-1", 3, 2)]
    scene.reports("cam-1", 3, slot="trial")
    scene.tick()
    scene.reports("cam-1", 2)
    assert scene.tick() == [("cam-1", 2, 3)]
    assert (scene.current().status, scene.current().previous) == ("halted", 2)
    scene.add(4)
    scene.tick()
    assert (scene.current().version, scene.current().previous) == (4, 2)


def test_a_device_that_connects_is_told_again_and_the_revision_stays(scene):
    scene.connects("cam-1")
    scene.add(2)
    assert scene.tick() == [("cam-1", 2, 1)]
    scene.connects("cam-1")
    assert scene.tick() == [("cam-1", 2, 1)]
    assert scene.tick() == []


def test_a_server_that_starts_says_everything_again(scene):
    scene.connects("cam-1")
    scene.add(2)
    scene.tick()
    scene.restart()
    assert scene.tick() == [("cam-1", 2, 1)]
    assert scene.tick() == []


def test_late_comers_get_the_version_after_the_end_even_when_their_birth_was_not_heard(scene):
    scene.connects("cam-1")
    scene.add(2)
    scene.through("cam-1", number=2)
    assert scene.current().status == "done"
    scene.connects("cam-2")
    assert scene.tick() == [("cam-2", 2, 1)]
    scene.reports("cam-3", 1)
    assert scene.tick() == []
    assert scene.tick(REST_MS / 1000) == [("cam-3", 2, 1)]


def test_a_version_that_nobody_has_tried_makes_way_for_a_newer_one(scene):
    scene.add(2)
    scene.tick()
    scene.add(3)
    scene.tick()
    assert (scene.current().version, scene.current().previous) == (3, 0)
    scene.connects("cam-1")
    scene.tick()
    scene.add(4)
    scene.tick()
    assert scene.current().version == 3  # somebody has it: it is seen through first


def test_an_order_names_the_parcels_and_is_not_given_again_for_them(scene):
    scene.connects("cam-1")
    scene.add(2)
    scene.tick()
    ((_, desired),) = scene.sent
    with scene.store.database.read() as connection:
        known = parcels.of(connection, [parcel.file_sha256 for parcel in desired.model.parcels])
    assert desired.model.parcels == known != ()
    bare = msgspec.structs.replace(desired, model=msgspec.structs.replace(desired.model, parcels=()))
    with scene.store.database.write() as connection:  # as a server wrote it that knew no parcels
        devices.set_desired(connection, "cam-1", bare)
    scene.restart()
    assert scene.tick() == [("cam-1", 2, 2)]  # it is said again at every start
    assert scene.tick() == []


def test_other_wishes_of_a_device_are_kept(scene):
    scene.connects("cam-1")
    with scene.store.database.write() as connection:
        devices.set_desired(connection, "cam-1", Desired(revision=0, label_share=0.2))
    scene.add(2)
    scene.tick()
    assert [(desired.label_share, desired.revision) for _, desired in scene.sent] == [(0.2, 2)]
