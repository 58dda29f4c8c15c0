"""Who chooses, in a backtest?

`winnow` (the default) and `vessal` are the device's own; so are `margin`, `entropy` and `least_confidence`, with
novelty left out. `random` is a fair coin that the same bucket bounds. `portfolio` tells each device anew, every round,
which of `ARMS` is its own. The rest are baselines from the literature
(published.py), with their own idea of a budget.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.choose import strategy
from edge_agent.choose.acquisition import Scorer
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.contract.bucket import Bucket
from edge_agent.contract.errors import did_you_mean
from server.backtest.published import DELTA, SPLIT_RANDOM, Density, Probabilistic, QuantileFilter, Threshold
from server.errors import ServerConfigError

Floats = NDArray[np.float32]
BLOCK = 32  # rows that the device scores at once
DEPTH = 20.0  # labels in a bucket, the device's default


class Chooser(Protocol):
    """One device's choosing. It sees every sample once, in order."""

    def choose(self, logits: Floats, embedding: Floats) -> list[int]:
        """Rows of logits (N, C) and embedding (N, D) to label."""

    def model_changed(self, known: Floats) -> None:
        """The logits that follow are another model's; known: (M, D), its embedding of all that is labelled by now."""


class OnDevice:
    """The device's selector, block by block."""

    def __init__(
        self,
        share: float,
        rng: np.random.Generator,
        *,
        chosen_by: str,
        acquisition: str,
        novelty: bool,
        audit: bool = True,
    ) -> None:
        """`chosen_by`: the device's strategy. `novelty`: whether the embedding is shown to it. `audit`: the floor."""
        self._scorer = Scorer(acquisition)
        self._novelty = novelty
        self._rng = SplitMix64(int(rng.integers(1 << 63)))
        self._rules = Rules(label_share=share, depth_labels=DEPTH)
        if not audit:
            self._rules = self._rules._replace(floor_share=0.0, random_share=0.0)
        self._chosen_by = chosen_by
        self._selector = strategy.make(chosen_by, self._rules, self._rng)
        self._selector.meet(model="", acquisition=acquisition)
        self.probability: list[float] = []  # of what was chosen last

    def choose(self, logits: Floats, embedding: Floats) -> list[int]:
        """See Chooser."""
        chosen = []
        self.probability = []
        for begin in range(0, len(logits), BLOCK):
            count = min(BLOCK, len(logits) - begin)
            scored = self._scorer.score(_block(logits, begin))
            seen = _block(embedding, begin) if self._novelty else None
            found = self._selector.offer(scored, seen, count=count, sample_bytes=1)
            chosen += [begin + row for row, _ in found]
            self.probability += [selection.probability for _, selection in found]
        return chosen

    def change(self, chosen_by: str, acquisition: str) -> None:
        """Choose otherwise from now on; what the budget holds stays, as on the device."""
        self._scorer = Scorer(acquisition)
        if chosen_by != self._chosen_by:
            self._chosen_by = chosen_by
            self._selector = strategy.make(chosen_by, self._rules, self._rng, saved=self._selector.save())
        self._selector.meet(model="", acquisition=acquisition)

    def model_changed(self, known: Floats) -> None:  # noqa: ARG002 - the seam's
        """See Chooser."""
        self._selector.model_changed()


def _block(rows: Floats, begin: int) -> Floats:
    """BLOCK rows from `begin` on, filled up with zeros: on the device a block always has the same shape."""
    block = np.zeros((BLOCK, rows.shape[1]), np.float32)
    part = rows[begin : begin + BLOCK]
    block[: len(part)] = part
    return block


class Random:
    """Every sample alike."""

    def __init__(self, share: float, rng: np.random.Generator) -> None:
        self._share, self._rng = share, rng
        self._bucket = Bucket(rate=share, depth=DEPTH, tokens=DEPTH / 2.0)

    def choose(self, logits: Floats, embedding: Floats) -> list[int]:  # noqa: ARG002 - the seam's
        """See Chooser."""
        chosen = []
        for row, draw in enumerate(self._rng.random(len(logits)).tolist()):
            self._bucket.earn(1.0)
            if draw < self._share and self._bucket.allows(1.0):
                self._bucket.take(1.0)
                chosen.append(row)
        return chosen

    def model_changed(self, known: Floats) -> None:
        """See Chooser."""


Make = Callable[[float, np.random.Generator], Chooser]
STRATEGIES: dict[str, Make] = {
    "random": Random,
    "winnow": partial(OnDevice, chosen_by="novelty_quantile", acquisition="margin", novelty=True),
    "vessal": partial(OnDevice, chosen_by="vessal", acquisition="margin", novelty=True),
    "margin": partial(OnDevice, chosen_by="novelty_quantile", acquisition="margin", novelty=False),
    "least_confidence": partial(OnDevice, chosen_by="novelty_quantile", acquisition="least_confidence", novelty=False),
    "entropy": partial(OnDevice, chosen_by="novelty_quantile", acquisition="entropy", novelty=False),
    "split": partial(Threshold, at_random=SPLIT_RANDOM),
    "variable": Threshold,
    "random_variable": partial(Threshold, delta=DELTA),
    "fixed": partial(Threshold, fixed=True),
    "biqf": QuantileFilter,
    "density": Density,
    "pals": Probabilistic,
}
PORTFOLIO = "portfolio"  # of arms, see crew.py; not one strategy but a choice among them
ARMS = ("margin", "entropy", "vessal")  # of the portfolio
PUBLISHED = ("split", "variable", "random_variable", "fixed", "biqf", "density", "pals")  # no bucket bounds these


def check(name: str) -> None:
    """ServerConfigError names the nearest where there is no such strategy."""
    known = (*STRATEGIES, PORTFOLIO)
    if name not in known:
        raise ServerConfigError(f"strategy {name!r}: unknown{did_you_mean(name, known)}; known: {', '.join(known)}")


def find(name: str) -> Make:
    """The strategy of that name, of one device; ServerConfigError when there is none."""
    check(name)
    return STRATEGIES[name]
