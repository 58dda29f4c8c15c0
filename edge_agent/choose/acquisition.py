"""How much would a label of this sample teach?

An acquisition function maps logits (N, C) to utility (N,), float32, larger means ask. All but `energy` lie in [0, 1].
Logits are taken after temperature scaling. -inf is a masked class; a row with NaN or +inf, or masked throughout, gets
the utility NaN, which is never selected.

A graph with several heads is a committee (committee.py, targets.py): its disagreement can be asked for, and what it
says as one is scored like a single model's logits otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.committee import COMMITTEE, consensus
from edge_agent.choose.targets import EPIG, OF_COMMITTEES, Targets
from edge_agent.contract.errors import ConfigError, did_you_mean
from edge_agent.contract.settings import imported
from edge_agent.contract.task import Said
from edge_agent.contract.types import Prediction

FEW = 32  # classes: so many numbers are faster one by one than numpy's calls on them

Floats = NDArray[np.float32]
Acquisition = Callable[[Floats], Floats]


class Softmax(msgspec.Struct, frozen=True):
    """One pass over logits, shared by every built-in.

    shifted: (N, C) logits less their row's maximum, free to be worked in. exp: (N, C) of it. total: (N,) sum of exp.
    label: (N,) arg max. top: (N,) the maximum that was taken off. at: (N,) where it stood in all N * C. finite: no
    logit is NaN or inf.
    """

    shifted: Floats
    exp: Floats
    total: Floats
    label: NDArray[np.intp]
    top: Floats
    at: NDArray[np.intp]
    finite: bool


class Answers(Protocol):
    """What a model answered on a block of samples, where that is more than one class (tasks/)."""

    @property
    def alike(self) -> float:
        """The greatest difference at which two answers still agree."""

    def said(self, row: int) -> Said:
        """What goes with a sample that is sent."""

    def differ(self, rows: NDArray[np.intp], other: Any) -> Floats:
        """(n,) 0..1, how far the answers on `rows` are from the n of another model; NaN where one has none."""


class Scored(NamedTuple):
    """What is known of a block of samples. All (N,); NaN utility where the logits cannot be used.

    exp: (N, C), class probabilities over the confidence. energy: -logsumexp, or what is high like it. Both None when
    the scores failed. Of tasks beyond classes, in place of `exp`: residual (N, G), what a label would correct the
    outputs by, as the model expects it; answers.
    """

    utility: Floats
    label: NDArray[np.intp]
    confidence: Floats
    exp: Floats | None = None
    energy: Floats | None = None
    residual: Floats | None = None
    answers: Answers | None = None

    def prediction(self, row: int) -> Prediction:
        """What the model says of a sample."""
        said = None if self.answers is None else self.answers.said(row)
        return Prediction(int(self.label[row]), float(self.confidence[row]), said)


def softmax(logits: Floats, *, out: Floats | None = None) -> Softmax:
    """The shared pass over logits (N, C). `shifted` lies in `out`, which may be the logits' own memory.

    Every temporary of (N, C) spared is worth more than a pass over one: at C = 1000 they do not stay in the cache.
    """
    label = logits.argmax(1)
    at = _starts(*logits.shape) + label
    top = logits.take(at)
    finite = _finite(logits)
    if finite:
        shifted = np.subtract(logits, top[:, None], out=out)
    else:
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf: the row becomes NaN; -inf is as good as -1e38
            shifted = np.subtract(logits, top[:, None], out=out)
    exp = np.exp(shifted)
    return Softmax(shifted, exp, np.add.reduce(exp, 1), label, top, at, finite)


@lru_cache(maxsize=8)
def _starts(samples: int, classes: int) -> NDArray[np.intp]:
    """Where each row begins in all of them."""
    return np.arange(0, samples * classes, classes)


def _finite(logits: Floats) -> bool:
    """Whether none is NaN or inf; False as well where their squares overflow.

    One product of BLAS: without it every block pays for np.errstate and for what masked classes need. `dot` is the
    same, but warns where it overflows.
    """
    flat = logits.ravel()
    return math.isfinite(np.vdot(flat, flat))


def scaled(logits: Floats, inverse_temperature: np.float32) -> Floats:
    """After temperature scaling; a finite logit stays finite."""
    if inverse_temperature <= 1.0 or _finite(logits):
        return logits * inverse_temperature
    with np.errstate(over="ignore"):
        larger: Floats = logits * inverse_temperature
    np.copyto(larger, np.copysign(np.finfo(np.float32).max, logits), where=np.isfinite(logits) & np.isinf(larger))
    return larger


def top(logits: Floats, *, inverse_temperature: float = 1.0) -> tuple[int, float]:
    """Label and confidence of one sample, of logits (C,) or (T, C) of a committee, as a block's pass will say them.

    >>> label, confidence = top(np.log(np.array([0.25, 0.75], np.float32)))
    >>> label, round(confidence, 4)
    (1, 0.75)
    """
    if logits.ndim == 2:
        logits, inverse_temperature = consensus(scaled(logits, np.float32(inverse_temperature))[:, None])[0], 1.0
    if len(logits) > FEW:
        label = int(logits.argmax())
        with np.errstate(invalid="ignore", over="ignore"):  # as in softmax
            shifted = (logits - logits[label]) * np.float32(inverse_temperature)
        return label, 1.0 / float(np.exp(shifted).sum())
    values = logits.tolist()
    most = max(values)
    total = sum([math.exp((value - most) * inverse_temperature) for value in values])
    return values.index(most), 1.0 / total if total else math.nan


def _margin(s: Softmax) -> Floats:
    s.exp.put(s.at, 0.0)  # for the moment: at C = 1000 a copy costs half as much again, a partition four times as much
    second = s.exp.take(_starts(*s.exp.shape) + s.exp.argmax(axis=1))  # a third of what max takes over few classes
    s.exp.put(s.at, 1.0)
    utility: Floats = np.subtract(1.0, second, out=second)
    utility /= s.total
    return np.subtract(1.0, utility, out=utility)


def _least_confidence(s: Softmax) -> Floats:
    utility: Floats = 1.0 - 1.0 / s.total
    return utility


def _entropy(s: Softmax) -> Floats:
    classes = s.exp.shape[1]
    if classes < 2:
        nothing: Floats = np.log(s.total)  # 0, or NaN where the logits cannot be used
        return nothing
    # Without the floor a masked class would give 0 * -inf = NaN; exp(-110) is 0 in float32, so that it changes nothing
    # of the other rows.
    shifted = s.shifted if s.finite else np.maximum(s.shifted, -110.0)
    mean = np.add.reduce(np.multiply(s.exp, shifted, out=shifted), 1)
    mean /= s.total
    utility: Floats = np.log(s.total)
    utility -= mean
    utility /= _log(classes)
    return utility


@lru_cache(maxsize=8)
def _log(classes: int) -> np.float32:
    nats: np.float32 = np.float32(math.log(classes))
    return nats


def _energy(s: Softmax) -> Floats:
    utility: Floats = -(s.top + np.log(s.total))
    return utility


def margin(logits: Floats) -> Floats:
    """1 - (p1 - p2): one minus the gap between the two likeliest classes (Scheffer et al., IDA 2001).

    >>> margin(np.log(np.array([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]], np.float32) + 1e-9)).round(2).tolist()
    [1.0, 0.20000000298023224]
    """
    return _margin(softmax(logits))


def least_confidence(logits: Floats) -> Floats:
    """1 - p1 (Lewis and Gale, SIGIR 1994)."""
    return _least_confidence(softmax(logits))


def entropy(logits: Floats) -> Floats:
    """Entropy in nats over log C, so that a uniform row scores 1 (Shannon 1948; Settles 2009, 3.1)."""
    return _entropy(softmax(logits))


def energy(logits: Floats) -> Floats:
    """-logsumexp(logits): high where the model has seen little of the kind (Liu et al., NeurIPS 2020). Unbounded."""
    return _energy(softmax(logits))


BUILT_IN: dict[str, Callable[[Softmax], Floats]] = {
    "margin": _margin,
    "least_confidence": _least_confidence,
    "entropy": _entropy,
    "energy": _energy,
}


class Scorer:
    """Scores blocks of logits with one acquisition function."""

    def __init__(
        self, name: str, *, temperature: float = 1.0, members: int = 1, targets: Targets | None = None
    ) -> None:
        """`name`: of a built-in, or `package.module:function` of logits (N, C) -> (N,). ConfigError otherwise.

        `members`: heads of the model, 0 for not known. Of one head alone there is no disagreement to measure: margin
        stands in for it, and `complaint` says so. `targets`: to go on with, of EPIG.
        """
        self.name = name
        self._built_in = BUILT_IN.get(name, _margin)
        self._plug_in = known_or_plug_in(name)
        self._disagreement = COMMITTEE.get(name) if members > 1 else None
        self._targets = (targets or Targets()) if name == EPIG and members > 1 else None
        self._inverse_temperature = np.float32(1.0 / temperature)
        self.complaint = ""
        if name in OF_COMMITTEES and members == 1:
            self.complaint = f"acquisition {name!r} asks a model of several heads, this one has 1: margin stands in"

    def score(self, logits: Floats, further: Floats | None = None, *, count: int | None = None) -> Scored:  # noqa: ARG002 - the seam's
        """Score (N, C) float32 or, of a committee, (N, T, C); a plug-in's errors are the caller's to handle.

        count: rows that are new samples of the stream, in order; None: all. The others are left over in the ring.
        """
        ready = scaled(logits, self._inverse_temperature)
        asked = None
        if ready.ndim == 3:
            members = np.ascontiguousarray(ready.transpose(1, 0, 2))
            ready = consensus(members)
            if self._disagreement is not None:
                asked = self._disagreement(members)
            elif self._targets is not None:
                asked = self._targets.utility(members, count=len(logits) if count is None else count)
        if self._plug_in is not None:
            asked = self._plug_in(ready.copy())
        shared = softmax(ready, out=ready)
        confidence: Floats = 1.0 / shared.total
        utility = self._built_in(shared) if asked is None else asked
        if asked is not None:
            utility[~np.isfinite(confidence)] = np.nan
        return Scored(utility, shared.label, confidence, shared.exp, _energy(shared))


def known_or_plug_in(name: str) -> Acquisition | None:
    """None for the name of a built-in; else the plug-in, its answer checked. ConfigError when it is neither."""
    if name in BUILT_IN or name in OF_COMMITTEES:
        return None
    plug_in = load_plug_in(name)

    def asked(logits: Floats) -> Floats:
        utility = np.array(plug_in(logits), np.float32)
        if utility.shape != (len(logits),):
            raise ValueError(
                f"{len(logits)} samples gave utilities of shape {utility.shape}, expected ({len(logits)},)"
            )
        utility[np.isinf(utility)] = np.nan
        return utility

    return asked


def load_plug_in(name: str) -> Acquisition:
    """Find `package.module:function`; ConfigError when it is neither that nor a built-in."""
    if not name.partition(":")[2]:
        known = (*BUILT_IN, *OF_COMMITTEES)
        raise ConfigError(f"acquisition {name!r}: unknown{did_you_mean(name, known)}; known: {', '.join(known)}")
    found = imported(name, where="acquisition")
    if not callable(found):
        raise ConfigError(f"acquisition {name!r}: not a function")
    plug_in: Acquisition = found
    return plug_in
