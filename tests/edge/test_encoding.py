"""Does every array come back bit for bit, and does nothing that a peer may send inflate past its header?"""

from __future__ import annotations

import resource
import zlib
from typing import get_args

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.contract.encoding import Encoding, _differences, pack, unpack
from edge_agent.contract.errors import MessageError
from edge_agent.contract.wire import DTYPES

arrays = hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=6, max_side=9))


def bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


@given(arrays)
def test_every_array_comes_back_bit_for_bit(array):
    encoding, body = pack(array)
    back = unpack(encoding, body, dtype=str(array.dtype), shape=array.shape)
    assert (back.shape, back.dtype, bits(back)) == (array.shape, array.dtype, bits(array))
    assert len(body) <= array.nbytes


@given(arrays)
def test_differences_alone_come_back_bit_for_bit(array):
    """Whether or not they are what `pack` would choose."""
    body = zstandard.compress(_differences(array))
    back = unpack("delta-zstd", body, dtype=str(array.dtype), shape=array.shape)
    assert (back.shape, back.dtype, bits(back)) == (array.shape, array.dtype, bits(array))


def test_a_view_in_another_order_is_packed_as_it_reads():
    image = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    turned = image.transpose(2, 0, 1)[::-1]
    encoding, body = pack(turned)
    np.testing.assert_array_equal(unpack(encoding, body, dtype="uint8", shape=turned.shape), turned)


def test_each_form_is_chosen_where_it_is_the_shortest():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, 4000, np.uint8)
    wave = (1000 * np.sin(np.arange(4000) / 30)).astype(np.int16)
    sparse = np.where(rng.random(4000) < 0.05, rng.random(4000), 0).astype(np.float32)
    assert [pack(array)[0] for array in (noise, wave, sparse)] == ["raw", "delta-zstd", "zstd"]


def test_a_sample_of_channels_first_is_followed_along_its_rows():
    row = np.random.default_rng(0).integers(0, 200, 64, np.uint8)
    image = np.stack([np.tile(row, (64, 1)) + shade for shade in (0, 17, 40)])  # (3, 64, 64), each row as the last
    assert len(pack(image)[1]) < 500


@pytest.mark.parametrize("encoding", get_args(Encoding))
@given(body=st.binary(max_size=60), shape=hnp.array_shapes(min_dims=0), dtype=st.sampled_from(DTYPES))
def test_any_bytes_are_an_array_or_a_message_error(encoding, body, shape, dtype):
    try:
        array = unpack(encoding, body, dtype=dtype, shape=shape)
    except MessageError:
        return
    assert (array.shape, array.dtype) == (shape, dtype)


def bomb(squeezer) -> bytes:
    """200 MB of nothing, made without ever holding them."""
    return b"".join(squeezer.compress(bytes(1_000_000)) for _ in range(200)) + squeezer.flush()


BOMBS = {
    "zlib": ("zlib", lambda: zlib.compressobj(9)),
    "zstd that says so": ("zstd", lambda: zstandard.ZstdCompressor().compressobj(size=200_000_000)),
    "zstd that does not": ("zstd", lambda: zstandard.ZstdCompressor().compressobj()),
    "differences": ("delta-zstd", lambda: zstandard.ZstdCompressor().compressobj(size=200_000_000)),
}


@pytest.mark.parametrize(("encoding", "squeezer"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_inflated_no_further_than_its_shape(encoding, squeezer):
    body = bomb(squeezer())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MessageError, match="17 bytes decoded"):
        unpack(encoding, body, dtype="uint8", shape=(4, 4))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 30_000_000


def test_a_frame_that_wants_a_huge_window_is_refused():
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # its size is not known in advance
    body = writer.compress(bytes(100)) + writer.flush()
    with pytest.raises(MessageError, match="memory"):
        unpack("zstd", body, dtype="uint8", shape=(100,))


@pytest.mark.parametrize("cut", [1, 4, 10])
def test_a_truncated_frame_is_refused(cut):
    encoding, body = pack(np.arange(5000, dtype=np.int32))
    with pytest.raises(MessageError):
        unpack(encoding, body[:-cut], dtype="int32", shape=(5000,))
