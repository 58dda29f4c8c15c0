"""How much evidence is there that scores have changed?

A conformal Shiryaev-Roberts e-detector for several scores at once. Every new score is ranked among all earlier ones;
while they are exchangeable its p-value is uniform, whatever their distribution (Vovk et al., conformal test
martingales). A bet f is a density on (0, 1): R <- (R + 1) f(p) has the expectation n after n scores, so the mean of all
R passes c on average no sooner than after c of them (Shin, Ramdas and Rinaldo, "E-detectors", 2022).

Ranks come from counts in fixed bins; ties are broken at random, which keeps them exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 128
REACH = (-6.0, 12.0)  # of the bins, in scales about the centre; what is beyond ties with its end
SLOPE = 0.8  # of the linear bets: more high scores, more low ones
BOTH_ENDS = 1.5  # slope of the bet on more of both
BETS = 5
STEEPEST = 1e-9  # a p-value counts as no less


class Leader(NamedTuple):
    """The chart with most evidence. begun: the score after which, by its best bet, the change set in."""

    chart: int
    evidence: float
    begun: int


class Charts:
    """`closed` scores were seen of each of C charts."""

    def __init__(self, centre: Floats, scale: Floats, *, seed: int) -> None:
        """Where scores usually lie, (C,) each; it decides how finely they are ranked, not whether that is right.

        `seed` decides ties.
        """
        self._seed = seed
        charts = len(centre)
        self.closed = 0
        self._places = np.arange(charts)
        self._centre, self._scale = centre.copy(), scale.copy()
        self._counts = np.zeros((charts, BINS))
        self._evidence = np.zeros((charts, BETS))  # R
        self._gain = np.ones((charts, BETS))  # product of the bets, never below 1 (Page 1954)
        self._begun = np.zeros((charts, BETS))  # score at which it was last 1

    def steps(self, scores: Floats, *, limit: float) -> int:
        """Take in scores (N, C) of each chart, in order, until `mean` reaches `limit`; how many were taken.

        Charts that reached it are at their end: of the scores that were not taken, ranks know already. Only the
        recursion goes score by score: so a score costs a fifth of what it would cost alone.
        """
        bets = _bets(self._rank(scores))
        evidence, gain, begun = self._evidence, self._gain, self._begun
        enough = limit * evidence.size
        for taken, densities in enumerate(bets, start=1):
            evidence += 1.0
            evidence *= densities
            gain *= densities
            self.closed += 1
            np.copyto(begun, self.closed, where=gain <= 1.0)
            np.maximum(gain, 1.0, out=gain)
            if np.add.reduce(evidence, axis=None) >= enough:
                return taken
        return len(bets)

    def _rank(self, scores: Floats) -> Floats:
        """(N, C) p-values: the share of scores before it that are larger, ties broken at random."""
        low, high = REACH
        bins = ((scores - self._centre) / self._scale - low) * (BINS / (high - low))
        place = np.clip(bins, 0.0, BINS - 1.0).astype(np.intp)
        ties = self._counts[self._places, place]
        larger = np.cumsum(self._counts[:, ::-1], axis=1)[self._places, BINS - 1 - place] - ties
        if len(scores) > 1:  # those before it in `scores` count as well
            before = np.tri(len(scores), k=-1, dtype=bool)[:, :, None]
            ties += ((place[:, None] == place) & before).sum(axis=1)
            larger += ((place[:, None] < place) & before).sum(axis=1)
        seen = self.closed + np.arange(len(scores))[:, None]
        draws = _draw((self._seed << 40) + seen * scores.shape[1] + self._places)
        ranks: Floats = (larger + draws * (ties + 1.0)) / (seen + 1.0)
        np.add.at(self._counts, (self._places, place), 1.0)
        return ranks

    @property
    def mean(self) -> float:
        """Evidence over all charts and bets: what is held against the threshold."""
        return float(self._evidence.mean())

    def leader(self) -> Leader:
        """Where the evidence comes from."""
        chart, bet = divmod(int(self._evidence.argmax()), BETS)
        return Leader(chart, float(self._evidence[chart].mean()), int(self._begun[chart, bet]))

    def numbers(self) -> Floats:
        """All of it, to be saved."""
        parts = (self._centre, self._scale, self._counts, self._evidence, self._gain, self._begun)
        return np.concatenate([[self.closed], *(part.ravel() for part in parts)])

    def restore(self, numbers: Floats) -> None:
        """Continue from saved numbers; ValueError when they are of other charts."""
        parts = (self._centre, self._scale, self._counts, self._evidence, self._gain, self._begun)
        if len(numbers) != 1 + sum(part.size for part in parts):
            raise ValueError(f"{len(numbers)} numbers, expected {1 + sum(part.size for part in parts)}")
        self.closed, at = int(numbers[0]), 1
        for part in parts:
            part[:] = numbers[at : at + part.size].reshape(part.shape)
            at += part.size


def _bets(p: Floats) -> Floats:
    """(N, C, BETS) densities at p (N, C), each of mean 1 over (0, 1): on high scores (small p), low, both, extremes."""
    p = np.clip(p, STEEPEST, 1.0 - STEEPEST)
    tilt, ends = SLOPE * (0.5 - p), np.abs(2.0 * p - 1.0)
    bets = np.empty((*p.shape, BETS))
    bets[..., 0] = 1.0 + tilt
    bets[..., 1] = 1.0 - tilt
    bets[..., 2] = 1.0 + BOTH_ENDS * (ends - 0.5)
    bets[..., 3] = 0.5 / np.sqrt(p)
    bets[..., 4] = 0.5 / np.sqrt(1.0 - ends)
    return bets


def _draw(numbers: NDArray[np.int64]) -> Floats:
    """Uniform on [0, 1), the same for the same number: splitmix64 (Steele et al., OOPSLA 2014)."""
    z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)  # modulo 2^64
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    draws: Floats = ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) / (1 << 53)
    return draws
