"""A whole trial, by the real loop, slots and models: beside the running one, then live."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from quadrants import ARTIFACT, another, artifact, images

from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.config import Update
from edge_agent.contract.artifact import MODEL, OnnxFile, read_artifact, sha256_hex, write_artifact
from edge_agent.contract.errors import ArtifactError
from edge_agent.contract.types import Reading
from edge_agent.contract.wire import Desired
from edge_agent.housekeeping import Housekeeping
from edge_agent.intake import Intake
from edge_agent.loop import Cursor, Loop
from edge_agent.model import Model
from edge_agent.outgoing import Identity
from edge_agent.send.writer import Handover
from edge_agent.update.slots import Staged, Steady, Trial
from edge_agent.update.updater import Updater

X, _ = images(6000, seed=3)
STEP = 50  # samples between two looks of the housekeeping
UPDATE = Update(shadow_samples=200, shadow_share=0.5, shadow_s=1e6, probation_samples=200, probation_s=1.0)


class Device:
    """Housekeeping over a loop, with a clock of its own: a second to a look. `power_cut` keeps what is on disk."""

    def __init__(self, folder: Path, *, update: Update = UPDATE, x: np.ndarray = X, kind: type[Model] = Model) -> None:
        self.folder, self.update, self.x, self.kind = folder, update, x, kind
        self.reports: list[tuple[str, str, int, dict]] = []
        self.handed: list[Handover] = []
        self.now_s, self.at = 0.0, 0
        self.start()
        if self.updater.running_folder() is None:
            self.updater.install_first(ARTIFACT)
        self.begin()

    def start(self) -> None:
        self.updater = Updater(
            self.folder, variant="cpu-fp32", check=lambda _: None, needs=None, max_starts=2, keep_versions=3,
            request=lambda _: True, report=lambda *said: self.reports.append(said),
        )  # fmt: skip
        self.updater.start()
        self.updater.stop()

    def begin(self) -> None:
        running = self.updater.running_folder()
        assert running is not None
        self.loop = Loop(
            self.load(running),
            NoveltyQuantile(Rules(label_share=0.1), SplitMix64(1)),
            identity=Identity("cam-1", "main", 1),
            acquisition="margin",
            cursor=Cursor(self.at),
            flush_s=10.0,
            hand_over=self.handed.append,
            log_predictions=True,
        )
        self.house = Housekeeping(
            self.loop, self.updater, update=self.update, load=self.load, write_status=lambda _: None, status_s=1.0,
            rng=SplitMix64(2),
        )  # fmt: skip

    def power_cut(self) -> None:
        self.start()
        self.begin()

    def load(self, folder: Path) -> Model | None:
        try:
            return (self.kind if folder.name != "1" else Model)(folder, variant="cpu-fp32", block=16)
        except ArtifactError as error:
            self.updater.failed(int(folder.name), str(error))
            return None

    def stage(self, folder: Path, version: int) -> None:
        manifest, onnx = read_artifact(folder, variant="cpu-fp32")
        arrival = self.updater.shelf.arrival(version)
        self.updater.stage(self.updater.shelf.unpack(arrival, msgspec.json.encode(manifest), onnx), version)

    def look(self, count: int = 1) -> None:
        for _ in range(count):
            end = self.at + STEP
            Intake(self.loop).run(
                (Reading(self.x[seq % len(self.x)], seq) for seq in range(self.at, end)), threading.Event()
            )
            self.at = end
            self.house.tend_model(self.now_s)
            self.now_s += 1.0

    def until(self, kind: type, looks: int = 60) -> None:
        for _ in range(looks):
            if isinstance(self.slots, kind):
                return
            self.look()
        raise AssertionError(f"no {kind.__name__}: {self.slots} {self.reports}")

    @property
    def slots(self) -> Steady | Staged | Trial:
        return self.updater.slot_state()

    @property
    def told(self) -> list[tuple[str, str]]:
        """Kinds and phases of the reports on version 2."""
        return [(kind, detail.get("phase", "")) for kind, _, version, detail in self.reports if version == 2]

    @property
    def why(self) -> str:
        return self.slots.refused.get(2, "")


def with_weights(folder: Path, change: object) -> Path:
    """Version 2: the weights of version 1, changed."""
    onnx = pytest.importorskip("onnx")  # the agent's own environment has none
    graph = onnx.load_model_from_string((ARTIFACT / MODEL).read_bytes())
    for tensor in graph.graph.initializer:
        weights = onnx.numpy_helper.to_array(tensor)
        if weights.ndim == 2:
            tensor.CopyFrom(onnx.numpy_helper.from_array(change(weights).astype(np.float32), tensor.name))
    data = graph.SerializeToString()
    files = {"cpu-fp32": OnnxFile(sha256=sha256_hex(data), bytes=len(data))}
    write_artifact(folder, msgspec.structs.replace(read_artifact(ARTIFACT)[0], version=2, files=files), data)
    return folder


def test_a_good_model_is_tried_beside_then_live_and_committed(tmp_path: Path) -> None:
    another(tmp_path / "new", version=2, noise=0.5)
    device = Device(tmp_path / "models")
    device.stage(tmp_path / "new", 2)
    device.look(3)
    assert device.slots == Staged(committed=1, candidate=2, starts=0)
    state = device.updater.state()
    assert (state.version, state.slot, state.trying) == (1, "staged", 2)
    assert 0 < state.tried < 200
    device.until(Trial)
    assert device.loop.extras.shadowed() is None or device.loop.extras.shadowed().version == 2
    device.look()
    state = device.updater.state()
    assert (state.version, state.slot, state.trying) == (2, "trial", 2)
    assert device.loop.extras.shadowed() is None
    device.until(Steady)
    assert device.slots == Steady(committed=2)
    assert device.told == [("staged", ""), ("trial", "shadow"), ("trial", "live"), ("commit", "")]
    live = device.reports[-2][3]
    assert live["samples"] >= 200
    assert 0.5 * live["samples"] < live["agreed"] <= live["samples"]
    assert live["before_confidence"] > 0


def test_no_sample_is_missed_and_each_is_answered_by_the_one_that_runs(tmp_path: Path) -> None:
    from edge_agent.outgoing import PREDICTION

    another(tmp_path / "new", version=2, noise=1.5)
    device = Device(tmp_path / "models")
    device.stage(tmp_path / "new", 2)
    device.until(Trial)
    device.until(Steady)
    said = np.frombuffer(b"".join(item.predictions for item in device.handed), PREDICTION)
    assert said["seq"].tolist() == list(range(device.at))
    assert set(said["version"].tolist()) == {1, 2}
    x = X[np.arange(device.at) % len(X)]
    for version, folder in ((1, ARTIFACT), (2, tmp_path / "new")):
        rows = said["version"] == version
        assert (said["label"][rows] == Model(folder, variant="cpu-fp32").predict(x[rows]).argmax(axis=1)).all()


def test_disagreements_are_sent_meanwhile_within_their_share(tmp_path: Path) -> None:
    another(tmp_path / "new", version=2, noise=1.5)
    device = Device(tmp_path / "models", update=msgspec.structs.replace(UPDATE, shadow_label_share=0.02))
    device.stage(tmp_path / "new", 2)
    device.until(Trial)
    shadowed = device.at
    found = [s for item in device.handed for s in item.samples if s.selection.reason == "disagreement"]
    assert 0 < len(found) <= 0.02 * shadowed + 20
    assert {sample.model_version for sample in found} == {1}


def test_none_are_sent_by_a_device_that_is_to_send_nothing(tmp_path: Path) -> None:
    another(tmp_path / "new", version=2, noise=1.5)
    device = Device(tmp_path / "models")
    device.loop.change(Rules(label_share=0.0), "margin")
    device.look()
    device.stage(tmp_path / "new", 2)
    device.until(Trial)
    assert not [s for item in device.handed for s in item.samples if s.selection.reason == "disagreement"]


def test_without_a_shadow_it_runs_live_at_once(tmp_path: Path) -> None:
    another(tmp_path / "new", version=2)
    device = Device(tmp_path / "models", update=msgspec.structs.replace(UPDATE, shadow_samples=0))
    device.stage(tmp_path / "new", 2)
    device.look()
    assert isinstance(device.slots, Trial)
    device.until(Steady)
    assert device.told == [("staged", ""), ("trial", "live"), ("commit", "")]


def test_a_slow_stream_is_not_waited_for(tmp_path: Path) -> None:
    another(tmp_path / "new", version=2)
    device = Device(tmp_path / "models", update=msgspec.structs.replace(UPDATE, shadow_samples=10**6, shadow_s=4.0))
    device.stage(tmp_path / "new", 2)
    device.until(Trial, looks=8)
    device.until(Steady)
    assert "the stream is slow" in device.reports[-2][3]["note"]


@pytest.mark.parametrize("shadow_samples", [200, 0])
def test_a_model_that_gives_no_finite_result_is_given_up(tmp_path: Path, shadow_samples: int) -> None:
    new = with_weights(tmp_path / "new", lambda weights: weights * np.nan)
    device = Device(tmp_path / "models", update=msgspec.structs.replace(UPDATE, shadow_samples=shadow_samples))
    device.stage(new, 2)
    device.look(6)
    assert "gave no finite result, at most 1 % may" in device.why
    assert device.slots.committed == device.loop.model.version == 1
    assert device.told[-1][0] == ("refused" if shadow_samples else "revert")
    if shadow_samples:
        counts = device.loop.record.counts()
        assert counts.invalid == 0  # nobody got an answer of it


@pytest.mark.parametrize("shadow_samples", [200, 0])
@pytest.mark.parametrize(("temperature", "expected"), [(50.0, 0.9), (0.02, 0.75)])
def test_a_model_whose_confidence_collapses_or_saturates_is_given_up(
    tmp_path: Path, shadow_samples: int, temperature: float, expected: float
) -> None:
    manifest = read_artifact(ARTIFACT)[0]
    reference = msgspec.structs.replace(manifest.reference, confidence_mean=expected)
    artifact(tmp_path / "new", version=2, temperature=temperature * manifest.temperature, reference=reference)
    device = Device(tmp_path / "models", update=msgspec.structs.replace(UPDATE, shadow_samples=shadow_samples))
    device.look(10)
    device.stage(tmp_path / "new", 2)
    device.look(25)
    assert "its confidence is" in device.why
    assert device.slots.committed == device.loop.model.version == 1


def test_a_stream_that_is_unlike_the_manifest_for_both_is_no_fault_of_the_new_model(tmp_path: Path) -> None:
    dark = np.random.default_rng(0).integers(0, 60, (4000, 8, 8)).astype(np.uint8)
    another(tmp_path / "new", version=2)
    device = Device(tmp_path / "models", x=dark)
    device.stage(tmp_path / "new", 2)
    device.until(Trial)
    device.until(Steady)
    assert device.slots == Steady(committed=2)
    found = device.reports[-1][3]
    assert found["confidence_expected"] - found["confidence"] > 0.2  # it is unlike it


class Slow(Model):
    """Takes 8 ms a sample more than it says on the box."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        self.steps = tuple((place, infer and functools.partial(self._late, infer)) for place, infer in self.steps)

    def _late(self, infer: Callable[[], None]) -> None:
        time.sleep(0.008 * self.together)
        infer()

    def infer(self, row: int) -> None:
        time.sleep(0.008)
        super().infer(row)


class Fat(Model):
    """Takes 200 MB."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        self.fat = np.ones(200_000_000, np.uint8)


def test_a_model_that_is_late_is_refused_before_anybody_waits_for_it(tmp_path: Path) -> None:
    another(tmp_path / "new", version=2)
    update = msgspec.structs.replace(UPDATE, shadow_samples=30)
    device = Device(tmp_path / "models", update=update, kind=Slow)
    device.stage(tmp_path / "new", 2)
    device.look(8)
    assert "95 % of the samples took up to" in device.why
    assert device.loop.record.vitals().latency_p95_ms < 8.0  # what the shadow took is not held against the running one


def test_a_model_that_takes_too_much_memory_is_refused(tmp_path: Path) -> None:
    another(tmp_path / "new", version=2)
    device = Device(tmp_path / "models", kind=Fat)
    device.loop.model.grew_bytes = 1_000_000
    device.stage(tmp_path / "new", 2)
    device.look(15)
    assert "the agent grew by 2" in device.why
    assert "at most 67 may" in device.why


def test_a_model_that_hardly_agrees_is_refused_where_that_is_asked_for(tmp_path: Path) -> None:
    new = with_weights(tmp_path / "new", lambda weights: -weights)
    device = Device(
        tmp_path / "models", update=msgspec.structs.replace(UPDATE, min_agreement=0.5, max_confidence_shift=0.0)
    )
    device.stage(new, 2)
    device.look(20)
    assert "at least 50% expected" in device.why


def test_a_model_of_other_inputs_is_refused(tmp_path: Path) -> None:
    class Wide(Model):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)
            self.shape = (9, 9)

    another(tmp_path / "new", version=2)
    device = Device(tmp_path / "models", kind=Wide)
    device.stage(tmp_path / "new", 2)
    device.look(3)
    assert "takes (9, 9)" in device.why


# --- what comes in between ---


def test_a_model_withdrawn_from_the_shadow_leaves_it(tmp_path: Path) -> None:
    another(tmp_path / "new", version=2)
    device = Device(tmp_path / "models")
    device.stage(tmp_path / "new", 2)
    device.look(3)
    device.updater.on_desired(Desired(revision=1, model=None))
    device.updater.step(0.0)
    device.look(2)
    assert device.slots == Steady(committed=1)
    assert device.loop.extras.shadowed() is None
    assert device.updater.state().trying == 0


def test_a_newer_model_takes_the_place_of_one_in_the_shadow(tmp_path: Path) -> None:
    another(tmp_path / "new", version=2)
    another(tmp_path / "newer", version=3, seed=1)
    device = Device(tmp_path / "models")
    device.stage(tmp_path / "new", 2)
    device.look(3)
    device.stage(tmp_path / "newer", 3)
    device.until(Trial)
    assert device.slots.candidate == 3
    device.until(Steady)
    assert device.slots == Steady(committed=3)


def test_a_model_leaves_the_shadow_though_the_one_that_takes_its_place_cannot_be_loaded(tmp_path: Path) -> None:
    another(tmp_path / "new", version=2)
    another(tmp_path / "newer", version=3, seed=1)
    device = Device(tmp_path / "models")
    device.stage(tmp_path / "new", 2)
    device.look(3)
    assert device.loop.extras.shadowed() is not None
    device.stage(tmp_path / "newer", 3)
    (device.folder / "3" / MODEL).write_bytes(b"damaged since")
    device.look(2)
    assert 3 in device.slots.refused
    assert device.loop.extras.shadowed() is None


@pytest.mark.parametrize("shadow_samples", [200, 0])
def test_a_first_model_that_failed_makes_way_for_the_next(tmp_path: Path, shadow_samples: int) -> None:
    """Nothing was committed before it, so that it runs on until another comes."""
    another(tmp_path / "new", version=2)
    device = Device(tmp_path / "models", update=msgspec.structs.replace(UPDATE, shadow_samples=shadow_samples))
    device.updater.failed(1, "it went bad")
    assert device.slots == Steady(committed=0)
    device.look(2)
    assert device.loop.model.version == 1
    device.stage(tmp_path / "new", 2)
    device.until(Steady)
    device.look(6)
    assert device.slots == Steady(committed=2)
    assert device.loop.model.version == 2


@pytest.mark.parametrize("cuts", [2, 3])
def test_the_shadow_goes_on_after_a_power_cut_until_they_are_too_many(tmp_path: Path, cuts: int) -> None:
    another(tmp_path / "new", version=2)
    device = Device(tmp_path / "models")
    device.stage(tmp_path / "new", 2)
    for _ in range(cuts):
        device.look(2)
        assert device.loop.model.version == 1
        device.power_cut()
    if cuts == 2:
        device.until(Trial)
        device.until(Steady)
        assert device.slots == Steady(committed=2)
    else:
        assert device.slots.committed == 1
        assert "more than 2 times within its trial in the shadow" in device.why
        assert device.told[-1][0] == "refused"


def test_a_power_cut_on_probation_does_not_forget_how_the_one_before_did(tmp_path: Path) -> None:
    artifact(tmp_path / "new", version=2, temperature=50.0)
    device = Device(tmp_path / "models", update=msgspec.structs.replace(UPDATE, shadow_samples=0))
    device.look(10)
    device.stage(tmp_path / "new", 2)
    device.look(2)
    assert isinstance(device.slots, Trial)
    device.power_cut()
    assert device.loop.model.version == 2
    device.look(10)
    assert "its confidence is" in device.why
    assert device.loop.model.version == 1
