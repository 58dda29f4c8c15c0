"""Which class do several answers to one question say, and how sure is that?

Every labeler has error rates of his own: of what truly is class j he calls a part l. They are estimated together with
the classes by expectation maximisation (Dawid and Skene, "Maximum likelihood estimation of observer error-rates using
the EM algorithm", Applied Statistics 28, 1979), and nobody needs to know a single true class. Where nothing is known of
the labelers all count alike, and the same rule is the majority's.

    counts (J, K, K)  how often labeler j called l what was k, in (fractional) samples
    rates  (J, K, K)  of it, with PRIOR added; rows sum to 1
    share  (K,)       of the classes among the samples

Pure: arrays in, arrays out. An answer is a triple of positions: item, labeler, class said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

PRIOR = 5.0
"""Samples that a labeler is taken to have answered of each class before any was seen: fewer believes three lucky ones,
more takes long to tell a careful labeler from a careless one."""
PRIOR_RIGHT = 0.8
"""Part of them that was right: above 1 / K, or the classes could be swapped; near 1, nobody is ever found careless."""
ROUNDS = 100  # EM gains nothing that matters after some 30
SETTLED = 1e-6  # change of the class shares below which it ends
_TINY = 1e-300


class Answers(NamedTuple):
    """T answers: item, labeler and class, each (T,) positions from 0. One labeler may answer one item repeatedly."""

    item: Ints
    labeler: Ints
    said: Ints


class Fit(NamedTuple):
    """What EM found. posterior: (N, K), rows sum to 1. counts: (J, K, K). share: (K,)."""

    posterior: Floats
    counts: Floats
    share: Floats
    log_likelihood: tuple[float, ...]  # of the answers, after each round; with no prior it never falls


def dawid_skene(
    answers: Answers,
    *,
    items: int,
    labelers: int,
    classes: int,
    known: Mapping[int, int] | None = None,
    prior: float = PRIOR,
) -> Fit:
    """Estimate the class of every item and the error rates of every labeler.

    Args:
        answers: at least one to each item.
        items: N.
        labelers: J.
        classes: K.
        known: class of those items whose truth is known (gold): they stay what they are, and teach the rates.
        prior: samples of PRIOR; 0: maximum likelihood, as published.

    >>> said = Answers(*(np.array(x) for x in ([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2], [0, 0, 1, 1, 1, 1])))
    >>> dawid_skene(said, items=2, labelers=3, classes=2).posterior.argmax(axis=1).tolist()
    [0, 1]
    """
    posterior = np.zeros((items, classes))
    np.add.at(posterior, (answers.item, answers.said), 1.0)
    posterior /= posterior.sum(axis=1, keepdims=True)
    fixed = _fixed(known or {}, classes)
    posterior[fixed.rows] = fixed.one_hot
    share, likelihood = np.zeros(classes), []
    for _ in range(ROUNDS):
        before, share = share, posterior.mean(axis=0)
        counts = _counted(answers, posterior, labelers)
        posterior, log_likelihood = _classes(answers, items, rates(counts, prior=prior), share)
        posterior[fixed.rows] = fixed.one_hot
        likelihood.append(log_likelihood)
        if np.abs(share - before).sum() < SETTLED:
            break
    return Fit(posterior, _counted(answers, posterior, labelers), share, tuple(likelihood))


def rates(counts: Floats, *, prior: float = PRIOR) -> Floats:
    """(J, K, K) error rates from counts of the same shape; a row of which nothing is known is uniform without prior."""
    classes = counts.shape[-1]
    before = np.full((classes, classes), prior * (1.0 - PRIOR_RIGHT) / max(classes - 1, 1))
    np.fill_diagonal(before, prior * PRIOR_RIGHT if classes > 1 else prior)
    found = counts + before
    total = found.sum(axis=-1, keepdims=True)
    shares: Floats = np.divide(found, total, out=np.full_like(found, 1.0 / classes), where=total > 0.0)
    return shares


def posterior_of(said: Sequence[tuple[int, int]], known_rates: Floats, share: Floats) -> Floats:
    """(K,) probability of each class, given the (labeler, class) of all answers to one item.

    known_rates: (J, K, K). share: (K,), all above 0 where a class is possible.
    """
    labeler, answer = (np.array(part, np.intp) for part in zip(*said, strict=True))
    found, _ = _classes(Answers(np.zeros_like(labeler), labeler, answer), 1, known_rates, share)
    row: Floats = found[0]
    return row


def accuracy_of(counts: Floats, *, prior: float = 0.0) -> Floats:
    """(J,) part of a labeler's answers that were right, weighed by the classes as they met them; NaN of no answers."""
    shares = rates(counts, prior=prior)
    met = counts.sum(axis=2)
    right = np.einsum("jkk,jk->j", shares, met)
    total = met.sum(axis=1)
    part: Floats = np.divide(right, total, out=np.full(len(total), np.nan), where=total > 0.0)
    return part


class _Fixed(NamedTuple):
    rows: Ints
    one_hot: Floats


def _fixed(known: Mapping[int, int], classes: int) -> _Fixed:
    rows = np.array(list(known), np.intp)
    return _Fixed(rows, np.eye(classes)[np.array(list(known.values()), np.intp)])


def _counted(answers: Answers, posterior: Floats, labelers: int) -> Floats:
    """The M step: eq. 2.3 of the paper, before the division."""
    classes = posterior.shape[1]
    place = answers.labeler * classes + answers.said
    columns = [np.bincount(place, posterior[answers.item, k], labelers * classes) for k in range(classes)]
    by_said: Floats = np.stack(columns, axis=1).reshape(labelers, classes, classes).astype(np.float64)
    return by_said.transpose(0, 2, 1)


def _classes(answers: Answers, items: int, known_rates: Floats, share: Floats) -> tuple[Floats, float]:
    """The E step: eq. 2.5 in logarithms, and the log likelihood of the answers (eq. 2.7)."""
    given = np.log(np.maximum(known_rates, _TINY))[answers.labeler, :, answers.said]  # (T, K)
    log_joint = np.tile(np.log(np.maximum(share, _TINY)), (items, 1))
    for k in range(len(share)):
        log_joint[:, k] += np.bincount(answers.item, given[:, k], items)
    top = log_joint.max(axis=1, keepdims=True)
    joint = np.exp(log_joint - top)
    total = joint.sum(axis=1, keepdims=True)
    return joint / total, float((np.log(total) + top).sum())
