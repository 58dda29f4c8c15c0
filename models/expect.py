"""What does a device expect of a stream, by a model?

Measured on samples that training has not seen: on those it has, a model is surer than on any stream.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import Reference, Tensor
from models.kinds.kind import Kind, Outputs

Rows = NDArray[Any]

DIRECTIONS = 32  # of the whitened embedding, at most; more cost the device time, and are known less well
RIDGE_SHARE = 0.01  # of the largest variance, added to each: dead units have none to divide by
SD_FLOOR_SHARE = 0.01  # of the largest sd: a unit that was nearly always 0 must not turn its first spark into an alarm


def reference(kind: Kind, outputs: Outputs, temperature: float, *, spread_of: Rows) -> Reference:
    """Of samples that training has not seen.

    `spread_of`: the embedding that directions and spreads are taken from, where more samples matter more.
    """
    found, embedding = kind.expected(outputs, temperature), outputs.embedding
    outcomes = len(kind.names) + (kind.task == "detection")  # behind the classes of a detector: nothing
    if not embedding.shape[1]:  # nothing to say of one: what a manifest must state is one 0
        embedding = spread_of = np.zeros((len(embedding), 1), np.float32)
    mean, sd = embedding.mean(axis=0), spread_of.std(axis=0)
    centres = np.tile(mean, (outcomes, 1))
    for label in np.unique(found.label):
        centres[label] = embedding[found.label == label].mean(axis=0)
    share = np.bincount(found.label, minlength=outcomes) / len(found.label)
    quantiles = np.quantile(found.utility, np.linspace(0.0, 1.0, 21))
    return Reference(
        embedding_mean=Tensor.of(mean.astype(np.float32)),
        embedding_sd=Tensor.of(np.maximum(sd, max(SD_FLOOR_SHARE * sd.max(), 1e-6)).astype(np.float32)),
        class_centres=Tensor.of(centres.astype(np.float32)),
        class_share=tuple(share.tolist()),
        confidence_mean=float(found.confidence.mean()),
        energy_mean=float(found.energy.mean()),
        utility_quantiles=tuple(quantiles.tolist()),
        samples=len(found.label),
        whitening=Tensor.of(_whitening(spread_of)),
    )


def _whitening(embedding: Rows) -> NDArray[np.float32]:
    """(D, K): the directions of most variance, each scaled to variance 1 (principal components)."""
    centred = np.asarray(embedding, np.float64) - embedding.mean(axis=0)
    variance, directions = np.linalg.eigh(centred.T @ centred / len(centred))  # ascending
    variance, directions = variance[-DIRECTIONS:], directions[:, -DIRECTIONS:]
    ridge = RIDGE_SHARE * max(float(variance[-1]), 1e-12)
    whitening: NDArray[np.float32] = (directions / np.sqrt(np.maximum(variance, 0.0) + ridge)).astype(np.float32)
    return whitening
