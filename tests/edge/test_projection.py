"""Do sketches keep lengths and angles, the same on every machine?"""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.choose.novelty import SKETCH, Projection
from edge_agent.choose.splitmix import SplitMix64


def error_of(project, rows: np.ndarray) -> float:
    """Root mean square of what cosines between rows are off by."""
    told, true = (vectors @ vectors.T for vectors in (unit(project(rows)), unit(rows)))
    return float(np.sqrt(np.mean((told - true) ** 2)))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("dimensions", [32, 64, 256, 1024])
def test_the_columns_are_orthogonal(dimensions: int) -> None:
    matrix = Projection(3).project(np.eye(dimensions, dtype=np.float32))
    np.testing.assert_allclose(matrix.T @ matrix, dimensions * np.eye(SKETCH), atol=1e-3)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 10, 24, 33, 100, 1280])
def test_any_number_of_dimensions_has_a_sketch_of_signs(dimensions: int) -> None:
    matrix = Projection(0).project(np.eye(dimensions, dtype=np.float32))
    assert matrix.shape == (dimensions, SKETCH)
    np.testing.assert_allclose(np.abs(matrix), 1.0, rtol=1e-6)


@pytest.mark.chance
@pytest.mark.parametrize("dimensions", [64, 96])
def test_angles_are_kept_better_than_by_columns_that_know_nothing_of_each_other(dimensions: int) -> None:
    rows = np.random.default_rng(0).normal(size=(300, dimensions)).astype(np.float32)

    def of_signs(seed: int):
        signs = np.where(SplitMix64(seed, 1).draws(dimensions * SKETCH) < 0.5, -1.0, 1.0)
        return lambda rows: rows @ signs.reshape(dimensions, SKETCH)

    ours, alone = (np.mean([error_of(kind(seed), rows) for seed in range(10)]) for kind in (Projection, of_signs))
    assert ours < 0.92 * alone


def test_seeds_and_lengths_differ() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    sketches = [Projection(*seed)(rows) for seed in ((0,), (1,), (0, 1))]
    assert len({sketch.tobytes() for sketch in sketches}) == 3
    assert Projection(0)(rows).tobytes() == Projection()(rows).tobytes()
