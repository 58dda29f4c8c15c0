"""The whole way of a model onto a device, against a server of blocks that may lose, repeat, corrupt and reorder."""

import random
import threading
import time

import msgspec
import numpy as np
import pytest

from edge_agent.contract.artifact import (
    MANIFEST,
    MODEL,
    Golden,
    InputSpec,
    Manifest,
    OnnxFile,
    Reference,
    Tensor,
    encode_manifest,
    read_artifact,
    sha256_hex,
    write_artifact,
)
from edge_agent.contract.errors import ArtifactError, IncompatibleError
from edge_agent.contract.wire import BLOCK_BYTES, Assignment, BlockHeader, Desired
from edge_agent.update.fetch import FLUSH_BLOCKS, WINDOW
from edge_agent.update.probation import Commit, GoOn, Revert
from edge_agent.update.slots import Staged, Steady, Trial
from edge_agent.update.trial import CheckStoppedError
from edge_agent.update.updater import PAUSE_S, Updater

SPEC = InputSpec(name="input", shape=(28, 28), dtype="uint8")
MAX_STARTS = 2


def artifact(version, *, blocks=20, spec=SPEC, classes=("cat", "dog")):
    """A manifest and bytes that stand for an ONNX file: nobody runs them here."""
    onnx = random.Random(version).randbytes((blocks - 1) * BLOCK_BYTES + 77)
    row = Tensor.of(np.zeros((2, 3), np.float32))
    manifest = Manifest(
        name="pets",
        version=version,
        files={"cpu-int8": OnnxFile(sha256=sha256_hex(onnx), bytes=len(onnx))},
        input=spec,
        classes=classes,
        golden=Golden(inputs=row, logits=row, tolerance=0.1),
        reference=Reference(
            embedding_mean=row,
            embedding_sd=row,
            class_centres=row,
            class_share=(0.5, 0.5),
            confidence_mean=0.9,
            utility_quantiles=(0.0, 1.0),
            samples=10,
        ),
    )
    return manifest, onnx


class Server:
    """Holds artifacts, answers fetches; its faults are verbs."""

    def __init__(self):
        self.files = {}
        self.asked = []  # (sha256, block)
        self.online = True
        self._loses, self._corrupts = set(), set()
        self._rng = random.Random(0)
        self.repeats = self.reorders = False

    def publish(self, version, **options):
        manifest, onnx = artifact(version, **options)
        raw = encode_manifest(manifest)
        self.files[sha256_hex(raw)] = raw
        self.files[manifest.files["cpu-int8"].sha256] = onnx
        return Assignment(version=version, manifest_sha256=sha256_hex(raw), manifest_bytes=len(raw))

    def lose(self, *indices):
        """The next time each of these blocks is asked for."""
        self._loses |= set(indices)

    def corrupt(self, *indices):
        self._corrupts |= set(indices)

    def answers(self, fetch):
        found = [self._answer(fetch.sha256, index) for index in fetch.blocks if index not in self._loses]
        self._loses -= set(fetch.blocks)
        if self.repeats:
            found = found * 2
        if self.reorders:
            self._rng.shuffle(found)
        return found

    def _answer(self, sha256, index):
        self.asked.append((sha256, index))
        if sha256 not in self.files:
            return BlockHeader(sha256=sha256, index=index, total_bytes=0, error="unknown"), b""
        whole = self.files[sha256]
        data = whole[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]
        if index in self._corrupts:
            self._corrupts.discard(index)
            data = bytes(len(data))
        return BlockHeader(sha256=sha256, index=index, total_bytes=len(whole)), memoryview(data)


class Device:
    """An agent's side of the updater, with a clock of its own. `power_cut` keeps only what is on disk."""

    def __init__(self, folder, server, *, needs=SPEC, keep_versions=3):
        self.folder, self.server, self.needs, self.keep_versions = folder, server, needs, keep_versions
        self.now_s = 0.0
        self.reports = []
        self.checked = []
        self.check_fails = None
        self.revision = 0
        self.power_cut()

    def power_cut(self):
        self.updater = Updater(
            self.folder,
            variant="cpu-int8",
            check=self._check,
            needs=self.needs,
            max_starts=MAX_STARTS,
            keep_versions=self.keep_versions,
            request=self._request,
            report=self._report,
            **self.besides(),
        )
        self.boot()

    def besides(self):
        """What a kind of device gives its updater."""
        return {}

    def boot(self):
        """As an agent does: load what should run, else say so."""
        while (folder := self.updater.running_folder()) is not None:
            try:
                manifest, _ = read_artifact(folder)
            except ArtifactError as error:
                self.updater.failed(int(folder.name), str(error))
            else:
                return self.updater.executing(manifest.version)
        return None

    def _report(self, kind, text, version, detail):
        self.reports.append((kind, version, text))

    def _check(self, folder):
        self.checked.append(read_artifact(folder)[0].version)
        if self.check_fails is not None:
            raise self.check_fails

    def _request(self, fetch):
        if self.server.online:
            for header, data in self.server.answers(fetch):
                self.updater.on_block(header, data)
        return self.server.online

    def assign(self, assignment):
        self.revision += 1
        self.updater.on_desired(Desired(revision=self.revision, model=assignment))

    def run(self, seconds=60, until=lambda: False):
        for _ in range(2 * seconds):
            self.updater.step(self.now_s)
            self.now_s += 0.5
            if until():
                return

    def install(self, assignment):
        """The whole way, to the commit."""
        self.assign(assignment)
        self.run()
        folder = self.updater.take()
        assert folder == self.folder / str(assignment.version)
        self.updater.executing(assignment.version)
        self.updater.judge(Commit())

    @property
    def slots(self):
        return self.updater.slot_state()

    def kinds(self, version):
        return [kind for kind, number, _ in self.reports if number == version]

    def model_asked(self, version):
        """How often each block of the ONNX file was sent."""
        sha256 = artifact(version)[0].files["cpu-int8"].sha256
        return [index for name, index in self.server.asked if name == sha256]


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def device(tmp_path, server):
    return Device(tmp_path / "models", server)


# --- the whole way ---


def test_from_nothing_to_a_committed_model_and_on_to_the_next(device, server):
    assert device.updater.state().slot == "none"
    assert device.updater.running_folder() is None
    for version in (1, 2):
        assignment = server.publish(version)
        device.assign(assignment)
        device.run()
        assert device.slots == Staged(committed=version - 1, candidate=version)
        assert device.updater.state().version == version - 1

        folder = device.updater.take()
        assert device.updater.take() is None
        assert read_artifact(folder)[1] == artifact(version)[1]
        assert (folder / MANIFEST).read_bytes() == server.files[assignment.manifest_sha256]
        assert device.updater.state().slot == ("none" if version == 1 else "staged")  # not what it was told to run

        device.updater.executing(version)
        state = device.updater.state()
        assert (state.version, state.slot) == (version, "trial")
        assert state.sha256 == artifact(version)[0].files["cpu-int8"].sha256
        device.updater.judge(GoOn())
        assert device.slots == Trial(committed=version - 1, candidate=version)
        device.updater.judge(Commit())
        assert device.slots == Steady(committed=version)
        assert device.updater.state().slot == "steady"
        assert device.kinds(version) == ["staged", "trial", "commit"]
    device.run()
    assert sorted(entry.name for entry in device.folder.iterdir()) == ["1", "2", "slots.json"]
    assert sorted(entry.name for entry in (device.folder / "2").iterdir()) == [MANIFEST, MODEL]


def test_lost_repeated_and_reordered_blocks_only_cost_time(device, server):
    server.lose(0, 3, 4, 19)
    server.repeats = server.reorders = True
    device.assign(server.publish(1))
    device.run(120)
    assert device.slots == Staged(committed=0, candidate=1)
    assert read_artifact(device.updater.take())[1] == artifact(1)[1]


def test_a_block_corrupted_on_the_way_is_fetched_again(device, server):
    assignment = server.publish(1)
    device.assign(assignment)
    device.run(until=lambda: device.updater.state().fetched_share > 0)
    server.corrupt(18)
    device.run(120)
    assert device.slots == Staged(committed=0, candidate=1)
    assert device.model_asked(1).count(18) == 2


def test_a_silent_broker_is_waited_for(device, server):
    server.online = False
    device.assign(server.publish(1))
    device.run(300)
    assert server.asked == []
    server.online = True
    device.run(1)
    assert server.asked != []
    assert device.reports == []


def test_progress_is_told(device, server):
    device.assign(server.publish(1))
    shares = []
    for _ in range(8):
        device.run(1, until=lambda: True)
        shares.append(device.updater.state().fetched_share)
        if device.updater.state().fetching:
            assert device.updater.state().fetching == 1
    assert shares == [0.0, 0.0, 0.4, 0.8, 0.0, 0.0, 0.0, 0.0]
    assert device.slots == Staged(committed=0, candidate=1)


def test_the_thread_does_the_same(device, server):
    threads = threading.active_count()
    device.updater.start()
    device.assign(server.publish(1))
    until_s = time.monotonic() + 20.0
    while not isinstance(device.slots, Staged) and time.monotonic() < until_s:
        time.sleep(0.02)
    device.updater.stop()
    assert device.slots == Staged(committed=0, candidate=1)
    assert threading.active_count() == threads


# --- reboots ---


def test_a_reboot_in_mid_download_resumes(device, server):
    device.assign(server.publish(1, blocks=40))
    device.run(until=lambda: device.updater.state().fetched_share > 0.5)
    before = set(server.asked)
    assert len(before) > 20
    server.asked.clear()
    device.power_cut()
    device.assign(server.publish(1, blocks=40))
    device.run()
    assert device.slots == Staged(committed=0, candidate=1)
    again = before & set(server.asked)
    assert len(again) < FLUSH_BLOCKS + WINDOW  # what was not flushed, and what was under way; never the manifest
    assert {sha256 for sha256, _ in server.asked} == {artifact(1, blocks=40)[0].files["cpu-int8"].sha256}


def test_a_clean_stop_loses_no_block(device, server):
    device.assign(server.publish(1))
    device.run(1)
    server.online = False
    device.run(1)
    assert device.updater.state().fetched_share == WINDOW / 20
    device.updater.start()
    device.updater.stop()
    device.power_cut()
    server.online = True
    device.assign(server.publish(1))
    device.run()
    assert device.slots == Staged(committed=0, candidate=1)
    assert device.model_asked(1) == list(range(20))


@pytest.mark.parametrize("when", ["staged", "taken", "executing", "committed"])
def test_after_a_power_cut_exactly_one_version_runs(device, server, when):
    device.install(server.publish(1))
    device.assign(server.publish(2))
    device.run()
    if when != "staged":
        device.updater.take()
    if when in ("executing", "committed"):
        device.updater.executing(2)
    if when == "committed":
        device.updater.judge(Commit())
    device.power_cut()
    assert device.updater.state().version == (1 if when == "staged" else 2)
    assert device.updater.state().slot == {"staged": "staged", "committed": "steady"}.get(when, "trial")


def test_a_power_cut_between_admitting_and_staging_costs_no_block(device, server):
    device.install(server.publish(1))
    device.assign(server.publish(2))
    device.run()
    saved = Steady(committed=1)
    (device.folder / "slots.json").write_bytes(msgspec.json.encode(saved))
    device.power_cut()
    assert device.updater.state().version == 1
    device.assign(server.publish(2))
    device.run()
    assert device.slots == Staged(committed=1, candidate=2)


def test_a_model_that_keeps_killing_the_agent_is_reverted(device, server):
    device.install(server.publish(1))
    device.assign(server.publish(2))
    device.run()
    device.updater.take()
    for _ in range(MAX_STARTS):
        device.power_cut()
        assert device.updater.state().version == 2
    device.power_cut()
    assert device.updater.state().version == 1
    assert "started more than 2 times" in device.updater.state().refused[2]
    assert "revert" not in device.kinds(2)
    device.updater.start()
    device.updater.stop()
    assert device.kinds(2)[-1] == "revert"


def test_a_check_stopped_with_the_agent_is_done_at_the_next_start(device, server):
    device.check_fails = CheckStoppedError("stopping")
    device.assign(server.publish(1))
    device.run(until=lambda: device.checked)
    device.check_fails = None
    device.power_cut()
    device.assign(server.publish(1))
    device.run()
    assert device.slots == Staged(committed=0, candidate=1)
    assert len(device.model_asked(1)) == 20
    assert device.kinds(1) == ["staged"]


# --- refused ---


def refused_for_good(device, server, version, words):
    """Reported once, remembered over a restart, never asked for again; version 1 goes on."""
    for _ in range(2):
        state = device.updater.state()
        assert words in state.refused[version]
        assert (state.version, state.slot, state.fetching) == (1, "steady", 0)
        assert device.kinds(version).count("refused") == 1
        asked = len(server.asked)
        device.assign(Assignment(version=version, manifest_sha256="0" * 64, manifest_bytes=100))
        device.run()
        assert len(server.asked) == asked
        device.power_cut()
    assert not (device.folder / str(version)).exists()
    assert not (device.folder / "incoming").exists()


def test_a_file_that_is_not_the_promised_one_is_refused(device, server):
    device.install(server.publish(1))
    assignment = server.publish(2)
    sha256 = artifact(2)[0].files["cpu-int8"].sha256
    server.files[sha256] = server.files[sha256][:-1] + b"?"
    device.assign(assignment)
    device.run(120)
    assert len(device.model_asked(2)) == 40  # it was given a second chance
    refused_for_good(device, server, 2, "IntegrityError")
    assert device.checked == [1]


def test_a_failed_golden_test_is_refused(device, server):
    device.install(server.publish(1))
    device.check_fails = IncompatibleError("golden input 3 is off by 7")
    device.assign(server.publish(2))
    device.run()
    refused_for_good(device, server, 2, "golden input 3 is off by 7")
    assert device.checked == [1, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spec": InputSpec(name="input", shape=(6,), dtype="uint8")}, "takes (6,) uint8, the stream gives (28, 28)"),
        ({"spec": InputSpec(name="input", shape=(28, 28), dtype="float32")}, "takes (28, 28) float32"),
        ({"classes": ()}, "names no classes"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_it_is_fetched(device, server, options, words):
    device.install(server.publish(1))
    device.assign(server.publish(2, **options))
    device.run()
    refused_for_good(device, server, 2, words)
    assert device.model_asked(2) == []


def test_an_unknown_stream_fits_everything(tmp_path, server):
    device = Device(tmp_path, server, needs=None)
    device.install(server.publish(1, spec=InputSpec(name="input", shape=(6,), dtype="uint8")))
    assert device.slots == Steady(committed=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"manifest_sha256": "../../../etc/passwd"}, "expected 64 hex digits"),
        ({"manifest_bytes": 10**12}, "at most"),
        ({"manifest_bytes": 0}, "1 byte or more"),
        ({"version": 3}, "the manifest says version 2, assigned 3"),
    ],
)
def test_an_assignment_that_cannot_be_is_refused(device, server, change, words):
    device.install(server.publish(1))
    assignment = msgspec.structs.replace(server.publish(2), **change)
    device.assign(assignment)
    device.run()
    refused_for_good(device, server, assignment.version, words)


def test_a_manifest_that_is_none_is_refused(device, server):
    device.install(server.publish(1))
    server.files[sha256_hex(b"{}")] = b"{}"
    device.assign(Assignment(version=2, manifest_sha256=sha256_hex(b"{}"), manifest_bytes=2))
    device.run()
    refused_for_good(device, server, 2, "ArtifactError")


def test_a_downgrade_is_refused_without_a_fetch(device, server):
    device.install(server.publish(2))
    server.asked.clear()
    device.assign(server.publish(1))
    device.run()
    device.assign(server.publish(1))
    device.run()
    assert server.asked == []
    assert device.slots.committed == 2
    assert "DowngradeError: version 1 is older than 2" in device.updater.state().refused[1]
    assert device.kinds(1) == ["refused"]


def test_a_version_that_was_refused_as_older_is_still_the_way_back(device, server):
    """An order of a server that was restored from a backup must not cost the device what it can fall back to."""
    for version in (1, 2):
        device.install(server.publish(version))
    device.assign(server.publish(1))
    device.run()
    device.updater.failed(2, "its file is damaged")
    assert device.slots.committed == 1
    assert (device.updater.running_folder() / MANIFEST).exists()


def test_a_model_that_cannot_be_loaded_is_refused(device, server):
    device.install(server.publish(1))
    device.assign(server.publish(2))
    device.run()
    assert device.updater.take() is not None
    device.updater.failed(2, "onnxruntime cannot load it")
    device.run()
    refused_for_good(device, server, 2, "cannot load it")


# --- going back ---


def test_a_revert_goes_back_and_is_remembered(device, server):
    device.install(server.publish(1))
    device.assign(server.publish(2))
    device.run()
    device.updater.take()
    device.updater.executing(2)
    device.updater.judge(Revert("9 of 9 samples gave no finite result"))
    assert device.updater.running_folder() == device.folder / "1"
    assert device.updater.state().slot == "trial"  # until the loop has switched
    device.run()
    assert (device.folder / "2").exists()  # it still executes
    device.updater.executing(1)
    device.run()
    assert not (device.folder / "2").exists()
    assert device.kinds(2) == ["staged", "trial", "revert"]
    device.updater.judge(Revert("late"))
    assert device.slots == Steady(committed=1, refused={2: "9 of 9 samples gave no finite result"})


def test_a_damaged_committed_model_makes_way_and_is_fetched_anew(device, server):
    device.install(server.publish(1))
    device.install(server.publish(2))
    (device.folder / "2" / MODEL).write_bytes(b"rot")
    device.power_cut()
    assert device.updater.state().version == 1
    assert device.kinds(2)[-1] == "error"
    device.install(server.publish(2))
    device.power_cut()
    assert device.updater.state().version == 2
    assert device.slots == Steady(committed=2)


def test_a_lost_slot_file_starts_from_the_newest_artifact(device, server, caplog):
    device.install(server.publish(1))
    device.install(server.publish(2))
    device.install(server.publish(3))
    (device.folder / "slots.json").write_bytes(b"\0" * 40)
    (device.folder / "3" / MANIFEST).unlink()  # not complete
    device.power_cut()
    assert device.updater.state().version == 2
    assert "set aside" in caplog.text


# --- what the server says ---


def test_a_withdrawn_model_is_not_fetched_on(device, server):
    device.assign(server.publish(1))
    device.run(until=lambda: device.updater.state().fetched_share > 0)
    device.assign(None)
    device.run(1)
    asked = len(server.asked)
    device.run()
    assert len(server.asked) == asked
    assert device.updater.state().fetching == 0
    assert not (device.folder / "incoming").exists()


def test_another_model_takes_the_place_of_one_on_its_way(device, server):
    device.assign(server.publish(1))
    device.run(until=lambda: device.updater.state().fetched_share > 0)
    device.assign(server.publish(2))
    device.run()
    assert device.slots == Staged(committed=0, candidate=2)
    assert len(device.model_asked(1)) < 20


def test_another_model_takes_the_place_of_a_staged_one(device, server):
    device.assign(server.publish(1))
    device.run()
    device.assign(server.publish(2))
    device.run()
    assert device.slots == Staged(committed=0, candidate=2)
    assert device.slots.refused == {}


def test_a_halt_takes_back_what_is_staged(device, server):
    first = server.publish(1)
    device.install(first)
    device.assign(server.publish(2))
    device.run()
    device.assign(first)
    device.run(1)
    assert device.slots == Steady(committed=1)
    assert device.updater.take() is None


def test_another_model_waits_for_the_end_of_a_trial(device, server):
    device.assign(server.publish(1))
    device.run()
    device.updater.take()
    device.assign(server.publish(2))
    device.run()
    assert device.slots == Trial(committed=0, candidate=1)
    assert device.model_asked(2) == []
    device.updater.judge(Commit())
    assert device.slots == Trial(committed=0, candidate=1)  # nothing executes yet that could be judged
    device.updater.executing(1)
    device.updater.executing(1)
    device.updater.judge(Commit())
    assert device.kinds(1) == ["staged", "trial", "commit"]
    device.run()
    assert device.slots == Staged(committed=1, candidate=2)


def test_only_the_version_that_is_meant_is_taken(device, server):
    """What was in the shadow may have made way for a newer one since."""
    device.install(server.publish(1))
    device.assign(server.publish(3))
    device.run()
    assert device.updater.take(2) is None
    assert device.slots == Staged(committed=1, candidate=3)
    assert device.updater.take(3) == device.folder / "3"


@pytest.mark.parametrize("wanted", [2, 4])
def test_a_trial_is_called_off_when_another_version_is_wanted(device, server, wanted):
    """After a halt the committed one is, after a rollback a newer one: a slow stream may try the bad one for days."""
    for version in (1, 2):
        device.install(server.publish(version))
    good = server.publish(2)
    device.assign(server.publish(3))
    device.run()
    device.updater.take()
    device.updater.executing(3)
    device.assign(server.publish(1))  # older than what is committed: no word on the trial
    device.run(1)
    assert device.slots == Trial(committed=2, candidate=3)
    device.assign(good if wanted == 2 else server.publish(4))
    device.updater.step(device.now_s)
    assert device.slots == Steady(committed=2)
    assert device.reports[-1] == ("revert", 3, f"version {wanted} is wanted instead: back to version 2")
    device.run()
    assert device.slots == (Steady(committed=2) if wanted == 2 else Staged(committed=2, candidate=4))
    if wanted == 2:
        device.assign(server.publish(3))  # it was not refused
        device.run()
        assert device.slots == Staged(committed=2, candidate=3)


def test_a_model_withdrawn_during_its_check_is_not_staged(device, server):
    check = device.updater._check

    def slow(folder):
        check(folder)
        device.assign(None)

    device.updater._check = slow
    device.assign(server.publish(1))
    device.run()
    assert device.checked == [1]
    assert device.slots == Steady()
    assert device.kinds(1) == []  # not for a moment, or the agent might have begun its trial


def test_what_runs_is_no_work(device, server):
    assignment = server.publish(1)
    device.install(assignment)
    server.asked.clear()
    device.assign(assignment)
    device.run()
    assert server.asked == []
    assert device.kinds(1) == ["staged", "trial", "commit"]


def test_a_model_too_large_for_a_file_is_not_fetched(device, server):
    manifest, _ = artifact(1)
    file = OnnxFile(sha256="0" * 64, bytes=2**31)
    data = encode_manifest(msgspec.structs.replace(manifest, files={"cpu-int8": file}))
    server.files[sha256_hex(data)] = data
    device.assign(Assignment(version=1, manifest_sha256=sha256_hex(data), manifest_bytes=len(data)))
    device.run()
    assert "at most 2147483647" in device.slots.refused[1]
    assert {name for name, _ in server.asked} == {sha256_hex(data)}


def test_a_server_without_the_file_is_not_asked_for_ever(device, server):
    assignment = server.publish(1)
    held_back = server.files.pop(assignment.manifest_sha256)
    device.assign(assignment)
    device.run(300)
    assert len(server.asked) == 3
    assert [(kind, "unknown" in text) for kind, _, text in device.reports] == [("error", True)]
    assert device.slots == Steady()
    server.files[assignment.manifest_sha256] = held_back
    device.updater.on_desired(Desired(revision=device.revision, model=assignment))  # retained, on the next connect
    device.run()
    assert device.slots == Staged(committed=0, candidate=1)


def test_a_link_that_flaps_does_not_make_it_ask_for_ever(device, server):
    assignment = server.publish(1)
    held_back = server.files.pop(assignment.manifest_sha256)
    order = Desired(revision=1, model=assignment)
    asked_at_s = []
    for _ in range(4 * 360):  # for four hours, the broker repeats the retained order every ten seconds
        device.updater.on_desired(order)
        before = len(server.asked)
        device.run(10)
        asked_at_s += [device.now_s] * (len(server.asked) - before)
    in_hour = [sum(hour * 3600 < at_s <= (hour + 1) * 3600 for at_s in asked_at_s) for hour in range(4)]
    assert in_hour[0] <= 21  # three tries each time, after rests of 1, 2, 4, .. 32 minutes
    assert in_hour[2] <= 3
    assert in_hour[3] <= 3
    assert [kind for kind, _, _ in device.reports] == ["error"]

    server.files[assignment.manifest_sha256] = held_back
    device.updater.on_desired(msgspec.structs.replace(order, revision=2))
    device.run(60)
    assert device.slots == Staged(committed=0, candidate=1)


def test_an_order_for_something_else_does_not_wait_for_the_rest(device, server):
    missing = server.publish(1)
    del server.files[missing.manifest_sha256]
    device.assign(missing)
    device.run(30)
    assert len(server.asked) == 3
    device.assign(server.publish(2))
    device.run(10)
    assert device.slots == Staged(committed=0, candidate=2)


def test_a_file_of_another_length_is_an_error_answer(device, server):
    assignment = msgspec.structs.replace(server.publish(1), manifest_bytes=50)
    device.assign(assignment)
    device.run(300)
    assert len(server.asked) == 3
    assert "expected 50" in device.reports[0][2]


def test_a_disk_that_refuses_pauses_the_update(device, server):
    (device.folder / "incoming").write_text("in the way")
    device.assign(server.publish(1))
    device.run(int(3 * PAUSE_S))
    assert [kind for kind, _, _ in device.reports] == ["error"]  # said once
    (device.folder / "incoming").unlink()
    device.run(int(2 * PAUSE_S))
    assert device.slots == Staged(committed=0, candidate=1)


# --- by hand, and housekeeping ---


def test_an_artifact_given_by_hand_is_committed_when_it_is_newer(device, tmp_path):
    for version in (3, 2, 5):
        write_artifact(tmp_path / f"given-{version}", *artifact(version, blocks=1))
    device.updater.install_first(tmp_path / "given-3")
    assert device.slots == Steady(committed=3)
    assert read_artifact(device.updater.running_folder())[0].version == 3
    device.updater.install_first(tmp_path / "given-3")
    device.updater.install_first(tmp_path / "given-2")
    assert device.checked == [3]
    device.updater.install_first(tmp_path / "given-5")
    assert device.slots == Steady(committed=5)


def test_an_artifact_given_by_hand_that_is_no_good_is_an_error(device, tmp_path):
    with pytest.raises(ArtifactError, match="expected an artifact folder"):
        device.updater.install_first(tmp_path / "nothing")
    write_artifact(tmp_path / "given", *artifact(3, blocks=1))
    device.check_fails = IncompatibleError("golden")
    with pytest.raises(IncompatibleError, match="golden"):
        device.updater.install_first(tmp_path / "given")
    assert device.slots == Steady()
    assert device.updater.running_folder() is None


def test_a_refused_version_given_by_hand_is_not_run(device, server, tmp_path, caplog):
    device.install(server.publish(1))
    device.updater.refuse(2, "golden")
    write_artifact(tmp_path / "given", *artifact(2, blocks=1))
    device.updater.install_first(tmp_path / "given")
    assert device.slots.committed == 1
    assert "refused here: golden" in caplog.text


def test_old_versions_are_swept_but_never_what_is_needed(tmp_path, server):
    device = Device(tmp_path / "models", server, keep_versions=2)
    for version in (1, 2, 3):
        device.install(server.publish(version, blocks=1))
    device.assign(server.publish(4, blocks=1))
    device.run()
    assert device.updater.shelf.versions() == [4, 3]
    device.updater.take()
    device.updater.executing(4)
    device.updater.failed(4, "bad")
    device.updater.executing(3)
    device.run()
    assert device.updater.shelf.versions() == [3]


def test_a_heartbeat_names_only_the_newest_refusals(device):
    for version in range(1, 100):
        device.updater.refuse(version, "x" * 1000)
    told = device.updater.state().refused
    assert sorted(told) == list(range(80, 100))
    assert len(device.slots.refused) == 99
