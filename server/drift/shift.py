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

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.drift.tails import fisher

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


class Known(NamedTuple):
    """A version's reference. values: (n, P) signals. predicted, true: (n,) of C `classes`."""

    values: Floats
    predicted: Labels
    true: Labels
    classes: int


class Seen(NamedTuple):
    """A window of the stream, m spans of one device or more. samples: (m,). means: (m, P + C). device: (m,) a number."""

    samples: Floats
    means: Floats
    device: Labels


class Shift(NamedTuple):
    """What kind it is, and why. shares, low, high: (C,) of the true classes now, 95 % intervals; None where untold.

    raw_p, left_p: of the two tests. inflation: n is divided by it.
    """

    kind: Kind
    why: str
    shares: Floats | None = None
    low: Floats | None = None
    high: Floats | None = None
    raw_p: float | None = None
    left_p: float | None = None
    inflation: float = 1.0


class Model(NamedTuple):
    """What the reference says of each class. counts: (C,). confusion: (C, C) M. means: (C, P) G. pull: (P, C) A."""

    counts: Floats
    confusion: Floats
    means: Floats
    pull: Floats


def tell(known: Known, seen: Seen, *, alpha: float = ALPHA) -> Shift:
    """Which kind of shift is it?"""
    total = float(seen.samples.sum())
    if len(seen.samples) - len(np.unique(seen.device)) < LEAST_SPANS:
        return Shift("cannot tell", f"{len(seen.samples)} spans say too little of how much they vary")
    size = known.values.shape[1]
    rows = np.concatenate([known.values, one_hot(known.predicted, known.classes)], axis=1)
    inflation = _within(seen, seen.means, rows.var(axis=0), size)
    if total / inflation < LEAST_SAMPLES:
        return Shift("cannot tell", f"{total / inflation:.0f} independent samples, {LEAST_SAMPLES:.0f} are needed")
    raw_p = _raw(known, rows, seen, total / inflation)
    counts = np.bincount(known.true, minlength=known.classes)
    few = int(counts.argmin())
    if counts[few] < LEAST_PER_CLASS:
        why = f"class {few} has {counts[few]} held-out samples, {LEAST_PER_CLASS} are needed"
        return Shift("none" if raw_p > alpha else "cannot tell", why, raw_p=raw_p, inflation=inflation)
    confusion = confusion_of(known)
    if (condition := float(np.linalg.cond(confusion))) > CONDITION:
        why = f"classes are confused too much to tell their shares (condition {condition:.0f} > {CONDITION:.0f})"
        return Shift("none" if raw_p > alpha else "cannot tell", why, raw_p=raw_p, inflation=inflation)
    return _explain(known, seen, describe(known), raw_p, inflation, alpha)


def _explain(known: Known, seen: Seen, model: Model, raw_p: float, inflation: float, alpha: float) -> Shift:
    size = known.values.shape[1]
    mean = np.average(seen.means, axis=0, weights=seen.samples)
    total = float(seen.samples.sum())
    shares = np.linalg.solve(model.confusion, mean[size:])
    spread = _shares_spread(model, mean[size:], shares, total / inflation)
    left = mean[:size] - shares @ model.means
    psi = known.values - model.pull[:, known.predicted].T
    within = _by_class(psi, known)  # (C, P, P)
    expected = np.tensordot(np.clip(shares, 0.0, None), within, axes=1)
    spans = seen.means[:, :size] - seen.means[:, size:] @ model.pull.T
    more = max(
        _within(seen, spans, np.diag(expected), size), _between(seen, spans, np.diag(expected), size)
    )
    weight = np.clip(shares, 0.0, None) * more / total + shares**2 / model.counts
    # The window's covariance comes from the reference too: Satterthwaite's degrees of freedom, one term a class.
    freedom = weight.sum() ** 2 / (weight**2 / (model.counts - 1.0)).sum()
    left_p = _tail(left, np.tensordot(weight, within, axes=1), float(freedom))
    kind: Kind = "none" if raw_p > alpha else ("label shift" if left_p > alpha else "covariate or concept shift")
    half = Z95 * spread
    low, high = np.clip(shares - half, 0.0, 1.0), np.clip(shares + half, 0.0, 1.0)
    return Shift(kind, _REASONS[kind], np.clip(shares, 0.0, 1.0), low, high, raw_p, left_p, max(inflation, more))


_REASONS: dict[Kind, str] = {
    "none": "as the held-out samples",
    "label shift": "other class shares explain all that moved",
    "covariate or concept shift": "class shares do not explain what moved",
}


def describe(known: Known) -> Model:
    """What the reference says of each class; every class must occur."""
    truth = one_hot(known.true, known.classes)
    counts = truth.sum(axis=0)
    means = truth.T @ known.values / counts[:, None]
    confusion = confusion_of(known)
    return Model(counts, confusion, means, np.linalg.solve(confusion.T, means).T)


def confusion_of(known: Known) -> Floats:
    """(C, C) P(predicted | true), predicted by row; every class must occur."""
    truth = one_hot(known.true, known.classes)
    confusion: Floats = one_hot(known.predicted, known.classes).T @ truth / truth.sum(axis=0)
    return confusion


def one_hot(labels: Labels, classes: int) -> Floats:
    """(n, C) of 0 and 1."""
    return np.eye(classes)[labels]


def _by_class(values: Floats, known: Known) -> Floats:
    """(C, P, P) covariance within each true class."""
    parts = (values[known.true == k] for k in range(known.classes))
    return np.array([np.cov(part, rowvar=False).reshape(values.shape[1], -1) for part in parts])


def _shares_spread(model: Model, predicted: Floats, shares: Floats, samples: float) -> Floats:
    """(C,) standard errors of the class shares, by the delta method: of the window's counts and of the reference's."""
    inverse = np.linalg.inv(model.confusion)
    middle = (np.diag(predicted) - np.outer(predicted, predicted)) / samples
    for k, column in enumerate(model.confusion.T):
        middle += shares[k] ** 2 / model.counts[k] * (np.diag(column) - np.outer(column, column))
    return np.sqrt(np.clip(np.diag(inverse @ middle @ inverse.T), 0.0, None))


def _raw(known: Known, rows: Floats, seen: Seen, samples: float) -> float:
    """p-value of: the window is as the reference."""
    keep = slice(0, rows.shape[1] - 1)  # the shares of predictions sum to 1
    apart = np.average(seen.means, axis=0, weights=seen.samples)[keep] - rows.mean(axis=0)[keep]
    covariance = np.cov(rows[:, keep], rowvar=False) * (1.0 / samples + 1.0 / len(rows))
    return _tail(apart, covariance, len(rows) - 1.0)


def _tail(apart: Floats, covariance: Floats, freedom: float) -> float:
    """Hotelling's T^2 as Fisher's F, of a covariance with that freedom; directions that never vary are left out."""
    scale = np.sqrt(np.diag(covariance)) + 1e-12
    variance, directions = np.linalg.eigh(covariance / np.outer(scale, scale))
    kept = variance > 1e-8 * variance[-1]
    statistic = float((np.square(directions[:, kept].T @ (apart / scale)) / variance[kept]).sum())
    size = int(kept.sum())
    below = max(freedom + 1.0 - size, 1.0)
    return fisher(statistic * below / (size * freedom), size, below)


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
    """The mean ratio of variances: the most of scalars, directions, classes."""
    ratio = observed / np.maximum(expected, 1e-9)
    parts = (ratio[: min(3, size)], ratio[3:size], ratio[size:])
    return max(1.0, *(float(part[expected_part > 1e-9].mean()) for part, expected_part in zip(
        parts, (expected[: min(3, size)], expected[3:size], expected[size:]), strict=True) if (expected_part > 1e-9).any()))
