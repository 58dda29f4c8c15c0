"""What is replayed, and in which order?

Samples for the first model, the stream, and the test set never overlap. Data without an order come in a new order, and
with a new split, for every seed; data with an order keep it, and only selection and training differ from seed to seed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.data import Labelled, finite_rows
from server.errors import ServerConfigError

TEST_SHARE = 0.2
FEWEST_TESTS = 50
TEST_MOST = 5000  # more makes the figures no surer than the seeds are
STRETCH, STREAM_OF_IT, TEST_END = 25, 19, 24  # of ordered data: rows 0..18 stream, 20..23 test, 19 and 24 dropped


class Stage(NamedTuple):
    """The world from that row of the stream on: its test set."""

    row: int
    test: Labelled


class Material(NamedTuple):
    """What one seed sees. base: labelled from the start; stream: in its order; test: judges and never teaches.

    Where the world changes on the way, `test` is as it is in the end, and `stages` tell what it was before.
    """

    base: Labelled
    stream: Labelled
    test: Labelled
    stages: tuple[Stage, ...] = ()

    def test_at(self, row: int) -> Labelled:
        """The test set of the world in which that row of the stream was seen."""
        return next((stage.test for stage in reversed(self.stages) if stage.row <= row), self.test)


def split(data: Labelled, *, base: int, samples: int, rng: np.random.Generator) -> Material:
    """Split data into the three.

    Args:
        data: everything there is; samples that are not finite are left out.
        base: how many labelled samples the first model is taught with.
        samples: the stream's length at most; 0: all there is.
        rng: draws the order of data that have none.

    Raises:
        ServerConfigError: not enough samples.
    """
    usable = np.flatnonzero(finite_rows(data.x))
    stream, test = _shuffled(usable, rng) if data.t is None else _ordered(usable[np.argsort(data.t[usable])], rng)
    material = Material(
        data.take(stream[:base]),
        data.take(stream[base : base + samples] if samples else stream[base:]),
        data.take(test),
    )
    if len(material.stream.y) < 2 * base or len(test) < FEWEST_TESTS:
        raise ServerConfigError(
            f"{len(usable)} samples leave {len(material.stream.y)} for the stream and {len(test)} for the test; "
            f"expected at least {2 * base} (twice --base) and {FEWEST_TESTS}: give more data, or a smaller --base"
        )
    if len(found := np.unique(material.base.y)) < 2:
        raise ServerConfigError(
            f"the first {base} samples are all of class {data.names[found[0]]}: the first model is taught with them, "
            "and needs two classes: give a larger --base, or data that hold more than one"
        )
    return material


def _shuffled(rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows = rng.permutation(rows)
    held = min(TEST_MOST, int(TEST_SHARE * len(rows)))
    return rows[held:], rows[:held]


def _ordered(rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of every 25 in a row the last 4 are for the test, and one on each side dropped: neighbours are much alike."""
    place = np.arange(len(rows)) % STRETCH
    test = rows[(place > STREAM_OF_IT) & (place < TEST_END)]
    return rows[place < STREAM_OF_IT], rng.permutation(test)[:TEST_MOST]
