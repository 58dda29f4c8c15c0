"""Do orders reach the devices, and only those that are meant?"""

from __future__ import annotations

import json

import msgspec
import pytest
import quadrants
from device_words import FLEET, MODEL, NOW_MS, birth, event, heartbeat, message, uploads

from edge_agent.choose.tally import BINS
from edge_agent.contract.artifact import decode_manifest
from edge_agent.contract.wire import Desired, StreamCounts, decode, encode, parse_topic
from server import config
from server.__main__ import main
from server.collect.ingest import Ingest
from server.errors import RolloutError, ServerConfigError, StoreError
from server.release import commands, places
from server.release.channels import report_of
from server.release.fleet import REST_MS, Fleet
from server.release.registry import add_artifact
from server.store import devices, identities, parcels, rollouts, versions
from server.store.store import Store

RULES = config.Rollout(rings=("canary=cam-1", "all"), soak_s=5.0, timeout_s=60.0)


class Scene:
    """A store with devices that report, and what was published to them."""

    def __init__(self, folder):
        self.folder = folder
        self.store = Store.open(folder / "store")
        self.ingest = Ingest(self.store, fleet=FLEET, offline_after_s=90.0)
        self.sent: list[tuple[str, Desired]] = []
        self.now_ms = NOW_MS
        self.restart()

    def restart(self, *, autonomy: config.Autonomy = config.Autonomy(), **changes: object) -> None:  # noqa: B008
        rules = msgspec.structs.replace(RULES, **changes)
        self.fleet = Fleet(self.store, fleet=FLEET, rules=rules, publish=self._publish, autonomy=autonomy)

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

    def reports(
        self,
        name: str,
        number: int,
        *,
        counts: StreamCounts | None = None,
        cuts: tuple[StreamCounts, ...] = (),
        **changes,
    ) -> None:
        with self.store.database.read() as connection:
            version = versions.get(connection, number)
        sha256 = "00"
        if version is not None:
            manifest = decode_manifest(self.store.blobs.get(version.manifest_sha256))
            sha256 = manifest.variant("cpu-int8").sha256
        model = msgspec.structs.replace(MODEL, version=number, sha256=sha256, **({"refused": {}} | changes))
        said = msgspec.structs.replace(heartbeat("s"), at_ms=self.now_ms + 1, model=model)
        if counts is not None:
            said = msgspec.structs.replace(said, counts=counts, cuts=cuts)
        self.ingest.take([message(name, "heartbeat", encode(said), at_ms=self.now_ms)])

    def counts(self, name: str, number: int, *, epoch: int, samples: int, confidence: float) -> None:
        """A heartbeat under version `number`, its samples counted since the boot; those of epoch 0 were 1000."""
        before = 1000 * epoch
        bins = (0,) * (BINS - 1)
        said = StreamCounts(
            read=before + samples,
            scored=before + samples,
            invalid=0,
            selected={},
            stream="main",
            through_seq=before + samples - 1,
            model_version=number,
            epoch=epoch,
            utility_histogram=(before + samples, *bins),
            confidence_sums=(900.0 * epoch + samples * confidence, *(0.0 for _ in bins)),
        )
        cut = msgspec.structs.replace(said, read=1000, scored=1000, through_seq=999, model_version=number - 1, epoch=0)
        cut = msgspec.structs.replace(
            cut, utility_histogram=(1000, *bins), confidence_sums=(900.0, *said.confidence_sums[1:])
        )
        self.reports(name, number, counts=said, cuts=(cut,) * epoch)

    def tick(self, seconds: float = 1.0) -> list[tuple[str, int | None, int]]:
        """(device, version, revision) of what one look published."""
        self.now_ms += int(seconds * 1000)
        self.sent.clear()
        self.fleet.tick(self.now_ms)
        return sorted((name, d.model.version if d.model else None, d.revision) for name, d in self.sent)

    def current(self, channel: str = devices.STABLE) -> rollouts.Rollout:
        with self.store.database.read() as connection:
            found = rollouts.current(connection, channel)
        assert found is not None
        return found

    def device(self, name: str) -> devices.Device:
        with self.store.database.read() as connection:
            return next(one for one in devices.devices(connection) if one.name == name)

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
    assert said[:2] == ["version 7 to channel stable, which runs none of ours", "ring canary: version 7 to cam-1"]
    assert said[-2:] == ["ring all is through: 1 running, 0 failed", "version 7 is rolled out"]


def test_a_look_that_took_long_is_followed_by_a_rest_in_which_births_are_answered(scene):
    scene.add(1)
    scene.add(2)
    scene.connects("cam-1", "cam-2")
    times = iter([0.0, 2.0])  # of the first look
    scene.fleet = Fleet(
        scene.store, fleet=FLEET, rules=RULES, publish=scene._publish, monotonic=lambda: next(times, 2.0)
    )
    assert scene.tick() == [("cam-1", 2, 1), ("cam-2", 1, 1)]
    scene.reports("cam-1", 2)
    scene.connects("cam-1")
    assert scene.tick(10.0) == [("cam-1", 2, 1)]
    assert scene.current().brief.members == {"ordered": 1}  # not looked at
    assert not scene.tick(7.0)
    assert not scene.tick(1.0)
    assert scene.current().brief.members == {"running": 1}


def test_a_birth_is_answered_by_reading_that_device_alone(scene, monkeypatch):
    """Of ten thousand, all of which took a second, whoever had come back."""
    scene.add(1)
    scene.add(2)
    scene.connects("cam-1", "cam-2")
    scene.fleet.tick(scene.now_ms)
    commands.say(scene.store, 1, "halt", reason="a test", now_ms=scene.now_ms)
    scene.fleet.tick(scene.now_ms)
    asked = []
    read = devices.devices
    monkeypatch.setattr(
        devices, "devices", lambda connection, names=None: asked.append(names) or read(connection, names)
    )
    scene.sent.clear()
    scene.connects("cam-3", "cam-1")
    scene.fleet.tick(scene.now_ms + 1000)
    assert [sorted(names) for names in asked] == [["cam-1", "cam-3"]]
    assert {name for name, _ in scene.sent} == {"cam-1", "cam-3"}
    scene.fleet.tick(scene.now_ms + 1000 + REST_MS)
    assert asked[1:] == [None]


def test_a_canary_that_is_revoked_is_told_nothing_more_and_halts_nothing(scene):
    scene.restart(rings=("canary=cam-1+cam-2", "all"))
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


# --- what operators say, and channels ---------------------------------------------------------------------------------


def say(scene, word: str, *, reason: str = "because", rollout_id: int | None = None) -> None:
    commands.say(scene.store, rollout_id or scene.current().id, word, reason=reason, now_ms=scene.now_ms)


def answers(scene) -> list[str]:
    with scene.store.database.read() as connection:
        return [command.answer for command in rollouts.said(connection, scene.current().id)]


def begin(scene, number: int, **changes) -> int:
    known = {"channel": "stable", "rings": (), "rules": (), "default": RULES, "now_ms": scene.now_ms}
    return commands.start(scene.store, number, **(known | changes))


def test_a_pause_and_a_halt_are_obeyed_at_the_next_look_and_kept_with_their_reasons(scene):
    scene.connects("cam-1", "cam-2")
    scene.add(2)
    scene.tick()
    say(scene, "pause", reason="the line is moved")
    scene.reports("cam-1", 2)
    scene.tick()
    scene.reports("cam-1", 2)
    assert scene.tick(60) == []
    with pytest.raises(RolloutError, match="pause: it is paused already"):
        say(scene, "pause")
    say(scene, "halt", reason="misses shoes")
    scene.tick()
    assert answers(scene) == ["paused: the line is moved", "halted by hand: misses shoes"]
    assert scene.current().status == "halted"
    with scene.store.database.read() as connection:
        kinds = [step.kind for step in rollouts.steps(connection, scene.current().id)]
    assert kinds == ["began", "joined", "paused", "moved", "halted"]
    with pytest.raises(RolloutError, match=r"halt: the rollout has ended \(halted\)"):
        say(scene, "halt")
    with pytest.raises(RolloutError, match="there is no rollout 9; there are: 1"):
        say(scene, "halt", rollout_id=9)


def test_of_two_operators_the_later_one_is_told_that_it_is_done(scene):
    scene.connects("cam-1")
    scene.add(2)
    scene.tick()
    say(scene, "pause")
    say(scene, "pause")
    scene.tick()
    assert answers(scene) == ["paused: because", "refused: pause: it is paused already"]


@pytest.mark.parametrize("through", [True, False])
def test_a_rollback_sends_the_old_weights_to_everybody_under_a_new_number(scene, through):
    scene.connects("cam-1", "cam-2")
    scene.add(2)
    scene.through("cam-1", "cam-2", number=2)
    scene.add(3)
    if through:
        scene.through("cam-1", "cam-2", number=3)
    else:
        scene.tick()
        scene.reports("cam-1", 3)
        scene.tick()
    bad = scene.current()
    say(scene, "rollback", reason="misses shoes")
    told = scene.tick()
    assert [(name, version) for name, version, _ in told] == [("cam-1", 4), ("cam-2", 4)]
    with scene.store.database.read() as connection:
        old, again = versions.get(connection, 2), versions.get(connection, 4)
        assert rollouts.get(connection, bad.id).status == "halted"
        (said,) = rollouts.said(connection, bad.id)
        assert versions.champion(connection).number == 4
    assert said.answer == "rolled back: misses shoes; version 2 goes out again as version 4, rollout 3"
    manifests = [decode_manifest(scene.store.blobs.get(one.manifest_sha256)) for one in (old, again)]
    assert manifests[0].files == manifests[1].files
    assert (again.weights_sha256, again.parent) == (old.weights_sha256, 2)
    scene.now_ms += 500
    scene.reports("cam-1", 4)
    scene.reports("cam-2", 3, refused={4: "no room"})  # one that cannot go back holds up nobody
    scene.tick()
    assert (scene.current().version, scene.current().status) == (4, "done")


def test_a_rollback_is_not_given_up_though_every_device_is_slow(scene):
    scene.connects("cam-1", "cam-2")
    scene.add(2)
    scene.through("cam-1", "cam-2", number=2)
    scene.add(3)
    scene.through("cam-1", "cam-2", number=3)
    say(scene, "rollback")
    scene.tick()
    for _ in range(20):
        scene.reports("cam-1", 3)
        scene.reports("cam-2", 3)
        scene.tick(10)
    assert scene.current().status == "done"
    scene.restart()
    assert [(name, version) for name, version, _ in scene.tick()] == [("cam-1", 4), ("cam-2", 4)]


def test_the_first_version_cannot_be_rolled_back_nor_one_that_is_not_the_newest(scene):
    scene.connects("cam-1")
    scene.add(2)
    scene.through("cam-1", number=2)
    with pytest.raises(RolloutError, match="version 2 is the first, there is none to go back to"):
        say(scene, "rollback")
    scene.add(3)
    scene.tick()
    with pytest.raises(RolloutError, match="rollout 1 is not the newest of channel 'stable'"):
        say(scene, "rollback", rollout_id=1)


def test_a_rollout_begun_by_hand_goes_by_its_own_rings(scene):
    scene.restart(autonomy=config.Autonomy(dial="propose"))
    scene.connects("cam-1", "cam-2", "cam-3")
    scene.add(2)
    assert scene.tick() == []
    begin(scene, 2, rings=("lab=cam-3", "all"), rules=("lab.soak_s=0",))
    assert scene.tick() == [("cam-3", 2, 1)]
    scene.reports("cam-3", 2)
    assert [name for name, _, _ in scene.tick()] == ["cam-1", "cam-2"]
    with pytest.raises(RolloutError, match="rollout 1 of version 2 under way: .*rollout halt 1"):
        begin(scene, 2)
    for name in ("cam-1", "cam-2"):
        scene.reports(name, 2)
    scene.tick()
    with pytest.raises(RolloutError, match="version 2: channel 'stable' runs 2"):
        begin(scene, 2)
    with pytest.raises(RolloutError, match="version 7 is not in the registry; there are: 2"):
        begin(scene, 7)
    with pytest.raises(ServerConfigError, match="expected different names, and that the last one"):
        begin(scene, 2, rings=("canary=10%",))


def test_a_halted_version_may_be_tried_again_by_hand(scene):
    scene.connects("cam-1")
    scene.add(2)
    scene.tick()
    say(scene, "halt")
    scene.tick()
    begin(scene, 2)
    assert scene.tick() == [("cam-1", 2, 3)]
    scene.reports("cam-1", 2)
    scene.tick(6)
    assert scene.current().status == "running"


@pytest.mark.of_a_file  # which takes what is no JSON
def test_a_list_of_rollouts_reads_no_state(scene):
    scene.connects("cam-1", "cam-2")
    scene.add(2)
    begin(scene, 2, rings=("canary=1", "all"))
    scene.tick()
    whole = commands.listed(scene.store)
    assert [(row["ring"], row["members"], row["why"]) for row in whole] == [("canary", {"ordered": 1}, "")]
    with scene.store.database.write() as connection:
        connection.exec_driver_sql("UPDATE rollout SET state = 'no JSON', plan = 'neither'")
    assert commands.listed(scene.store) == whole
    with scene.store.database.read() as connection:
        assert [one.id for one in rollouts.listed(connection, version=2)] == [whole[0]["rollout"]]
        assert rollouts.listed(connection, version=3) == rollouts.listed(connection, below=1) == []


def test_a_channel_has_rollouts_of_its_own(scene):
    scene.restart(autonomy=config.Autonomy(dial="propose"))
    scene.connects("cam-1", "cam-2")
    scene.add(2)
    begin(scene, 2, rings=("all",))
    scene.through("cam-1", "cam-2", number=2)
    places.put(scene.store, ["cam-2"], channel="beta", now_ms=1)
    scene.add(3)
    begin(scene, 3, channel="beta", rings=("all",))
    assert scene.tick() == [("cam-2", 3, 2)]
    scene.reports("cam-2", 3)
    scene.tick()
    with scene.store.database.read() as connection:
        assert {name: one.version for name, one in rollouts.newest(connection).items()} == {"stable": 2, "beta": 3}
        assert versions.champion(connection).number == 2
        assert rollouts.current(connection, "beta").previous == 2
    for number, channel, previous in ((4, "beta", 3), (5, "stable", 2)):  # what its own devices run
        scene.add(number)
        begin(scene, number, channel=channel, rings=("all",))
        with scene.store.database.read() as connection:
            assert rollouts.current(connection, channel).previous == previous
    for channel in ("beta", "stable"):
        commands.say(scene.store, scene.current(channel).id, "halt", reason="", now_ms=scene.now_ms)
    scene.tick()
    places.put(scene.store, ["cam-2"], channel="stable", now_ms=1)
    assert scene.tick(REST_MS / 1000) == []  # nothing lower than what it runs
    with pytest.raises(StoreError, match=r"device 'cam-3' has never been seen \(did you mean"):
        places.put(scene.store, ["cam-3"], ring="canary", now_ms=1)
    with pytest.raises(RolloutError, match="ring 'a/b': expected letters"):
        places.put(scene.store, ["cam-1"], ring="a/b", now_ms=1)


def test_a_device_is_put_into_a_ring_and_out_of_it_again(scene):
    scene.connects("cam-1", "cam-2")
    places.put(scene.store, ["cam-2"], ring="canary", now_ms=1)
    places.put(scene.store, ["cam-1"], ring="all", now_ms=1)
    scene.add(2)
    assert scene.tick() == [("cam-2", 2, 1)]
    places.put(scene.store, ["cam-1"], ring="-", now_ms=1)
    with scene.store.database.read() as connection:
        assert [device.ring for device in devices.devices(connection)] == [None, "canary"]


def test_a_drop_of_confidence_against_the_version_before_halts(scene):
    scene.connects("cam-1")
    scene.add(2)
    scene.counts("cam-1", 2, epoch=0, samples=1000, confidence=0.9)
    scene.through("cam-1", number=2)
    scene.add(3)
    scene.tick()
    scene.counts("cam-1", 3, epoch=1, samples=1000, confidence=0.5)
    scene.tick(6)
    scene.counts("cam-1", 3, epoch=1, samples=2000, confidence=0.5)
    scene.tick()
    assert scene.current().status == "halted"
    assert "confidence 0.500 after 0.900, a change of -0.4" in scene.current().state["reason"]


def test_by_hand(scene, capsys):
    path = scene.folder / "server.toml"
    path.write_text('[server]\ndata_dir = "store"\n')
    scene.connects("cam-1")
    scene.add(2)
    assert main(["device", "ring", "cam-1", "canary", str(path)]) == 0
    assert (
        main(["rollout", "start", "2", "--rings", "canary=1,all", "--rule", "all.needs_approval=true", str(path)]) == 0
    )
    assert "rollout 1: version 2 to channel stable" in capsys.readouterr().out
    scene.tick()
    scene.reports("cam-1", 2)
    scene.tick()
    assert main(["rollout", "pause", "1", "--reason", "lunch", str(path)]) == 0
    scene.tick()
    assert main(["rollout", "list", "--json", str(path)]) == 0
    (row,) = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert (row["status"], row["why"], row["members"]) == ("running", "paused", {"running": 1})
    assert main(["rollout", "resume", "1", str(path)]) == 0
    scene.tick(11)
    scene.reports("cam-1", 2)
    scene.tick()
    assert main(["rollout", "show", "1", str(path)]) == 0
    said = capsys.readouterr().out
    assert "waits for: ring all waits for an approval" in said
    assert "pause (lunch): paused: lunch" in said
    assert "ring canary (1): 1 through" in said
    assert main(["rollout", "approve", "1", str(path)]) == 0
    scene.tick()
    scene.tick()
    assert scene.current().status == "done"
    assert main(["rollout", "approve", "1", str(path)]) == 1
    assert "approve: the rollout has ended (done)" in capsys.readouterr().err
    assert main(["rollout", "start", "2", "--rings", "canary=x%,all", str(path)]) == 78
    assert "got 'x' %, expected more than 0" in capsys.readouterr().err
    assert main(["status", str(path)]) == 0
    assert "version 2 to stable done: 1 through" in capsys.readouterr().out


def test_a_sample_is_no_word_on_the_model(scene):
    """One that reverts tells it by an event first, and in its next heartbeat: neither makes a soak pass."""
    scene.connects("cam-1", "cam-2")
    scene.add(2)
    scene.through("cam-1", "cam-2", number=2)
    scene.add(3)
    scene.tick()
    scene.reports("cam-1", 3)
    scene.tick()
    scene.now_ms += 10_000
    scene.ingest.take([message("cam-1", "event", encode(event(1))), *uploads("cam-1", 1)])
    said = msgspec.structs.replace(birth("s"), model=msgspec.structs.replace(MODEL, version=2))
    scene.ingest.take([message("cam-1", "birth", encode(said), at_ms=scene.now_ms)])  # outweighed by the heartbeat
    assert scene.tick() == []
    scene.reports("cam-1", 2)
    scene.tick()
    assert scene.current().status == "halted"


@pytest.mark.parametrize("stops", [True, False])
def test_a_server_that_was_away_for_longer_than_a_device_may_be_silent_halts_nothing(scene, stops):
    scene.connects("cam-1", "cam-2")
    scene.add(2)
    scene.tick()
    if stops:
        scene.restart()  # else its machine slept
    scene.tick(500)
    scene.tick(55)
    assert scene.current().status == "running"
    scene.tick(10)
    assert scene.current().status == "halted"


def test_times_of_an_earlier_session_are_none_of_this_one(scene):
    """They may be of another version."""
    scene.add(2)
    scene.connects("cam-1")
    said = msgspec.structs.replace(heartbeat("s"), latency_p95_ms=4.0)
    scene.ingest.take([message("cam-1", "heartbeat", encode(said))])
    assert report_of(scene.device("cam-1")).latency_p95_ms == 4.0
    scene.ingest.take([message("cam-1", "birth", encode(birth("another", boot=2)))])
    assert report_of(scene.device("cam-1")).latency_p95_ms == 0.0


def test_a_look_at_a_rollout_that_was_ended_meanwhile_orders_nothing(scene):
    scene.connects("cam-1")
    scene.add(2)
    (current,), _ = scene.fleet._channels.look(scene.now_ms)
    with scene.store.database.write() as connection:
        rollouts.save(connection, current, state=current.state, status="superseded", now_ms=scene.now_ms)
    fleet = {"cam-1": scene.device("cam-1")}
    assert scene.fleet._channels.advance(current, fleet, scene.now_ms) == {}
    assert scene.device("cam-1").desired is None


def waits(scene, channel: str = "stable") -> tuple[int, str]:
    with scene.store.database.read() as connection:
        current = rollouts.current(connection, channel)
    return current.version, commands.summary(current)["why"]


def test_each_channel_is_as_free_as_its_dial(scene):
    scene.restart(
        rings=("canary=1", "all"), autonomy=config.Autonomy(dial="approve", channels=("beta=auto", "lab=propose"))
    )
    scene.connects("cam-1", "cam-2", "cam-3")
    places.put(scene.store, ["cam-2"], channel="beta", now_ms=1)
    places.put(scene.store, ["cam-3"], channel="lab", now_ms=1)
    scene.add(2)
    assert [(name, version) for name, version, _ in scene.tick()] == [("cam-2", 2)]
    assert waits(scene) == (2, "ring canary waits for an approval")
    say(scene, "approve")
    assert [(name, version) for name, version, _ in scene.tick()] == [("cam-1", 2)]
    with scene.store.database.read() as connection:
        assert rollouts.current(connection, "lab") is None
        assert rollouts.awaited(connection, "lab") == 2


def test_what_one_channel_halted_goes_to_no_other_by_itself(scene):
    scene.restart(rings=("canary=1", "all"), autonomy=config.Autonomy(channels=("beta=auto",)))
    scene.connects("cam-1", "cam-2")
    places.put(scene.store, ["cam-2"], channel="beta", now_ms=1)
    scene.add(2)
    for _ in range(4):
        scene.tick(6)
        scene.reports("cam-1", 2)
        scene.reports("cam-2", 2)
    scene.restart(rings=("canary=1", "all"), autonomy=config.Autonomy(dial="propose", channels=("beta=auto",)))
    scene.add(3)
    scene.tick()
    with scene.store.database.read() as connection:
        beta = rollouts.current(connection, "beta")
    assert beta.version == 3
    say(scene, "rollback", rollout_id=beta.id)
    scene.tick()
    scene.restart(rings=("canary=1", "all"), autonomy=config.Autonomy(channels=("beta=auto",)))
    scene.tick(40)
    with scene.store.database.read() as connection:
        assert rollouts.current(connection, "beta").version == 4  # version 2 again
        assert rollouts.current(connection).version == 2


@pytest.mark.parametrize("spec", ["beta", "beta=maybe", "=auto", "a/b=auto"])
def test_a_dial_that_is_none_is_refused(spec):
    with pytest.raises(
        ServerConfigError, match=r"\[autonomy\] channels: got '.*', expected CHANNEL=propose|approve|auto"
    ):
        config.Autonomy(channels=(spec,)).dials()
