"""Blocks: what is asked for and when, and what survives a power cut."""

import hashlib
import random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from edge_agent.contract.errors import IntegrityError
from edge_agent.contract.wire import BLOCK_BYTES
from edge_agent.update.fetch import FLUSH_BLOCKS, WINDOW, Download, Requests


def content(blocks, seed=0):
    """`blocks` blocks, the last one short; and its hash."""
    data = random.Random(seed).randbytes((blocks - 1) * BLOCK_BYTES + 100)
    return data, hashlib.sha256(data).hexdigest()


def block(data, index):
    return data[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]


# --- requests ---


def test_the_window_is_filled_then_topped_up_by_halves():
    requests = Requests(window=8)
    missing = tuple(range(20))
    assert requests.due(missing, 0.0) == tuple(range(8))
    requests.asked(range(8), 0.0)
    for index in range(3):
        requests.arrived(index, 0.1)
        assert requests.due(missing[index + 1 :], 0.1) == ()
    requests.arrived(3, 0.1)
    assert requests.due(missing[4:], 0.1) == (8, 9, 10, 11)


def test_silence_doubles_the_wait_and_an_arrival_resets_it():
    requests = Requests(window=2, first_wait_s=5.0, longest_wait_s=15.0)
    asked_at_s = []
    now_s = 0.0
    while now_s < 60.0:
        if blocks := requests.due((0, 1, 2), now_s):
            assert blocks == (0, 1)
            requests.asked(blocks, now_s)
            asked_at_s.append(now_s)
        now_s += 1.0
    assert asked_at_s == [0.0, 5.0, 15.0, 30.0, 45.0]
    requests.arrived(0, 60.0)
    requests.asked(requests.due((1, 2), 60.0), 60.0)
    assert requests.due((1, 2), 64.0) == ()
    assert requests.due((1, 2), 65.0) == (1, 2)


def test_a_slow_link_is_not_asked_twice():
    requests = Requests(window=4, first_wait_s=5.0)
    requests.asked((0, 1, 2, 3), 0.0)
    requests.arrived(0, 4.0)
    requests.arrived(1, 8.0)
    assert requests.due((2, 3), 12.0) == ()


def test_a_request_that_could_not_be_sent_is_due_at_once():
    requests = Requests()
    assert requests.due((0,), 0.0) == requests.due((0,), 0.1) == (0,)


def test_the_third_error_answer_is_believed():
    requests = Requests(first_wait_s=5.0, max_errors=3)
    now_s = 0.0
    for wait_s in (5.0, 10.0):
        requests.asked(requests.due((0, 1), now_s), now_s)
        assert not requests.refused(now_s)
        assert not requests.refused(now_s)  # the same request, answered block by block
        assert requests.due((0, 1), now_s + wait_s - 0.1) == ()
        now_s += wait_s
    requests.asked(requests.due((0, 1), now_s), now_s)
    assert requests.refused(now_s)


def test_an_arrival_forgives_the_errors():
    requests = Requests(first_wait_s=1.0, max_errors=2)
    requests.asked((0,), 0.0)
    assert not requests.refused(0.0)
    requests.asked((0, 1), 2.0)
    requests.arrived(0, 2.0)
    assert not requests.refused(2.0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(count=st.integers(1, 60), seed=st.integers(0, 2**32), loss=st.floats(0.0, 0.7))
def test_every_block_comes_in_the_end_and_the_window_holds(count, seed, loss):
    requests, rng = Requests(), random.Random(seed)
    missing = set(range(count))
    coming = []
    for now_s in range(100_000):
        while coming and rng.random() < 0.8:
            index = coming.pop(rng.randrange(len(coming)))
            missing.discard(index)
            requests.arrived(index, now_s)
        blocks = requests.due(sorted(missing), now_s)
        assert len(set(blocks)) == len(blocks) <= WINDOW
        if blocks:
            requests.asked(blocks, now_s)
            coming += [index for index in blocks if rng.random() >= loss]
        if not missing:
            return
    pytest.fail(f"{len(missing)} blocks never came")


# --- download ---


def test_blocks_in_any_order_make_the_file(tmp_path):
    data, sha256 = content(5)
    download = Download(tmp_path / "in", sha256, len(data))
    assert download.missing(3) == (0, 1, 2)
    for index in (4, 0, 2, 3):
        assert download.accept(index, memoryview(block(data, index)))
    assert download.missing(9) == (1,)
    assert download.share == 0.8
    assert not download.complete
    assert download.accept(1, block(data, 1))
    assert download.complete
    assert download.finish() == data


def test_what_is_no_block_of_this_file_is_not_taken(tmp_path):
    data, sha256 = content(3)
    download = Download(tmp_path, sha256, len(data))
    assert not download.accept(-1, block(data, 0))
    assert not download.accept(3, block(data, 0))
    assert not download.accept(0, block(data, 0)[:-1])
    assert not download.accept(2, block(data, 0))  # the last one is shorter
    assert not download.accept(1, b"")
    assert download.accept(0, block(data, 0))
    assert not download.accept(0, block(data, 0))
    assert download.missing(9) == (1, 2)


def test_a_power_cut_loses_at_most_what_was_not_flushed(tmp_path):
    data, sha256 = content(40)
    download = Download(tmp_path, sha256, len(data))
    for index in range(FLUSH_BLOCKS + 3):
        download.accept(index, block(data, index))
    resumed = Download(tmp_path, sha256, len(data))
    assert resumed.missing(1) == (FLUSH_BLOCKS,)
    download.flush()
    resumed = Download(tmp_path, sha256, len(data))
    assert resumed.missing(1) == (FLUSH_BLOCKS + 3,)
    for index in resumed.missing(40):
        resumed.accept(index, block(data, index))
    assert Download(tmp_path, sha256, len(data)).finish() == data


@pytest.mark.parametrize("damage", ["no part", "short part", "short record", "rubbish record"])
def test_a_damaged_partial_starts_anew(tmp_path, damage):
    data, sha256 = content(3)
    download = Download(tmp_path, sha256, len(data))
    download.accept(0, block(data, 0))
    download.flush()
    part, record = tmp_path / f"{sha256}.part", tmp_path / f"{sha256}.blocks"
    match damage:
        case "no part":
            part.unlink()
        case "short part":
            part.write_bytes(b"short")
        case "short record":
            record.write_bytes(b"\1")
        case "rubbish record":
            record.write_bytes(b"abc")
    assert Download(tmp_path, sha256, len(data)).missing(9) == (0, 1, 2)


def test_a_spoilt_file_is_fetched_anew(tmp_path):
    data, sha256 = content(2)
    download = Download(tmp_path, sha256, len(data))
    download.accept(0, bytes(BLOCK_BYTES))
    download.accept(1, block(data, 1))
    with pytest.raises(IntegrityError, match="sha256"):
        download.finish()
    assert download.missing(9) == Download(tmp_path, sha256, len(data)).missing(9) == (0, 1)
    for index in (0, 1):
        download.accept(index, block(data, index))
    assert download.finish() == data


@pytest.mark.parametrize(("sha256", "size"), [("../../etc/passwd", 9), ("A" * 64, 9), ("a" * 64, 0), ("a" * 64, -1)])
def test_a_hash_that_is_none_never_becomes_a_path(tmp_path, sha256, size):
    with pytest.raises(IntegrityError):
        Download(tmp_path, sha256, size)
    assert list(tmp_path.iterdir()) == []


def test_discard_leaves_nothing(tmp_path):
    data, sha256 = content(2)
    download = Download(tmp_path, sha256, len(data))
    download.accept(0, block(data, 0))
    download.flush()
    download.discard()
    assert list(tmp_path.iterdir()) == []
