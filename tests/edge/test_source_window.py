"""Are the windows the same whatever pieces the steps come in, and does a pause begin a new one?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.errors import ConfigError
from edge_agent.source import Counts, Fit
from edge_agent.source.options import Window
from edge_agent.source.window import Windows, plan


def steps(count: int, channels: int = 2) -> np.ndarray:
    return np.arange(count * channels, dtype=np.float64).reshape(count, channels)


def cut(pieces: list[np.ndarray], *, size: int = 4, hop: int = 0, waits: list[float] | None = None, **told):
    counts = Counts()
    window = Window(size=size, hop=hop, **told)
    windows = Windows(plan(window, Fit((size, 2), "float32")), counts)
    found = [
        one
        for piece, wait in zip(pieces, waits or [0.0] * len(pieces), strict=True)
        for one in windows.add(piece, waited_s=wait)
    ]
    return found, counts


@settings(deadline=None)  # a loaded machine is no mistake
@given(st.integers(1, 6), st.integers(0, 9), st.integers(0, 60), st.lists(st.integers(0, 60), max_size=8))
def test_any_pieces_give_the_same_windows(size: int, hop: int, count: int, cuts: list[int]) -> None:
    whole = steps(count)
    found, _ = cut(np.split(whole, sorted(min(at, count) for at in cuts)), size=size, hop=hop)
    expected = [whole[at : at + size] for at in range(0, count - size + 1, hop or size)]
    assert [one.tolist() for one in found] == [one.tolist() for one in expected]


def test_a_window_is_nobody_elses_memory() -> None:
    piece = steps(8)
    found, _ = cut([piece])
    piece[:] = -1.0
    assert found[0].tolist() == steps(4).tolist()


def test_a_pause_begins_a_new_window_and_is_counted() -> None:
    told = {"rate_per_s": 100.0, "gap_steps": 5.0}  # a pause is more than 50 ms
    pieces, waits = [steps(3), steps(3) + 100.0, steps(2) + 200.0], [9.0, 0.051, 0.05]
    found, counts = cut(pieces, waits=waits, **told)
    assert [one[0, 0] for one in found] == [100.0], "the first three steps are of before the pause"
    assert counts.gaps == 1, "neither the wait for the first step nor one of 50 ms is a pause"


def test_without_a_rate_no_pause_is_seen() -> None:
    found, counts = cut([steps(3), steps(1)], waits=[0.0, 1000.0])
    assert (len(found), counts.gaps) == (1, 0)


@pytest.mark.parametrize(
    ("window", "shape", "expected"),
    [
        (Window(), (128, 6), (128, 6, 128)),
        (Window(), (1, 128, 6), (128, 6, 128)),
        (Window(), (16,), (16, 1, 16)),
        (Window(), (1,), (1, 1, 1)),
        (Window(size=1), (9,), (1, 9, 1)),
        (Window(channels_first=True), (6, 128), (128, 6, 128)),
        (Window(size=4, hop=2), (2, 2, 3), (4, 3, 2)),
    ],
)
def test_how_it_is_cut_follows_from_the_model(window: Window, shape: tuple[int, ...], expected: tuple) -> None:
    assert plan(window, Fit(shape, "float32"))[:3] == expected


def test_channels_first_turns_the_window() -> None:
    window = Window(channels_first=True)
    made = plan(window, Fit((1, 2, 3), "int16")).arrange(steps(3))
    assert made.dtype == np.int16
    assert made.tolist() == [[[0, 2, 4], [1, 3, 5]]]


@pytest.mark.parametrize(("window", "shape"), [(Window(size=5), (128, 6)), (Window(), (4, 5, 6))])
def test_a_model_that_takes_no_such_window_is_refused(window: Window, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"\[source.window\] size.*{shape[0]}, {shape[1]}"):
        plan(window, Fit(shape, "float32"))
