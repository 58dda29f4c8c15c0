"""What did others publish for choosing on a stream?

Baselines, as their papers and scikit-activeml 1.0.1 have them; the same numbers drawn, they decide as that library
does, sample by sample (tests/server/test_published.py). None knows a hard bound: each has its own idea of a budget.

    fixed, variable,           confidence below a threshold that stands still, follows the answers, or is shaken;
    random_variable, split     spent = a running mean (Zliobaite, Bifet, Pfahringer, Holmes, IEEE TNNLS 25(1), 2014)
    biqf                       margin above a quantile of the last 100 (Kottke, Krempl, Spiliopoulou, IDA 2015)
    density                    margin where the sample is the nearest of earlier ones (Ienco, Pfahringer, Zliobaite,
                               ECML 2014)
    pals                       expected gain of a label, by the density of labels around (Kottke et al., IDA 2015)
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

THETA_STEP = 0.01  # of the variable threshold; this and all below as published, or as the library has it
SPENT_WINDOW = 100  # samples over which a running mean counts what was spent
DELTA = 1.0  # sd of the factor that shakes a threshold
SPLIT_RANDOM = 0.2  # share of the stream that `split` labels at random, the paper's; the library's default is 0.1
QUANTILE_WINDOW = 100
QUANTILE_TOLERANCE = 50.0  # labels too few or too many that move the quantile by the whole range of utilities
DENSITY_WINDOW = 100
PRIOR = 1e-3  # labels of every class that PALS supposes to have seen everywhere
SQUARED_DELTA = 2e-12  # of the mean criterion for a kernel's width (Chaudhuri et al., IEEE TKDE 2017)


def probabilities(logits: Floats) -> Doubles:
    """Softmax of (N, C), in double precision: what a library's classifier would say."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exp: Doubles = np.exp(shifted)
    exp /= exp.sum(axis=1, keepdims=True)
    return exp


def margins(probs: Doubles) -> list[float]:
    """1 - (p1 - p2) of (N, C)."""
    top = np.partition(probs, -2, axis=1)
    return (1.0 - (top[:, -1] - top[:, -2])).tolist()  # type: ignore[no-any-return]


class Threshold:
    """Asks where the confidence is below a threshold that falls with every label and rises without."""

    def __init__(
        self, share: float, rng: np.random.Generator, *, at_random: float = 0.0, delta: float = 0.0, fixed: bool = False
    ) -> None:
        """`at_random`: share labelled by chance instead. `delta`: shakes the threshold. `fixed`: it stands still."""
        self._share, self._rng, self._at_random, self._delta, self._fixed = share, rng, at_random, delta, fixed
        self._theta, self._spent = 1.0, 0.0

    def choose(self, logits: Floats, embedding: Floats) -> list[int]:  # noqa: ARG002 - the seam's
        """See Chooser."""
        if self._fixed:
            self._theta = 1.0 / logits.shape[1] + self._share * (1.0 - 1.0 / logits.shape[1])
        confidence = probabilities(logits).max(axis=1).tolist()
        shaken = self._rng.normal(1.0, self._delta, len(logits)).tolist() if self._delta else [1.0] * len(logits)
        return [row for row, sure in enumerate(confidence) if self._asks(sure, shaken[row])]

    def _asks(self, confidence: float, shaken: float) -> bool:
        asks = False
        if self._spent / SPENT_WINDOW < self._share:
            if self._at_random and self._rng.random() < self._at_random:
                asks = self._rng.random() <= self._share
            elif self._fixed:
                asks = confidence <= self._theta
            else:
                asks = confidence < self._theta * shaken
                self._theta *= 1.0 - THETA_STEP if asks else 1.0 + THETA_STEP
        self._spent = self._spent * (SPENT_WINDOW - 1) / SPENT_WINDOW + asks
        return asks

    def model_changed(self, known: Floats) -> None:
        """See Chooser."""


class Quantile:
    """The balanced incremental quantile filter: is a utility among the best `share` of the last ones?

    The quantile is lowered while less was spent than the share allows, and raised while more.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._seen, self._spent = 0, 0
        self._last: deque[float] = deque(maxlen=QUANTILE_WINDOW)

    def asks(self, utility: float) -> bool:
        """Take one utility into account; NaN is counted as a sample, and never asked for."""
        self._seen += 1
        if math.isnan(utility):
            return False
        self._last.append(utility)
        threshold = float(np.quantile(self._last, 1.0 - self._share))
        left = self._share * self._seen - self._spent
        asked = utility >= threshold - (max(self._last) - min(self._last)) * left / QUANTILE_TOLERANCE
        self._spent += asked
        return asked


class QuantileFilter:
    """The filter on the margin."""

    def __init__(self, share: float, rng: np.random.Generator) -> None:  # noqa: ARG002 - it draws nothing
        self._filter = Quantile(share)

    def choose(self, logits: Floats, embedding: Floats) -> list[int]:  # noqa: ARG002 - the seam's
        """See Chooser."""
        return [row for row, utility in enumerate(margins(probabilities(logits))) if self._filter.asks(utility)]

    def model_changed(self, known: Floats) -> None:
        """See Chooser."""


class Density:
    """Asks only where the sample becomes the nearest neighbour of one of the last 100: not for an outlier.

    Then a shaken threshold on the margin decides. Distances are between embeddings, by the model of the moment.
    """

    def __init__(self, share: float, rng: np.random.Generator) -> None:
        self._share, self._rng = share, rng
        self._theta, self._seen, self._spent = 1.0, 0, 0
        self._window: deque[Doubles] = deque(maxlen=DENSITY_WINDOW)
        self._nearest: deque[float] = deque(maxlen=DENSITY_WINDOW)

    def choose(self, logits: Floats, embedding: Floats) -> list[int]:
        """See Chooser."""
        utilities = margins(probabilities(logits))
        shaken = self._rng.normal(1.0, DELTA, len(logits)).tolist()
        seen = embedding.astype(np.float64)
        return [row for row, utility in enumerate(utilities) if self._asks(1.0 - utility, shaken[row], seen[row])]

    def _asks(self, confidence: float, shaken: float, seen: Doubles) -> bool:
        self._seen += 1
        dense, asks = self._is_nearest(seen), False
        if self._share > self._spent / self._seen:
            asks = dense and confidence < self._theta * shaken
            self._theta *= 1.0 - THETA_STEP if asks else 1.0 + THETA_STEP
        self._spent += asks
        return asks

    def _is_nearest(self, seen: Doubles) -> bool:
        """Whether (D,) is nearer to one of the window than all that came after that one; it joins the window."""
        nearest = math.inf
        dense = False
        if self._window:
            distances = np.linalg.norm(np.array(self._window) - seen, axis=1)
            before = np.array(self._nearest)
            dense = bool((distances < before).any())
            self._nearest = deque(np.minimum(distances, before).tolist(), maxlen=DENSITY_WINDOW)
            nearest = float(distances.min())
        self._nearest.append(nearest)
        self._window.append(seen)
        return dense

    def model_changed(self, known: Floats) -> None:  # noqa: ARG002 - the seam's
        """Distances between embeddings of two models mean nothing."""
        self._window.clear()
        self._nearest.clear()


class Probabilistic:
    """PALS: the expected gain in accuracy of up to two labels here, per label, through the quantile filter.

    How many labels are near is a kernel's sum over what is labelled; what is asked for counts at once.
    """

    def __init__(self, share: float, rng: np.random.Generator) -> None:  # noqa: ARG002 - it draws nothing
        self._filter = Quantile(share)
        self._known: Doubles | None = None  # (M, D)

    def choose(self, logits: Floats, embedding: Floats) -> list[int]:
        """See Chooser."""
        probs, seen = probabilities(logits), embedding.astype(np.float64)
        known = np.empty((0, seen.shape[1])) if self._known is None else self._known
        width = _kernel(known)
        chosen = []
        for row in range(len(probs)):
            near = float(np.exp(-width * ((known - seen[row]) ** 2).sum(axis=1)).sum())
            if self._filter.asks(gain(near * probs[row])):
                chosen.append(row)
                known = np.vstack([known, seen[row]])
                width = _kernel(known)
        self._known = known
        return chosen

    def model_changed(self, known: Floats) -> None:
        """See Chooser."""
        self._known = known.astype(np.float64)


def _kernel(known: Doubles) -> float:
    """Width of the Gaussian kernel by the mean criterion, from (M, D).

    The library counts the labels of every class but the second here, by mistake; this counts all.
    """
    count = max(2, len(known))
    spread = float(known.var(axis=0).sum()) if len(known) else 0.0
    if spread <= 0.0:
        return 1.0 / float(known.shape[1])
    width: float = 0.5 * (count - 1) * math.log((count - 1) / SQUARED_DELTA) / (2 * count * spread)
    return width


def gain(frequencies: Doubles) -> float:
    """Expected gain in accuracy, per label, of one label more or two, whichever is more.

    frequencies (C,): labels of each class nearby. The truth nearby is Dirichlet-distributed, so what a label will be is
    a Polya urn's draw, and accuracy the largest share after it:

    >>> round(gain(np.array([0.0, 0.0])), 3)
    0.499
    >>> round(gain(np.array([9.0, 1.0])), 3)
    0.0
    """
    alpha = frequencies + PRIOR
    total, most = float(alpha.sum()), float(alpha.max())
    if math.isnan(total):
        return math.nan
    now = most / total
    one = float(alpha @ np.maximum(most, alpha + 1.0)) / (total * (total + 1.0))
    higher = np.maximum(most, np.maximum.outer(alpha + 1.0, alpha + 1.0))
    np.fill_diagonal(higher, np.maximum(most, alpha + 2.0))
    chance = np.outer(alpha, alpha)
    chance[np.diag_indices_from(chance)] += alpha
    two = float((chance * higher).sum()) / (total * (total + 1.0) * (total + 2.0))
    best: float = max(one - now, (two - now) / 2.0)
    return best
