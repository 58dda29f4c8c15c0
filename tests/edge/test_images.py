"""What is an image travels as one, and what comes as one is bounded by its header."""

import sys

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract import images, wire
from edge_agent.contract.errors import ConfigError, MessageError
from edge_agent.contract.types import Prediction, Sample, SampleId, Selection

SHAPES = ((9, 7), (9, 7, 1), (9, 7, 3), (1, 1))


SELECTION = Selection(
    reason="random", probability=0.5, utility=0.5, novelty=1.0, threshold=0.5, tokens=1.0, strategy="margin"
)


def sample_of(data):
    return Sample(SampleId("cam-1", "main", 1, 1), "", 1, data, Prediction(0, 0.5), SELECTION, 1)


def smooth(shape):
    """Pixels that an image format is made for."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    grey = (rows * 8 + columns * 5).astype(np.uint8)
    return np.broadcast_to(grey.reshape(*shape[:2], *(1,) * (len(shape) - 2)), shape).copy()


@pytest.mark.parametrize("kind", images.KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_image_comes_back_in_its_shape(kind, shape):
    data = smooth(shape)
    decoded = images.decode_image(images.encode_image(data, images.Codec(kind, 95)), kind, shape)
    assert (decoded.shape, decoded.dtype) == (shape, np.uint8)
    assert np.abs(decoded.astype(int) - data).max() <= (0 if kind == "png" else 12)


@given(st.sampled_from(SHAPES), st.randoms(use_true_random=False))
def test_png_loses_nothing(shape, random):
    data = np.frombuffer(random.randbytes(int(np.prod(shape))), np.uint8).reshape(shape)
    np.testing.assert_array_equal(
        images.decode_image(images.encode_image(data, images.Codec("png", 1)), "png", shape), data
    )


@pytest.mark.parametrize("kind", images.KINDS)
def test_a_sample_travels_as_an_image_where_it_is_one(kind):
    data = smooth((64, 64, 3))
    header, body = wire.encode_sample(sample_of(data), codec=images.Codec(kind, 90))
    assert header.encoding == kind
    assert len(body) < data.nbytes / 4
    wire.check_sample_header(header, wire.Address("f", header.id.split(".")[0], "up", "sample"))
    assert np.abs(wire.decode_body(header, body).astype(int) - data).mean() < 3


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros(64, np.uint8),
        np.random.default_rng(0).integers(0, 256, (3, 2), np.uint8),  # larger as a file than as pixels
    ],
    ids=["four channels", "floats", "one axis", "tiny"],
)
def test_what_is_no_image_travels_as_an_array(data):
    header, body = wire.encode_sample(sample_of(data), codec=images.Codec("png", 90))
    assert header.encoding not in images.KINDS
    np.testing.assert_array_equal(wire.decode_body(header, body), data)


def test_without_a_codec_nothing_is_lost():
    assert wire.encode_sample(sample_of(smooth((64, 64, 3))))[0].encoding not in images.KINDS
    assert images.codec("raw", 90) is None


@pytest.mark.parametrize(("shape", "dtype"), [((8, 8, 4), "uint8"), ((8, 8), "float32"), ((64,), "uint8")])
def test_a_header_that_calls_something_else_an_image_is_refused(shape, dtype):
    header, _ = wire.encode_sample(sample_of(smooth((8, 8))), codec=images.Codec("png", 90))
    header = msgspec.structs.replace(header, encoding="png", shape=shape, dtype=dtype)
    with pytest.raises(MessageError, match="is no image"):
        wire.check_sample_header(header, wire.Address("f", header.id.split(".")[0], "up", "sample"))


def test_without_pillow_the_configuration_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.features", None)
    with pytest.raises(ConfigError, match=r"pip install \"winnow-edge\[images\]\""):
        images.codec("jpeg", 90)
