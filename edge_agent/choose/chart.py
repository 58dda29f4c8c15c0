"""How much evidence is there that scores have changed?

A conformal Shiryaev-Roberts e-detector for several scores at once. Every new score is ranked among all earlier ones;
while they are exchangeable its p-value is uniform, whatever their distribution (Vovk et al., conformal test
martingales). A bet f is a density on (0, 1): R <- (R + 1) f(p) has the expectation n after n scores, so the mean of all
R passes c on average no sooner than after c of them (Shin, Ramdas and Rinaldo, "E-detectors", 2022).

Ranks come from counts in fixed bins; ties are broken at random, which keeps them exact.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.splitmix import draw_of

Floats = NDArray[np.float64]

BINS = 64
REACH = (-5.0, 11.0)  # of the bins, in scales about the centre; what is beyond ties with its end
SLOPE = 1.5  # of the linear bet; steeper is quicker on shifts of about one spread, gentler on smaller ones
BETS = 3
AT_ONCE = 64  # scores, at most
EVIDENCE, GAIN = 0, 1
STEEPEST = 1e-9  # a p-value counts as no less
GOLDEN = 0.6180339887498949


class Leader(msgspec.Struct, frozen=True):
    """The chart with most evidence. begun: the score after which, by its best bet, the change set in."""

    chart: int
    begun: int


class Charts:
    """`closed` scores were seen of each of C charts."""

    def __init__(self, centre: Floats, scale: Floats, *, two_sided: int, seed: int) -> None:
        """Where scores usually lie, (C,) each; it decides how finely they are ranked, not whether that is right.

        The first `two_sided` charts look for lower and for more extreme scores too, the others for higher ones alone.
        `seed` decides ties.
        """
        charts = len(centre)
        self._seed, self._two = seed, two_sided
        self.closed = 0
        self._places = np.arange(charts)
        self._earlier = np.tri(AT_ONCE, k=-1, dtype=np.bool_)
        self._spacing = np.arange(charts) * GOLDEN
        self._centre, self._fineness = centre.copy(), BINS / (REACH[1] - REACH[0]) / scale
        self._reached = np.zeros((charts, BINS + 1))  # how many scores so far lie in this bin or beyond
        rows = charts + 2 * two_sided  # higher, lower, more extreme
        self._state = np.zeros((2, rows, BETS))  # R; and the gain since the best start (Page 1954)
        self._begun = np.zeros((rows, BETS))  # score at which that was

    def learn(self, scores: Floats) -> None:
        """Take in scores (n, C) to rank others among, without betting on them."""
        self._rank(scores)

    def step(self, scores: Floats, enough: float) -> bool:
        """Take in scores (n, C), of each chart one after the other, until the mean evidence is enough: whether it is.

        What comes after that is not taken in.
        """
        before = self.closed
        p = self._rank(scores)
        two = p[:, : self._two]
        bets = _bets(np.concatenate((p, 1.0 - two, 1.0 - np.abs(2.0 * two - 1.0)), axis=1), before + 1)
        course = np.empty((len(bets) + 1, *self._state.shape))
        course[0] = self._state
        for then, bet, now in zip(course, bets, course[1:]):  # noqa: B905 - one more state than bets
            np.add(then[EVIDENCE], 1.0, out=now[EVIDENCE])
            np.maximum(then[GAIN], 1.0, out=now[GAIN])
            np.multiply(now, bet, out=now)
        means = course[1:, EVIDENCE].reshape(len(bets), -1).sum(axis=1) / bets[0].size
        over = (means >= enough).nonzero()[0]
        taken = int(over[0]) + 1 if len(over) else len(bets)
        anew = (course[:taken, GAIN] <= 1.0) * np.arange(before, before + taken, dtype=np.float64)[:, None, None]
        np.maximum(self._begun, anew.max(axis=0), out=self._begun)
        self._state[:], self.closed = course[taken], before + taken
        return len(over) > 0

    def _rank(self, scores: Floats) -> Floats:
        """(n, C) p-values: the share of earlier scores that are larger, ties broken at random."""
        low, high = REACH
        bins = (scores - self._centre) * self._fineness - (low * BINS / (high - low) - 0.5)
        place = np.minimum(np.maximum(bins, 0.0), BINS - 1.0).astype(np.int16)
        larger, reached = self._reached[self._places, np.stack((place + 1, place))]
        if len(place) > 1:  # those just before count too
            both = np.empty((2, len(place), *place.shape), np.bool_)
            np.greater(place, place[:, None], out=both[0])
            np.greater_equal(place, place[:, None], out=both[1])
            both &= self._earlier[: len(place), : len(place), None]
            before = both.sum(axis=2)
            larger, reached = larger + before[0], reached + before[1]
        seen = np.arange(self.closed, self.closed + len(place))[:, None]
        draws = (draw_of((self._seed << 40) + seen) + self._spacing) % 1.0
        ranks: Floats = (larger + draws * (reached - larger + 1.0)) / (seen + 1.0)
        counted = np.bincount((place + self._places * BINS).ravel(), minlength=self._centre.size * BINS)
        self._reached[:, :-1] += counted.reshape(-1, BINS)[:, ::-1].cumsum(axis=1)[:, ::-1]
        self.closed += len(place)
        return ranks

    @property
    def mean(self) -> float:
        """Evidence over all charts and bets: what is held against the threshold."""
        return float(self._state[EVIDENCE].mean())

    def leader(self) -> Leader:
        """Where the evidence comes from."""
        row, bet = divmod(int(self._state[EVIDENCE].argmax()), BETS)
        charts = len(self._places)
        return Leader(row if row < charts else (row - charts) % self._two, int(self._begun[row, bet]))

    def numbers(self) -> Floats:
        """All of it, to be saved."""
        return np.concatenate([[self.closed], *(part.ravel() for part in self._parts())])

    def restore(self, numbers: Floats) -> None:
        """Continue from saved numbers; ValueError when they are of other charts."""
        parts = self._parts()
        if len(numbers) != 1 + sum(part.size for part in parts):
            raise ValueError(f"{len(numbers)} numbers, expected {1 + sum(part.size for part in parts)}")
        self.closed, at = int(numbers[0]), 1
        for part in parts:
            part[:] = numbers[at : at + part.size].reshape(part.shape)
            at += part.size

    def _parts(self) -> tuple[Floats, ...]:
        return (self._centre, self._fineness, self._reached, self._state, self._begun)


def _bets(p: Floats, count: int) -> Floats:
    """(n, rows, BETS) densities at p (n, rows), each of mean 1 over (0, 1), on small p: many, few, records.

    The last is 1/p down to the least that ranks among `count` can tell apart, and one more in every row.

    >>> middles = (np.arange(100_000) + 0.5) / 100_000
    >>> _bets(middles[None], 100)[0].mean(axis=0).round(2).tolist()
    [1.0, 1.0, 1.0]
    """
    p = np.clip(p, STEEPEST, 1.0)
    counts = range(count, count + len(p))
    least = np.array([1.0 / n for n in counts])[:, None]
    mass = np.array([1.0 + math.log(n) for n in counts])[:, None]
    bets = np.empty((*p.shape, BETS))
    bets[..., 0] = (1.0 + 0.5 * SLOPE) - SLOPE * p
    bets[..., 1] = 0.5 / np.sqrt(p)
    bets[..., 2] = 1.0 / (np.maximum(p, least) * mass)
    return bets
