"""Is what went wrong caught by the gate that names it, and does what went well pass? With real trainings."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
import taught

from models.errors import DataError
from models.train import Net
from server.teach.champions import Champion, Elder
from server.teach.judging import Judged

HONEST = 20


@pytest.fixture(scope="module")
def world() -> taught.Fleet:
    try:
        return taught.fleet()
    except DataError as error:
        pytest.skip(str(error))


def failed(judged: Judged) -> set[str]:
    return {gate.name for gate in judged.verdict.failed()}


def gains_on_the_whole(judged: Judged) -> bool:
    figures = judged.figures
    return figures["candidate_stream_accuracy"] > figures["champion_stream_accuracy"]


def test_honest_candidates_pass(world: taught.Fleet) -> None:
    blocked = {seed: failed(taught.honest(world, seed=seed)) for seed in range(1, HONEST + 1)}
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


def test_what_an_earlier_version_knew_counts_though_the_champion_lost_it(world: taught.Fleet) -> None:
    better = taught.packed(taught.trained(world, seed=1), world.names, world.data)
    elder = Elder(Champion(1, better.manifest, better.onnx, b""), set(world.data.holdout.sample.tolist()))
    as_good_as_the_champion = taught.packed(Net.load(world.champion.weights), world.names, world.data)
    judged = taught.judged(world, as_good_as_the_champion, elders=(elder,))
    assert failed(judged) == {"forgetting/version 1"}


def test_classes_in_another_order_break_the_contract(world: taught.Fleet) -> None:
    made = taught.packed(taught.trained(world, seed=1), world.names, world.data)
    first, second, *rest = world.names
    manifest = msgspec.structs.replace(made.manifest, classes=(second, first, *rest))
    judged = taught.judged(world, replace(made, manifest=manifest))
    broken = next(gate for gate in judged.verdict.failed() if gate.name == "contract")
    assert broken.why == "its classes do not begin with the champion's: they are only ever added to"


def test_another_files_golden_logits_break_the_contract(world: taught.Fleet) -> None:
    made = taught.packed(taught.trained(world, seed=1), world.names, world.data)
    manifest = msgspec.structs.replace(made.manifest, golden=world.champion.manifest.golden)
    assert "contract" in failed(taught.judged(world, replace(made, manifest=manifest)))
