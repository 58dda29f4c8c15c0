"""How much would a label teach, where the answer is a number for each target?

    variance = of the heads' means + mean of the variances that they state       (Lakshminarayanan et al., NeurIPS 2017)
    spread   = its square root, times the temperature                            (sd scaling: Levi et al. 2022)
    r        = spread / scale, mean over targets; scale: the target's sd on training data

    confidence             1 - min(1, r): the score that the model expects
    margin                 r / (1 + r), as least_confidence: ask where the spread is large (Settles 2009, 3.2 and 3.6)
    entropy, energy        of the Gaussian, in nats; unbounded
    bald                   r / (1 + r) of the heads' part alone: what more data would take away (Kendall and Gal 2017)

With heads, `bald` is the one that noise in the sensor does not fool. A plug-in, and what else asks a committee, are of
classes: margin stands in.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Floats, Scored, known_or_plug_in
from edge_agent.choose.targets import OF_COMMITTEES
from edge_agent.contract.task import MOST, Said, Value

DIGITS = 6  # significant ones, of a number that is sent: float32 has seven
_GAUSSIAN = 0.5 * math.log(2.0 * math.pi * math.e)  # entropy of the standard one


class Numbers(NamedTuple):
    """What was answered: value, spread (N, K), in the target's unit. scale: (K,)."""

    value: Floats
    spread: Floats
    scale: Floats
    alike: float = 0.5  # two answers agree where they are not half a standard deviation of the target apart

    def said(self, row: int) -> Said:
        """Every value with its spread."""
        pairs = zip(self.value[row, :MOST].tolist(), self.spread[row, :MOST].tolist(), strict=True)
        return Said(values=tuple(Value(index, _brief(value), _brief(sd)) for index, (value, sd) in enumerate(pairs)))

    def differ(self, rows: NDArray[np.intp], other: Any) -> Floats:
        """|difference| over scale, 1 at most, mean over targets: what their scores can differ by at most."""
        targets = min(self.value.shape[1], other.value.shape[1])
        apart = np.abs(self.value[rows, :targets] - other.value[:, :targets]) / self.scale[:targets]
        differs: Floats = np.minimum(apart, 1.0).mean(axis=1, dtype=np.float32)
        return differs


def _brief(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


class Regression:
    """The adapter; see scoring.py."""

    def __init__(self, name: str, *, temperature: float = 1.0, members: int = 1, scale: tuple[float, ...] = ()) -> None:
        """`scale`: (K,); empty: 1 each. ConfigError when `name` is not known."""
        self.name = name
        plugged = known_or_plug_in(name) is not None
        self._of_heads = name == "bald" and members > 1
        self._temperature, self._scale = np.float32(temperature), np.array(scale, np.float32)
        self.complaint = ""
        if plugged or (name in OF_COMMITTEES and not self._of_heads):
            self.complaint = f"acquisition {name!r} asks about classes, or several heads: the spread stands in"

    def score(self, logits: Floats, further: Floats | None = None, *, count: int | None = None) -> Scored:  # noqa: ARG002 - the seam's
        """Score means (N, K) or, of T heads, (N, T, K); `further`: log variances of the same shape, or None."""
        heads = logits if logits.ndim == 3 else logits[:, None]
        scale = self._scale if len(self._scale) else np.ones(heads.shape[2], np.float32)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            value: Floats = heads.mean(axis=1)
            apart: Floats = np.square(heads - value[:, None]).mean(axis=1)
            variance = apart if further is None else apart + np.exp(further).reshape(heads.shape).mean(axis=1)
            spread: Floats = np.sqrt(variance) * self._temperature
            r: Floats = (spread / scale).mean(axis=1)
            energy: Floats = (np.log(np.maximum(spread / scale, 1e-12)) + _GAUSSIAN).mean(axis=1, dtype=np.float32)
        utility = self._utility(r, apart, scale, energy)
        confidence: Floats = np.float32(1.0) - np.minimum(r, np.float32(1.0))
        sound = np.isfinite(value).all(axis=1) & np.isfinite(spread).all(axis=1)
        utility[~sound] = np.nan
        confidence[~sound] = np.nan
        label = np.zeros(len(value), np.intp)
        return Scored(utility, label, confidence, None, energy, spread / scale, Numbers(value, spread, scale))

    def _utility(self, r: Floats, apart: Floats, scale: Floats, energy: Floats) -> Floats:
        if self.name in ("entropy", "energy"):
            copied: Floats = energy.copy()
            return copied
        if self._of_heads:
            r = (np.sqrt(apart) * self._temperature / scale).mean(axis=1)
        return bounded(r)


def bounded(r: Floats) -> Floats:
    """R / (1 + r): the order of r in 0..1, where a mere cut at 1 would make the largest ones all the same.

    >>> bounded(np.array([0.0, 1.0, 3.0], np.float32)).tolist()
    [0.0, 0.5, 0.75]
    """
    with np.errstate(invalid="ignore"):
        found: Floats = r / (np.float32(1.0) + r)
    return found
