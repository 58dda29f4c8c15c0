"""What did whose labels turn out to teach?

A new model is held against the one before on the audit: labels that neither learned from, each weighted by 1/p, p the
probability of its having come. Where the new one is right and the old one was not, or the other way round, the change
is put down to the labels between the two, that is to the nearest of them in the new model's embedding, in equal parts:

    gain of an arm = sum_i w_i change_i (its part of the neighbours of i) / sum_i w_i / (its labels)

so that the gains of all labels together are the difference of the two models' Hajek accuracies (Hajek 1971); with one
arm alone this is that difference per label. Neighbours stand for influence as in Jia et al. (VLDB 2019), whose nearest
neighbours of an embedding are what a label is worth to. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 10  # fewer makes credit a lottery, more gives every arm the same
FEWEST = 4  # effective audit labels; with fewer not even the stated error means anything


class Gain(msgspec.Struct, frozen=True, kw_only=True):
    """What a label of an arm was worth: accuracy (0..1) on the stream, per label; `sd` is the error of that."""

    mean: float
    sd: float
    labels: int


class Audit(NamedTuple):
    """Labels that neither model learned from.

    change: (N,) 1 where only the new model is right, -1 where only the old one, else 0. weight: (N,) 1 / probability.
    embedding: (N, D) float, the new model's.
    """

    change: NDArray[np.float64]
    weight: NDArray[np.float64]
    embedding: NDArray[np.float32]


def gains(audit: Audit, arms: NDArray[np.str_], embedding: NDArray[np.float32]) -> dict[str, Gain]:
    """Gains by arm.

    Args:
        audit: what changed.
        arms: (M,) who asked for each label that the new model learned and the old one did not know; "": nobody's.
        embedding: (M, D) of those, the new model's.

    Returns:
        Of every arm that asked for one; nothing when the audit is too small to say anything (FEWEST).
    """
    names = [str(name) for name in np.unique(arms) if name]
    total = float(audit.weight.sum())
    effective = total**2 / float((audit.weight**2).sum()) if total > 0.0 else 0.0
    if effective < FEWEST or not names:
        return {}
    near = _nearest(audit.embedding, embedding)
    made = {}
    for name in names:
        own = arms == name
        part = own[near].mean(axis=1)  # (N,) of each one's neighbours
        credit = audit.change * part
        mean = float(audit.weight @ credit) / total
        # Linearised variance of the ratio; half a change more each way, or a quiet audit would claim to be sure.
        spread = float(audit.weight**2 @ (credit - mean) ** 2) / total**2
        spread += float(audit.weight @ part**2) / total / (effective + 2.0) ** 2
        labels = int(own.sum())
        made[name] = Gain(mean=mean / labels, sd=spread**0.5 / labels, labels=labels)
    return made


def total(parts: Mapping[str, Gain]) -> Gain:
    """All arms as one; their errors as independent.

    >>> total({"a": Gain(mean=0.02, sd=0.003, labels=10), "b": Gain(mean=0.0, sd=0.004, labels=10)}).mean
    0.01
    """
    labels = sum(part.labels for part in parts.values())
    mean = sum(part.mean * part.labels for part in parts.values()) / labels
    sd = sum((part.sd * part.labels) ** 2 for part in parts.values()) ** 0.5 / labels
    return Gain(mean=mean, sd=sd, labels=labels)


def _nearest(audit: NDArray[np.float32], labels: NDArray[np.float32]) -> NDArray[np.intp]:
    """(N, k) rows of `labels` nearest to each of `audit`, by angle: lengths differ from layer to layer."""
    similar = _unit(audit) @ _unit(labels).T
    count = min(NEIGHBOURS, len(labels))
    return np.argpartition(-similar, count - 1, axis=1)[:, :count]


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    unit: NDArray[np.float32] = rows / np.maximum(length, np.float32(1e-12))
    return unit
