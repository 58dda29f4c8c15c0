"""Does what is alike lie together on the map?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.label.layout import lay_out, neighbours, principal


def clouds(count: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(N, 32) embeddings of fifteen kinds that two components do not tell apart, and the kinds."""
    rng = np.random.default_rng(seed)
    centres, kind = rng.normal(size=(15, 32)), rng.integers(15, size=count)
    return (centres[kind] + 0.9 * rng.normal(size=(count, 32))).astype(np.float32), kind


def test_neighbours_are_kept_that_two_components_lose():
    x, kind = clouds(600)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    flat, laid = principal(unit, 2), lay_out(x, rng=np.random.default_rng(1))
    alike = [float((kind[neighbours(y, 8)[0]] == kind[:, None]).mean()) for y in (flat, laid)]
    assert alike[0] < 0.6  # else the test tells nothing
    assert alike[1] > 0.9


def test_the_same_seed_gives_the_same_map():
    x, _ = clouds(80)
    one, other = (lay_out(x, rng=np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one, other)


@given(count=st.integers(1, 40), width=st.integers(1, 5), seed=st.integers(0, 99), same=st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_cloud_stays_in_the_frame(count, width, seed, same):
    x = np.random.default_rng(seed).normal(size=(1 if same else count, width))
    laid = lay_out(np.repeat(x, count, axis=0) if same else x, rng=np.random.default_rng(0))
    assert laid.shape == (count, 2)
    assert np.isfinite(laid).all()
    assert laid.min() >= 0.0
    assert laid.max() <= 1.0


@pytest.mark.parametrize("count", [3, 30])
def test_neighbours_are_the_nearest(count):
    x = np.random.default_rng(count).normal(size=(40, 6)).astype(np.float32)
    near, far = neighbours(x, count)
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_allclose(far, np.sort(distance, axis=1)[:, :count], atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(distance, near, axis=1), far, atol=1e-4)
