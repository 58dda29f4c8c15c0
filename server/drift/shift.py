"""Did the mix of classes move, or what they look like?

Held against the reference of a version: its signals on held-out samples whose truth is known. If only the shares of the
classes moved (label shift), then q, the shares of what is predicted, tells the new ones: with M = P(predicted | true),

    shares p = M^-1 q                                   (BBSE: Lipton, Wang and Smola 2018)
    left    d = mean of the window - sum_k p_k G_k       G_k the mean of the signals in class k

and d is nothing but chance. A and the influence function psi turn it into a test that knows of every estimate in it:

    A = G^T M^-1     psi = signals - A e_predicted       cov d = cov psi / n + sum_k p_k^2 cov_k psi / n_k

    raw test keeps          none
    raw rejects, d keeps    label shift                  new priors explain all; nothing need be learned anew
    d rejects               covariate or concept shift   labels alone can tell these two apart

Neighbouring samples resemble each other: n is divided by how much more means of spans vary than independent samples
would; and by how much more devices differ, so that one bad lens is not called the world. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc

from edge_agent.choose.signals import SCALARS

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

Kind = Literal["none", "label shift", "covariate or concept shift", "cannot tell"]

ALPHA = 0.001  # of each test; higher tells of shifts that are not there, lower misses weak ones
LEAST_PER_CLASS = 20  # held-out samples; below, what the class looks like is not known
LEAST_SAMPLES = 200.0  # independent ones in the window
LEAST_SPANS = 8  # beyond the first of each device; below, how much they resemble each other is not known
LEAST_DEVICES = 5  # below, how much devices differ is not known
CONDITION = 20.0  # of M; above, shares are mostly noise: some class is predicted like another
Z95 = 1.96
CONFIDENCE = 0  # column of the signals; of a good model it is 1 but for a few samples, and its mean rests on those
AFTER = len(SCALARS) - 1  # scalars after it: energy, which says the same but more evenly, and distance


class Known(NamedTuple):
    """A version's reference. values: (n, P) signals. predicted, true: (n,) of C `classes`."""

    values: Floats
    predicted: Labels
    true: Labels
    classes: int


class Seen(NamedTuple):
    """A window of the stream: m spans of one device or more.

    samples: (m,). means: (m, P + C), signals and shares of predicted classes. device: (m,) a number.
    """

    samples: Floats
    means: Floats
    device: Labels


class Shares(NamedTuple):
    """Of the true classes now, with 95 % intervals. All (C,), 0..1."""

    now: Floats
    low: Floats
    high: Floats


class Shift(NamedTuple):
    """What kind it is, and why. shares: None where they cannot be told or would mean nothing.

    raw_p, left_p: of the two tests, None where not made. inflation: n is divided by it.
    """

    kind: Kind
    why: str
    shares: Shares | None = None
    raw_p: float | None = None
    left_p: float | None = None
    inflation: float = 1.0


class Model(NamedTuple):
    """What the reference says, of R = P - 1 + C columns: signals but confidence, and 1 where that class is predicted.

    mean: (R,). covariance: (R, R). samples: n. classes: C. doubt: why class shares cannot be told; empty when they can,
    and only then the rest is there. counts: (C,) of each true class. confusion: (C, C) M. means: (C, P - 1) G. pull:
    (P - 1, C) A. within: (C, P - 1, P - 1) covariance of psi in each class.
    """

    mean: Floats
    covariance: Floats
    samples: int
    classes: int
    doubt: str
    counts: Floats
    confusion: Floats = np.zeros((0, 0))
    means: Floats = np.zeros((0, 0))
    pull: Floats = np.zeros((0, 0))
    within: Floats = np.zeros((0, 0, 0))


def describe(known: Known, names: Sequence[str] = ()) -> Model:
    """What the reference says, once for all windows that are held against it. names: (C,) of the classes."""
    truth, predicted = one_hot(known.true, known.classes), one_hot(known.predicted, known.classes)
    values = known.values[:, CONFIDENCE + 1 :]
    rows = np.concatenate([values, predicted], axis=1)
    counts = truth.sum(axis=0)
    model = Model(rows.mean(axis=0), np.cov(rows, rowvar=False), len(rows), known.classes, "", counts)
    few = int(counts.argmin())
    if counts[few] < LEAST_PER_CLASS:
        why = (
            f"class {names[few] if names else few} has {counts[few]:.0f} held-out samples, {LEAST_PER_CLASS} are needed"
        )
        return model._replace(doubt=why)
    confusion = predicted.T @ truth / counts
    if (condition := float(np.linalg.cond(confusion))) > CONDITION:
        why = f"classes are confused too much to tell their shares (condition {condition:.0f}, at most {CONDITION:.0f})"
        return model._replace(doubt=why)
    means = truth.T @ values / counts[:, None]
    pull = np.linalg.solve(confusion.T, means).T
    psi = values - pull[:, known.predicted].T
    within = np.array([np.atleast_2d(np.cov(psi[known.true == k], rowvar=False)) for k in range(known.classes)])
    return model._replace(confusion=confusion, means=means, pull=pull, within=within)


def tell(model: Model, seen: Seen, *, alpha: float = ALPHA) -> Shift:
    """Which kind of shift is it?"""
    seen = seen._replace(means=seen.means[:, CONFIDENCE + 1 :])
    total, size = float(seen.samples.sum()), len(model.mean) - model.classes
    if len(seen.samples) - len(np.unique(seen.device)) < LEAST_SPANS:
        return Shift("cannot tell", f"{len(seen.samples)} spans say too little of how much they vary")
    inflation = _within(seen, seen.means, np.diag(model.covariance), size)
    if total / inflation < LEAST_SAMPLES:
        return Shift("cannot tell", f"{total / inflation:.0f} independent samples, {LEAST_SAMPLES:.0f} are needed")
    keep = slice(0, size + model.classes - 1)  # the shares of predictions sum to 1
    apart = np.average(seen.means, axis=0, weights=seen.samples) - model.mean
    covariance = model.covariance * (inflation / total + 1.0 / model.samples)
    raw_p = _tail(apart[keep], covariance[keep, keep], model.samples - 1.0)
    if model.doubt:
        kind: Kind = "none" if raw_p > alpha else "cannot tell"
        return Shift(kind, model.doubt if kind == "cannot tell" else _REASONS[kind], raw_p=raw_p, inflation=inflation)
    return _explain(model, seen, raw_p, inflation, alpha)


def _explain(model: Model, seen: Seen, raw_p: float, inflation: float, alpha: float) -> Shift:
    total, size = float(seen.samples.sum()), len(model.mean) - model.classes
    mean = np.average(seen.means, axis=0, weights=seen.samples)
    shares = np.asarray(np.linalg.solve(model.confusion, mean[size:]), np.float64)
    clipped = np.clip(shares, 0.0, None)
    expected = np.diag(np.tensordot(clipped, model.within, axes=1))
    spans = seen.means[:, :size] - seen.means[:, size:] @ model.pull.T
    more = max(_within(seen, spans, expected, size), _between(seen, spans, expected, size))
    weight = clipped * more / total + shares**2 / model.counts
    # The window's covariance comes from the reference too: Satterthwaite's degrees of freedom, one term a class.
    freedom = weight.sum() ** 2 / (weight**2 / (model.counts - 1.0)).sum()
    left_p = _tail(mean[:size] - shares @ model.means, np.tensordot(weight, model.within, axes=1), float(freedom))
    kind: Kind = "none" if raw_p > alpha else ("label shift" if left_p > alpha else "covariate or concept shift")
    told: Shares | None = None
    if kind != "covariate or concept shift":
        half = Z95 * _shares_spread(model, mean[size:], shares, total / inflation)
        told = Shares(*(np.clip(x, 0.0, 1.0) for x in (shares, shares - half, shares + half)))
    return Shift(kind, _REASONS[kind], told, raw_p, left_p, max(inflation, more))


_REASONS: dict[Kind, str] = {
    "none": "as the held-out samples",
    "label shift": "other class shares explain all that moved",
    "covariate or concept shift": "class shares do not explain what moved",
}


def one_hot(labels: Labels, classes: int) -> Floats:
    """(n, C) of 0 and 1."""
    return np.eye(classes)[labels]


def _shares_spread(model: Model, predicted: Floats, shares: Floats, samples: float) -> Floats:
    """(C,) standard errors of the class shares, by the delta method: of the window's counts and of the reference's."""
    inverse = np.linalg.inv(model.confusion)
    middle = (np.diag(predicted) - np.outer(predicted, predicted)) / samples
    for k, column in enumerate(model.confusion.T):
        middle += shares[k] ** 2 / model.counts[k] * (np.diag(column) - np.outer(column, column))
    spread: Floats = np.sqrt(np.clip(np.diag(inverse @ middle @ inverse.T), 0.0, None))
    return spread


def _tail(apart: Floats, covariance: Floats, freedom: float) -> float:
    """Hotelling's T^2 as Fisher's F, of a covariance with that freedom; directions that never vary are left out."""
    scale = np.sqrt(np.diag(covariance)) + 1e-12
    variance, directions = np.linalg.eigh(covariance / np.outer(scale, scale))
    kept = variance > 1e-8 * variance[-1]
    statistic = float((np.square(directions[:, kept].T @ (apart / scale)) / variance[kept]).sum())
    size = int(kept.sum())
    below = max(freedom + 1.0 - size, 1.0)
    return float(fdtrc(size, below, statistic * below / (size * freedom)))


def _within(seen: Seen, means: Floats, variance: Floats, size: int) -> float:
    """How much more spans of one device vary than independent samples would; at least 1."""
    square = np.zeros(means.shape[1])
    devices = np.unique(seen.device)
    for device in devices:
        n, x = seen.samples[seen.device == device, None], means[seen.device == device]
        square += (n * np.square(x - (n * x).sum(axis=0) / n.sum())).sum(axis=0)
    return _more(square / (len(means) - len(devices)), variance, size)


def _between(seen: Seen, means: Floats, variance: Floats, size: int) -> float:
    """How much more devices vary than independent samples would; at least 1, and that where they are few."""
    devices = np.unique(seen.device)
    if len(devices) < LEAST_DEVICES:
        return 1.0
    n = np.array([seen.samples[seen.device == device].sum() for device in devices])
    x = np.array([np.average(means[seen.device == d], axis=0, weights=seen.samples[seen.device == d]) for d in devices])
    square = (n[:, None] * np.square(x - np.average(x, axis=0, weights=n))).sum(axis=0)
    return _more(square / (len(devices) - 1), variance, size)


def _more(observed: Floats, expected: Floats, size: int) -> float:
    """The mean ratio of variances: the most of scalars, directions, classes. What never varied says nothing."""
    varied = expected > 1e-9
    ratio = np.where(varied, observed, 0.0) / np.where(varied, expected, 1.0)
    parts = (slice(0, min(AFTER, size)), slice(AFTER, size), slice(size, None))
    return max(1.0, *(float(ratio[part].sum() / max(varied[part].sum(), 1)) for part in parts))
