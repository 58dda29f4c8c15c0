"""Are what models are judged by always the same, of the same kind, and different enough?"""

from __future__ import annotations

import numpy as np
import pytest

from models.corruption import strangers, suite

SHAPES = [
    ((6, 8, 8), "uint8"),
    ((6, 9, 10, 3), "uint8"),
    ((6, 20, 3), "float32"),
    ((6, 7), "float32"),
    ((6, 7), "uint8"),
]


def samples(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.random.default_rng(0).integers(20, 230, shape).astype(dtype)


@pytest.mark.parametrize(("shape", "dtype"), SHAPES)
@pytest.mark.parametrize("make", [suite, strangers])
def test_every_kind_is_kept_and_changed_and_the_same_again(make, shape, dtype) -> None:
    x = samples(shape, dtype)
    kept = x.copy()
    made = dict(make(x))
    assert len(made) >= 2
    for name, seen in made.items():
        assert (seen.shape, seen.dtype) == (x.shape, x.dtype), name
        assert np.isfinite(seen).all()
        assert not np.array_equal(seen, x), name
    assert (x == kept).all()
    assert all(np.array_equal(again, made[name]) for name, again in make(x))


@pytest.mark.parametrize(("shape", "dtype"), SHAPES[:3])
def test_pieces_are_those_of_the_sample_in_another_order(shape, dtype) -> None:
    x = samples(shape, dtype)
    pieces = dict(strangers(x))["pieces"]
    assert all(np.array_equal(np.sort(a, axis=None), np.sort(b, axis=None)) for a, b in zip(x, pieces, strict=True))


def test_a_tenth_of_an_image_is_hidden() -> None:
    x = np.zeros((5, 30, 30), np.uint8)
    assert np.mean(dict(suite(x))["hidden"] == 128) == pytest.approx(0.1, abs=0.02)
