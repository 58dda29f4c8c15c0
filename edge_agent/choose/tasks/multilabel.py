"""How much would a label teach, where every class may apply or not?

A sigmoid for each of K classes; of several heads, the mean of their probabilities p counts. A class is said to apply
where p >= 1/2.

    confidence         mean over classes of max(p, 1 - p): the share of right decisions that the model expects
    least_confidence   1 - product of max(p, 1 - p): the chance that not all decisions are right
    margin             2 - 2 times the geometric mean of max(p, 1 - p): the same order, which many classes do not bring
                       near 1 throughout
    entropy            mean over classes of the binary entropy, in bits
    energy             -sum of log(1 + e^logit): what the model has seen little of (Wang et al., NeurIPS 2021)

The order of least confidence in the answer as a whole (Settles 2009, 3.1) taught most of what was tried on real data;
the least margin of any class (Brinker 2006) asks about one class all the time: of fourteen there is nearly always one
that is open (docs/adr/0029).

Committees' measures are taken for each class, of two outcomes, and averaged. Everything is elementwise along a row, so
that decisions do not depend on the blocks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Floats, Scored, known_or_plug_in
from edge_agent.choose.committee import COMMITTEE
from edge_agent.choose.targets import EPIG, OF_COMMITTEES
from edge_agent.contract.task import MOST, Applies, Said

APPLIES = 0.5  # probability from which a class is said to apply
DIGITS = 4  # of a probability that is sent


class Decisions(NamedTuple):
    """What was answered: p (N, K), the probability of each class."""

    p: Floats
    alike: float = 0.0  # two answers agree where no class is decided otherwise

    def said(self, row: int) -> Said:
        """Every class with its probability; of more than may be sent, the likeliest."""
        p = self.p[row]
        shown = np.sort(np.argsort(-p, kind="stable")[:MOST]).tolist()
        return Said(applies=tuple(Applies(index, round(float(p[index]), DIGITS)) for index in shown))

    def differ(self, rows: NDArray[np.intp], other: Any) -> Floats:
        """Share of classes decided otherwise: what the score of one can be off from that of the other at most."""
        p, q = self.p[rows], other.p
        classes = max(p.shape[1], q.shape[1])  # one that a model does not know does not apply
        mine, theirs = (np.pad(one >= APPLIES, ((0, 0), (0, classes - one.shape[1]))) for one in (p, q))
        differs: Floats = (mine != theirs).mean(axis=1).astype(np.float32)
        differs[~(np.isfinite(p).all(axis=1) & np.isfinite(q).all(axis=1))] = np.nan
        return differs


class Multilabel:
    """The adapter; see scoring.py."""

    def __init__(self, name: str, *, temperature: float = 1.0, members: int = 1) -> None:
        """ConfigError when `name` is neither known nor a plug-in, which is given the heads' mean as logits (N, K)."""
        self.name = name
        self._plug_in = known_or_plug_in(name)
        self._of_members = COMMITTEE.get(name) if members > 1 else None
        self._inverse_temperature = np.float32(1.0 / temperature)
        self.complaint = ""
        if name == EPIG or (name in OF_COMMITTEES and members == 1):
            why = "is of single classes" if name == EPIG else "asks a model of several heads, this one has 1"
            self.complaint = f"acquisition {name!r} {why}: margin stands in"

    def score(self, logits: Floats, further: Floats | None = None, *, count: int | None = None) -> Scored:  # noqa: ARG002 - the seam's
        """Score (N, K) float32 or, of T heads, (N, T, K)."""
        z = logits * self._inverse_temperature
        heads = z if z.ndim == 3 else z[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            p: Floats = (1.0 / (1.0 + np.exp(-heads))).mean(axis=1, dtype=np.float32)
            energy: Floats = -np.logaddexp(np.float32(0.0), heads).sum(axis=2).mean(axis=1)
            sure = np.maximum(p, np.float32(1.0) - p)
            utility = self._utility(p, sure, heads, energy)
        sound = np.isfinite(heads.max(axis=2)).all(axis=1)  # -inf is a class that is masked, all of them is nothing
        confidence: Floats = sure.mean(axis=1)
        utility[~sound] = np.nan
        confidence[~sound] = np.nan
        residual: Floats = p - (p >= APPLIES)
        return Scored(utility, p.argmax(axis=1), confidence, None, energy, residual, Decisions(p))

    def _utility(self, p: Floats, sure: Floats, heads: Floats, energy: Floats) -> Floats:
        if self._plug_in is not None:
            with np.errstate(divide="ignore"):
                asked: Floats = self._plug_in(np.log(p) - np.log1p(-p))
            return asked
        if self._of_members is not None:
            either = np.stack((heads, np.zeros_like(heads)), axis=3)  # (N, T, K, 2): applies, or not
            samples, members, classes, _ = either.shape
            each = either.transpose(1, 0, 2, 3).reshape(members, samples * classes, 2)
            disputed: Floats = self._of_members(each).reshape(samples, classes).mean(axis=1)
            return disputed
        if self.name == "entropy":
            rest = np.maximum(np.float32(1.0) - sure, np.float32(1e-30))  # of 0 log 0
            terms = sure * np.log2(sure) + rest * np.log2(rest)
            entropy: Floats = -terms.mean(axis=1, dtype=np.float32)
            return entropy
        if self.name == "least_confidence":
            return least(sure)
        return energy.copy() if self.name == "energy" else margin(sure)


def margin(sure: Floats) -> Floats:
    """2 less twice the geometric mean of `sure` (N, K), which is 1/2 at least.

    >>> margin(np.array([[0.5, 0.5], [0.5, 1.0], [1.0, 1.0]], np.float32)).round(2).tolist()
    [1.0, 0.5899999737739563, 0.0]
    """
    mean: Floats = 2.0 - 2.0 * np.exp(np.log(sure).mean(axis=1, dtype=np.float32))
    return mean


def least(sure: Floats) -> Floats:
    """That some decision is wrong, were they independent."""
    wrong: Floats = np.float32(1.0) - np.prod(sure, axis=1)
    return wrong
