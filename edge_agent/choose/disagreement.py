"""Where do two models differ, and which of these samples are worth a label?

To tell a candidate from the champion, labels are worth most where the two disagree: where they agree, a label says
nothing about which is better. After Karimi et al. (AISTATS 2021, "Online Active Model Selection for Pre-trained
Classifiers") a sample is taken with a probability proportional to the disagreement, and the probability is recorded:

    u = 1 where the labels differ, else the Jensen-Shannon divergence of the two, in bits (0 .. 1)
    p = share * min(1, label_share / share * u / mean u * pace)        share: of the stream that the candidate sees

so the difference of the two accuracies can be estimated without bias from few labels, with weights 1/p. A bucket of
its own bounds what any window of n samples takes: label_share * n + DEPTH. `pace` is its fill, 1 at half: without it
the bucket ran dry so often that the estimate lost 12 % of the difference; what an empty bucket still loses is counted.

The draw is independent of the selector's. A sample that both take keeps the selector's reason, and carries this p too.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.splitmix import SplitMix64
from edge_agent.contract.bucket import Bucket
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.types import Selection

Floats = NDArray[np.float32]

STRATEGY = "disagreement-1"
DEPTH = 20.0  # labels that may go at once: fewer run dry in a burst of differences, more spend the share on one scene
MEMORY = 200  # samples that the running mean of u goes back: fewer make p jumpy, more follow a change late
MEAN_MIN = 1e-4  # two models that never differed: the first difference is taken for certain, and no zero divides


class Share(msgspec.Struct, frozen=True):
    """How much of the stream: `seen` by the candidate (each costs a run of it), and taken at most for labels."""

    seen: float
    labels: float


class State(msgspec.Struct, kw_only=True):
    """Everything that decides, as saved."""

    version: int  # of the candidate
    tokens: float
    mean: float = 1.0
    generator: bytes = b""
    seen: int = 0
    differed: int = 0  # in their labels
    starved: int = 0  # differed while the bucket was empty, or a day's limit reached: lost to an estimate


class Disagreement:
    """Decides which of the samples that a candidate saw are sent because of it."""

    def __init__(self, version: int, share: Share, rng: SplitMix64, *, saved: bytes = b"") -> None:
        """Of candidate `version`. What was saved under another is not gone on with. ConfigError: cannot be read."""
        self.share = share
        self._rng = rng
        self._bucket = Bucket(rate=share.labels, depth=DEPTH, tokens=DEPTH / 2.0)
        self.state = State(version=version, tokens=self._bucket.tokens)
        if saved:
            self._load(saved)

    def draws(self, count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """For the next `count` samples: the rows that the candidate is to see, and the draws (count,) that decide."""
        both = self._rng.draws(2 * count).reshape(count, 2)  # row by row, so that the blocks do not matter
        return np.flatnonzero(both[:, 0] < self.share.seen), both[:, 1]

    def probability(self, utility: float) -> float:
        """Of taking a sample that is seen, 0 when the bucket is empty."""
        if not self._bucket.allows(1.0):
            return 0.0
        pace = self._bucket.tokens / (DEPTH / 2.0)
        return min(1.0, self.share.labels / self.share.seen * utility / max(MEAN_MIN, self.state.mean) * pace)

    def earn(self) -> None:
        """One more sample went by, seen or not."""
        self._bucket.earn(1.0)

    def offer(self, utility: float, draw: float, *, payable: bool = True) -> Selection | None:
        """Decide on a sample that was seen, its disagreement `utility`; NaN is never taken.

        `payable`: whether the limits a day let one through; else its probability is 0, and no token is taken.
        """
        if utility != utility:
            return None
        state, tokens = self.state, self._bucket.tokens
        chance, mean = self.probability(utility) if payable else 0.0, state.mean
        state.seen += 1
        state.differed += utility == 1.0
        state.starved += utility == 1.0 and chance == 0.0
        state.mean += (utility - mean) / min(state.seen, MEMORY)
        if not draw < chance:
            return None
        self._bucket.take(1.0)
        return Selection(
            reason="disagreement",
            probability=self.share.seen * chance,
            utility=utility,
            novelty=1.0,
            threshold=mean,
            tokens=tokens,
            strategy=STRATEGY,
            shadow_probability=self.share.seen * chance,
        )

    def save(self) -> bytes:
        """The state, for another to go on from."""
        self.state.tokens = self._bucket.tokens
        self.state.generator = self._rng.save()
        return msgspec.msgpack.encode(self.state)

    def _load(self, saved: bytes) -> None:
        try:
            state = msgspec.msgpack.decode(saved, type=State)
            if state.version == self.state.version:
                self._rng.load(state.generator)
                self.state = state
                self._bucket.tokens = min(state.tokens, self._bucket.depth)
        except (msgspec.DecodeError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"saved state of the shadow trial: {error}") from error


def disagreement(champion: Floats, candidate: Floats) -> Floats:
    """Return u of class probabilities (N, C) and (N, C'), rows sum to 1; a class that one does not know has 0 there.

    >>> a = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]], np.float32)
    >>> b = np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]], np.float32)
    >>> disagreement(a, b).round(2).tolist()
    [1.0, 0.09000000357627869, 0.0]
    """
    classes = max(champion.shape[1], candidate.shape[1])
    p, q = (np.pad(one, ((0, 0), (0, classes - one.shape[1]))) for one in (champion, candidate))
    divergence = (_relative(p, (p + q) / 2.0) + _relative(q, (p + q) / 2.0)) / 2.0
    utility: Floats = np.where(p.argmax(axis=1) != q.argmax(axis=1), np.float32(1.0), np.clip(divergence, 0.0, 1.0))
    utility[~(np.isfinite(p).all(axis=1) & np.isfinite(q).all(axis=1))] = np.nan
    return utility


def _relative(p: Floats, m: Floats) -> Floats:
    """Of p to m, in bits, (N,); 0 log 0 is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0.0, p * np.log2(p / m), np.float32(0.0))
    total: Floats = terms.sum(axis=1)
    return total
