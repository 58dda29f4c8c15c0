"""Every kind of sample has a picture."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from server.label import picture


@pytest.mark.parametrize(
    ("shape", "dtype", "mode"),
    [
        ((8, 8), np.uint8, "L"),
        ((28, 28, 1), np.uint8, "L"),
        ((30, 40, 3), np.uint8, "RGB"),
        ((16, 16), np.float32, "L"),
    ],
)
def test_images_are_shown_as_they_are(shape, dtype, mode):
    data = (np.random.default_rng(0).random(shape) * 255).astype(dtype)
    made = picture.of(data)
    image = Image.open(io.BytesIO(made.body))
    assert (made.media_type, image.mode) == ("image/png", mode)
    factor = image.height // shape[0]
    assert min(image.size) >= picture.SMALLEST
    if dtype == np.uint8:
        assert np.array_equal(np.asarray(image)[::factor, ::factor].reshape(shape), data)


@given(arrays.arrays(np.float32, arrays.array_shapes(min_dims=1, max_dims=4, max_side=20)))
def test_nothing_that_a_device_may_send_has_no_picture(data):
    made = picture.of(data)
    if made.media_type == "image/png":
        Image.open(io.BytesIO(made.body)).load()
    else:
        lines = ElementTree.fromstring(made.body)
        assert 1 <= len(lines) <= picture.CHANNELS


@given(st.integers(1, 5000), st.integers(1, 3))
def test_a_long_series_is_one_short_line_a_channel(length, channels):
    made = picture.of(np.random.default_rng(0).normal(size=(length, channels)).astype(np.float32))
    if made.media_type == "image/svg+xml":
        assert len(made.body) < 16_000 * channels


@pytest.mark.parametrize("most", [np.finfo(np.float64).max, np.inf, np.float32(3e38)])
@pytest.mark.filterwarnings("error")
def test_the_largest_numbers_that_there_are_can_be_shown(most):
    strip = np.array([[-most, 0.0], [most, np.nan]])
    shades = np.asarray(Image.open(io.BytesIO(picture.of(np.kron(strip, np.ones((4, 4)))).body)))
    assert (shades.min(), shades.max()) == (0, 255)
    assert shades[0, -1] == shades[-1, -1] == 127  # 0, and what is no number
    assert picture.of(strip).media_type == "image/svg+xml"


def test_what_is_not_finite_or_all_the_same_can_be_shown():
    assert picture.of(np.full((5, 2), np.nan, np.float32)).media_type == "image/svg+xml"


@pytest.mark.parametrize("shape", [(1, 50_000, 3), (50_000, 1, 1)])
def test_a_strip_is_not_enlarged_until_it_fills_the_memory(shape):
    image = Image.open(io.BytesIO(picture.of(np.zeros(shape, np.uint8)).body))
    assert image.size == (shape[1], shape[0])
