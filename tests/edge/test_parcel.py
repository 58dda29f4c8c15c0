"""Does a parcel unpack to the file and to nothing else, whatever it says of itself?"""

import bz2
import contextlib
import random
import tracemalloc

import hypothesis.strategies as st
import pytest
import zstandard
from hypothesis import given, settings

from edge_agent.contract import parcel as rules
from edge_agent.contract.artifact import OnnxFile, sha256_hex
from edge_agent.contract.errors import IntegrityError
from edge_agent.contract.parcel import MAGIC, STEPS_MAX, unpack
from edge_agent.contract.wire import Parcel

BASE = random.Random(1).randbytes(40_000)
NEW = BASE[:9_000] + b"something else" + BASE[9_000:]


def number(value):
    return (value if value >= 0 else (1 << 63) - value).to_bytes(8, "little")


def patch(steps, differences, extra, *, announces):
    """The bytes of a patch, as the format has it."""
    streams = [bz2.compress(part) for part in (b"".join(number(n) for step in steps for n in step), differences, extra)]
    return MAGIC + number(len(streams[0])) + number(len(streams[1])) + number(announces) + b"".join(streams)


GOOD = patch([(9_000, 14, 0), (31_000, 0, 0)], bytes(40_000), b"something else", announces=len(NEW))


def opened(data, *, packing="bsdiff4", base=BASE, new=NEW):
    parcel = Parcel(file_sha256=sha256_hex(new), packing=packing, sha256=sha256_hex(data), bytes=len(data))
    return unpack(parcel, data, base=base, file=OnnxFile(sha256=sha256_hex(new), bytes=len(new)))


def test_a_patch_and_a_packed_file_unpack():
    assert opened(GOOD) == NEW
    assert opened(zstandard.compress(NEW, 19), packing="zstd", base=b"") == NEW


def test_differences_wrap_around_and_the_base_may_be_read_beyond_its_ends():
    new = bytes([4, 255]) + bytes([7, 7, 2])
    data = patch([(2, 1, -3), (2, 0, 0)], bytes([5, 1, 7, 3]), bytes([7]), announces=5)
    assert opened(data, base=bytes([255, 254]), new=new) == new  # the second step begins before the base


CORRUPT = {
    "empty": b"",
    "short header": GOOD[:20],
    "another magic": b"BSDIFF41" + GOOD[8:],
    "cut off": GOOD[:-30],
    "a negative length": MAGIC + number(-1) + GOOD[16:],
    "a length past the end": MAGIC + number(1 << 40) + GOOD[16:],
    "no bzip2": GOOD[:32] + b"XX" + GOOD[34:],
    "another length": patch([(40_000, 14, 0)], bytes(40_000), b"something else", announces=len(NEW) + 1),
    "10 GB": patch([(10 << 30, 0, 0)], b"", b"", announces=10 << 30),
    "a step past the end": patch([(10 << 30, 0, 0)], bytes(90), b"", announces=len(NEW)),
    "a negative step": patch([(-1, 5, 0)], bytes(90), b"", announces=len(NEW)),
    "too few steps": patch([(9_000, 14, 0)], bytes(9_000), b"something else", announces=len(NEW)),
    "too few differences": patch([(40_000, 14, 0)], bytes(30_000), b"something else", announces=len(NEW)),
    "too few new bytes": patch([(40_000, 14, 0)], bytes(40_000), b"some", announces=len(NEW)),
    "a jump out of the world": patch([(9_000, 14, (1 << 63) - 1), (31_000, 0, 0)], bytes(40_000), b"something else",
                                     announces=len(NEW)),
}  # fmt: skip


@pytest.mark.parametrize("what", CORRUPT)
def test_a_corrupt_patch_is_an_integrity_error(what):
    with pytest.raises(IntegrityError, match="bsdiff4 parcel"):
        opened(CORRUPT[what])


def test_a_patch_against_another_base_is_an_integrity_error():
    for base in (b"", BASE[:-1], bytes(len(BASE))):
        with pytest.raises(IntegrityError, match="sha256"):
            opened(GOOD, base=base)


def test_steps_that_do_nothing_come_to_an_end(monkeypatch):
    monkeypatch.setattr(rules, "STEPS_MAX", 1000)
    assert STEPS_MAX > 1000
    with pytest.raises(IntegrityError, match="step 1001"):
        opened(patch([(0, 0, 1)] * 5000, b"", b"", announces=len(NEW)))


@pytest.mark.parametrize("packing", ["zstd", "bsdiff4"])
def test_a_bomb_needs_no_more_memory_than_the_file(packing):
    """64 MB of zeros in a few hundred bytes."""
    zeros = bytes(1 << 26)
    patched = patch([(len(NEW), 0, 0)], zeros, b"", announces=len(NEW))
    data = zstandard.compress(zeros) if packing == "zstd" else patched
    del zeros
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError):
            opened(data, packing=packing)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_a_packed_file_that_wants_a_long_window_is_refused():
    """Its memory would be the unpacker's, not the result's: 128 MB of it here."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(IntegrityError, match="zstd parcel .* memory"):
        opened(stream.compress(NEW) + stream.flush(), packing="zstd")


@pytest.mark.parametrize("data", [b"", b"no zstd", zstandard.compress(NEW)[:-5], zstandard.compress(NEW + b"?")])
def test_a_corrupt_packed_file_is_an_integrity_error(data):
    with pytest.raises(IntegrityError, match="zstd parcel"):
        opened(data, packing="zstd")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_one_wrong_byte_gives_the_file_or_an_integrity_error(at, change):
    damaged = GOOD[:at] + bytes([GOOD[at] ^ change]) + GOOD[at + 1 :]
    with contextlib.suppress(IntegrityError):
        assert opened(damaged) == NEW


@st.composite
def relatives(draw):
    """A file, and one made of stretches of it, changed bytes and new ones."""
    old = draw(st.binary(max_size=3000))
    new = bytearray()
    for _ in range(draw(st.integers(0, 6))):
        start, length = draw(st.integers(0, 3000)), draw(st.integers(0, 1500))
        new += old[start : start + length] + draw(st.binary(max_size=40))
    for at in draw(st.lists(st.integers(0, max(len(new) - 1, 0)), max_size=30)):
        if new:
            new[at] = (new[at] + 1) % 256
    return old, bytes(new) or b"\0"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(relatives())
def test_what_bsdiff4_makes_of_two_files_is_undone(pair):
    bsdiff4 = pytest.importorskip("bsdiff4")  # the agent's own environment has none
    old, new = pair
    assert opened(bsdiff4.diff(old, new), base=old, new=new) == new == bsdiff4.patch(old, bsdiff4.diff(old, new))
