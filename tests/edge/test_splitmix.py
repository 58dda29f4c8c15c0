"""Are draws the published generator's, whatever blocks they come in, and after a restart?"""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.choose.splitmix import SplitMix64, draw_of

PUBLISHED = (6457827717110365317, 3203168211198807973, 9817491932198370423)  # from state 1234567, of splitmix64.c


def from_state(state: int) -> SplitMix64:
    made = SplitMix64(0)
    made.load(b"%d" % state)
    return made


def test_it_is_splitmix64() -> None:
    assert from_state(1234567).draws(3).tolist() == [(number >> 11) / 2**53 for number in PUBLISHED]


@given(st.lists(st.integers(0, 300), max_size=8), st.integers(0, 2**64 - 1))
def test_draws_do_not_depend_on_the_blocks(sizes: list[int], state: int) -> None:
    whole, parts = from_state(state), from_state(state)
    assert [draw for size in sizes for draw in parts.draws(size)] == whole.draws(sum(sizes)).tolist()
    assert parts.draw() == from_state(whole.state).draw()


def test_a_saved_one_goes_on() -> None:
    one, two = SplitMix64(3), SplitMix64(4)
    one.draws(1000)
    two.load(one.save())
    assert two.draws(10).tolist() == one.draws(10).tolist()


def test_seeds_name_generators_of_their_own() -> None:
    seeds: list[tuple[int, ...]] = [(0,), (1,), (-1,), (0, 0), (0, 1), (1, 0), (1, 64), (64, 1)]
    assert len({SplitMix64(*seed).draw() for seed in seeds}) == len(seeds)
    assert SplitMix64(1, 64).state == SplitMix64(1, 64).state
    assert SplitMix64().state != SplitMix64().state  # of the system's randomness


def test_draws_of_close_seeds_are_even_and_unrelated() -> None:
    table = np.array([SplitMix64(seed).draws(2000) for seed in range(50)])
    assert table.min() >= 0.0
    assert table.max() < 1.0
    counts = np.bincount((table.ravel() * 20).astype(int), minlength=20)
    assert ((counts - 5000.0) ** 2 / 5000.0).sum() < 43.8  # chi-squared, 19 degrees of freedom: one in 1000 is beyond
    assert np.abs(np.corrcoef(table) - np.eye(50)).max() < 0.1  # 4.5 sd
    assert draw_of(np.arange(3)).tolist() == from_state(0).draws(3).tolist()


def test_what_pcg64_left_is_a_seed() -> None:
    rng = np.random.default_rng(5)
    left = rng.bit_generator.state
    one, two = SplitMix64(1), SplitMix64(2)
    for made in (one, two):
        made.load(json.dumps(left).encode())
    assert one.draws(5).tolist() == two.draws(5).tolist()
    rng.random()
    two.load(json.dumps(rng.bit_generator.state).encode())
    assert one.draws(5).tolist() != two.draws(5).tolist()


@pytest.mark.parametrize("saved", [b"", b"\xc1", b'"x"', b"{}", b"[1]", b"null"])
def test_what_cannot_be_read_is_refused(saved: bytes) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        SplitMix64(0).load(saved)
