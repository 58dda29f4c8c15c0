"""Is what went wrong caught by the gate that names it, and does what went well pass? With real trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import quadrants
import taught

from edge_agent.contract.artifact import read_artifact
from models.errors import DataError
from models.package import Packaged
from models.train import Net, Settings, fit
from server.teach.champions import Champion, Elder
from server.teach.dataset import Dataset, Part
from server.teach.judging import Judged

FEW, MANY = 7, 21


@pytest.fixture(scope="module")
def world() -> taught.Fleet:
    try:
        return taught.fleet()
    except DataError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def good(world: taught.Fleet) -> Packaged:
    return taught.packed(taught.trained(world, seed=1), world.names, world.data)


def failed(judged: Judged) -> set[str]:
    msgspec.to_builtins([judged.verdict, judged.figures])  # as a run's report keeps it
    return {gate.name for gate in judged.verdict.failed()}


def gains_on_the_whole(judged: Judged) -> bool:
    figures = judged.figures
    return figures["candidate_stream_accuracy"] > figures["champion_stream_accuracy"]


@pytest.mark.parametrize("seeds", [range(1, FEW), pytest.param(range(FEW, MANY), marks=pytest.mark.long)], ids=str)
def test_honest_candidates_pass(world: taught.Fleet, seeds: range) -> None:
    blocked = {seed: failed(taught.honest(world, seed=seed)) for seed in seeds}
    assert {seed: names for seed, names in blocked.items() if names} == {}


def test_a_class_that_one_device_lost_is_named(world: taught.Fleet) -> None:
    judged = taught.lost_class(world)
    assert gains_on_the_whole(judged)
    assert f"stream/device {taught.BUSY}/class {taught.LOST}" in failed(judged)


def test_labels_of_a_device_that_are_turned_round_name_the_device(world: taught.Fleet) -> None:
    judged = taught.flipped_labels(world)
    assert gains_on_the_whole(judged)
    assert failed(judged) == {f"labels/device {taught.LIAR}"}


def test_a_wrong_temperature_is_found_by_the_calibration(world: taught.Fleet) -> None:
    judged = taught.wrong_temperature(world)
    assert gains_on_the_whole(judged)
    assert {"stream/calibration", "import/calibration"} <= failed(judged)
    assert all("calibration" in name or "Brier" in name for name in failed(judged))


def test_channels_that_one_scale_cannot_hold_are_found_by_the_agreement(world: taught.Fleet) -> None:
    judged = taught.collapsed_int8(world)
    assert judged.figures["fp32_accuracy"] > judged.figures["champion_stream_accuracy"]
    assert {"int8_agreement", "int8_accuracy"} <= failed(judged)


def test_noise_that_was_taught_a_name_is_found_by_the_robustness(world: taught.Fleet) -> None:
    judged = taught.disturbed_lessons(world)
    assert gains_on_the_whole(judged)
    assert "robustness/noise" in failed(judged)


@pytest.mark.parametrize("shape", [(40, 3), (12,)])
def test_series_and_vectors_are_judged_as_pictures_are(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(600) % 3
    x = (rng.normal(size=(600, *shape)) + np.sin(np.arange(shape[-1])) * y.reshape(-1, *[1] * len(shape)) * 2).astype(
        np.float32
    )
    part = Part(
        x=x,
        y=y,
        stream=np.arange(600) % 2 == 0,
        probability=np.ones(600),
        device=np.char.add("imu-", (np.arange(600) // 10 % 3).astype(np.str_)),
        sample=np.arange(600).astype(np.str_),
        received_at_ms=np.arange(600),
        arm=np.full(600, ""),
    )
    data = Dataset(part, part, left_out=0)
    nets = [fit(x, y, classes=3, settings=Settings(epochs=2, seed=seed)) for seed in range(2)]
    first, second = (taught.packed(net, ("a", "b", "c"), data) for net in nets)
    fleet = taught.Fleet(("a", "b", "c"), data, Champion(1, first.manifest, first.onnx, b""), part, 2)
    judged = taught.judged(fleet, second, sites={"imu-1": "yard", "imu-2": "yard"})
    names = {gate.name for gate in judged.verdict.gates}
    assert [name for name in names if "/site" in name] == ["stream/site yard"]
    assert {"robustness/offset", "strangers", "stream/energy low", "stream/time last third"} <= names
    assert ("robustness/blur" in names) == (len(shape) == 2)
    assert all(np.isfinite(value) for value in judged.figures.values())


def test_what_an_earlier_version_knew_counts_though_the_champion_lost_it(world: taught.Fleet, good: Packaged) -> None:
    elder = Elder(Champion(1, good.manifest, good.onnx, b""), set(world.data.holdout.sample.tolist()))
    as_good_as_the_champion = taught.packed(Net.load(world.champion.weights), world.names, world.data)
    judged = taught.judged(world, as_good_as_the_champion, elders=(elder,))
    assert failed(judged) == {"forgetting/version 1"}


def test_classes_in_another_order_break_the_contract(world: taught.Fleet, good: Packaged) -> None:
    first, second, *rest = world.names
    manifest = msgspec.structs.replace(good.manifest, classes=(second, first, *rest))
    judged = taught.judged(world, replace(good, manifest=manifest))
    broken = next(gate for gate in judged.verdict.failed() if gate.name == "contract")
    assert broken.why == "its classes do not begin with the champion's: they are only ever added to"


def test_another_files_golden_logits_break_the_contract(world: taught.Fleet, good: Packaged) -> None:
    manifest = msgspec.structs.replace(good.manifest, golden=world.champion.manifest.golden)
    assert "contract" in failed(taught.judged(world, replace(good, manifest=manifest)))


def test_logits_that_are_not_finite_break_the_contract_though_the_golden_test_passes(tmp_path: Path) -> None:
    x, y = quadrants.images(200, seed=1)
    n = len(y)
    part = Part(
        x=x,
        y=y,
        stream=np.zeros(n, np.bool_),
        probability=np.ones(n),
        device=np.full(n, "import"),
        sample=np.arange(n).astype(np.str_),
        received_at_ms=np.arange(n),
        arm=np.full(n, ""),
    )
    quadrants.overflowing(tmp_path / "bad", version=2)
    (manifest, onnx), (bad, overflowing) = read_artifact(quadrants.ARTIFACT), read_artifact(tmp_path / "bad")
    world = taught.Fleet(manifest.classes, Dataset(part, part, left_out=0), Champion(1, manifest, onnx, b""), part, 2)
    judged = taught.judged(world, Packaged(bad, overflowing, 1.0, None, None))
    broken = next(gate for gate in judged.verdict.failed() if gate.name == "contract")
    assert "not finite on" in broken.why
    assert {"import", "import/negative flips"} <= failed(judged)  # what is no answer is wrong
