from __future__ import annotations

import numpy as np
import pytest

from models.data import Labelled
from server.demo.scenario import Plan, Scenario, by_device, fog, mixed
from server.errors import ServerConfigError

NAMES = ("a", "b", "c", "d")
PLAN = Plan(devices=3, base_count=200, holdout_count=100, rows_per_device=400, test_count=300)


def data(count: int, *, offset: int = 0, **columns: np.ndarray) -> Labelled:
    """Every sample is another: its number stands in its pixels."""
    number = np.arange(offset, offset + count)
    x = np.zeros((count, 4, 4), np.uint8)
    for byte in range(3):
        x[:, 0, byte] = number >> (8 * byte) & 255
    return Labelled(x, np.random.default_rng(offset).integers(0, 4, count), NAMES, **columns)


def numbers(x: np.ndarray) -> set[int]:
    return {int(one[0, 0]) | int(one[0, 1]) << 8 | int(one[0, 2]) << 16 for one in x}


def disjoint(scenario: Scenario) -> None:
    parts = [scenario.base.x, scenario.holdout.x, scenario.test.x]
    parts += [s.x[: s.degraded_from] for s in scenario.streams]
    sets = [numbers(part) for part in parts]
    assert len(set.union(*sets)) == sum(len(part) for part in parts)


def test_mixed_parts_are_disjoint_and_late_classes_are_late() -> None:
    plan = PLAN._replace(late_classes=("b",))
    made = mixed(data(4000), data(1500, offset=100_000), plan, np.random.default_rng(0))
    disjoint(made)
    assert made.names == ("a", "c", "d", "b")
    assert made.base.names == ("a", "c", "d")
    for stream in made.streams:
        assert stream.late_from == 100
        assert (stream.y[:100] < 3).all()
        assert 0.15 < (stream.y[100:] == 3).mean() < 0.35
    assert 0.15 < (made.test.y == 3).mean() < 0.35


def test_one_camera_fogs_and_so_does_its_share_of_the_test() -> None:
    plan = PLAN._replace(degraded=2)
    plain = mixed(data(4000), data(1500, offset=100_000), PLAN, np.random.default_rng(0))
    made = mixed(data(4000), data(1500, offset=100_000), plan, np.random.default_rng(0))
    assert [s.degraded_from for s in made.streams] == [None, None, 200]
    assert (made.streams[2].x[:200] == plain.streams[2].x[:200]).all()
    assert (made.streams[2].x[200:] != plain.streams[2].x[200:]).mean() > 0.5
    bright = made.test.x.mean(axis=(1, 2)) > 30
    assert bright.mean() == pytest.approx(1 / 3, abs=0.01)
    assert (bright == made.degraded).all()
    assert not plain.degraded.any()
    assert not (plain.test.x.mean(axis=(1, 2)) > 30).any()


def test_devices_keep_their_own_samples_in_their_order() -> None:
    device, t = np.arange(3000) % 3, np.arange(3000)[::-1].copy()
    made = by_device(data(3000, device=device, t=t), PLAN._replace(late_classes=("c",)), np.random.default_rng(0))
    disjoint(made)
    for index, stream in enumerate(made.streams):
        seen = [next(iter(numbers(one[None]))) for one in stream.x]
        assert {number % 3 for number in seen} == {made_first(made, index)}
        assert seen == sorted(seen, reverse=True)  # t runs backwards
        assert (stream.y[: stream.late_from] < 3).all()
    assert (made.base.y < 3).all()
    assert (made.test.y == 3).any()
    for index in range(3):
        assert {number % 3 for number in numbers(made.test.x[made.test.device == index])} == {made_first(made, index)}


def made_first(made: Scenario, index: int) -> int:
    return next(iter(numbers(made.streams[index].x[:1]))) % 3


def test_known_devices_are_the_base_and_never_a_stream() -> None:
    device = np.arange(3000) % 5
    made = by_device(data(3000, device=device), PLAN, np.random.default_rng(0), known=(0, 1))
    assert {number % 5 for number in numbers(made.base.x)} <= {0, 1}
    for stream in made.streams:
        assert {number % 5 for number in numbers(stream.x)}.isdisjoint({0, 1})


def test_too_little_data_says_so() -> None:
    with pytest.raises(ServerConfigError, match="--devices"):
        mixed(data(500), data(1500, offset=100_000), PLAN, np.random.default_rng(0))
    with pytest.raises(ServerConfigError, match="at least 20"):
        by_device(data(90, device=np.arange(90) % 3), PLAN, np.random.default_rng(0))
    with pytest.raises(ServerConfigError, match="late classes z"):
        mixed(data(4000), data(1500), PLAN._replace(late_classes=("z",)), np.random.default_rng(0))


@pytest.mark.parametrize("x", [np.full((3, 8, 8), 200, np.uint8), np.ones((3, 10, 2), np.float32)])
def test_fog_changes_everything_but_the_form(x: np.ndarray) -> None:
    x = x + np.arange(x.size).reshape(x.shape).astype(x.dtype) % 7
    foggy = fog(x, np.random.default_rng(0))
    assert (foggy.shape, foggy.dtype) == (x.shape, x.dtype)
    assert (foggy != x).mean() > 0.5
