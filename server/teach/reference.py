"""What does a model say of samples whose truth is known?

Run once, where a candidate is judged or an artifact is added: the file that ships, on the held-out imports. It is kept
with the file (store/references.py), not in the manifest: devices have no use for it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Scored, Scorer
from edge_agent.choose.signals import Signals
from edge_agent.contract.artifact import Manifest
from server.errors import StoreError
from server.store import labels, references, rules, samples
from server.store.references import Reference
from server.store.store import Store

log = logging.getLogger(__name__)

MOST = 4000  # samples; more is surer, and takes longer and a larger blob
_AT_ONCE = 256  # read and run: more only takes memory


def learn(store: Store, manifest: Manifest, onnx: bytes, *, now_ms: int) -> int:
    """Make the reference of a model and keep it; returns of how many samples, 0 when none are held out that fit.

    Of classes alone: what of boxes or numbers shifted, nothing here could tell. What cannot be read is left out, and
    said. IncompatibleError when the model does not run: a model without a reference is still a model, so callers say
    it and go on.
    """
    if manifest.task != "classification":
        return 0
    index = {name: number for number, name in enumerate(manifest.classes)}
    with store.database.read() as connection:
        names, now = labels.names(connection), rules.in_force(connection)
        rows = [
            row
            for row in labels.held_out_imports(connection)
            if names[row.class_index] in index
            and rules.rule_of(now, row.device, row.stream).allows("evaluate")
            and (tuple(row.shape), row.dtype) == (manifest.input.shape, manifest.input.dtype)
        ]
    if not rows:
        return 0
    some = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST])
    chosen = [rows[i] for i in some]
    parts = []
    for first in range(0, len(chosen), _AT_ONCE):
        bodies = _bodies(store, chosen[first : first + _AT_ONCE])
        if bodies:
            true = np.array([index[names[row.class_index]] for row, _ in bodies])
            parts.append(_said(manifest, onnx, np.stack([body for _, body in bodies]), true))
    if not parts:
        return 0
    made = Reference(*map(np.concatenate, zip(*parts, strict=True)))
    references.put(store, manifest.variant("cpu-int8").sha256, made, now_ms=now_ms)
    return len(made.true)


def _bodies(store: Store, rows: Sequence[Any]) -> list[tuple[Any, NDArray[np.generic]]]:
    """(row, sample) of those that can be read."""
    bodies = []
    for row, array in samples.sample_arrays(store, rows):
        if isinstance(array, StoreError):
            log.warning("reference: %s is left out: %s", row.id, array)
        else:
            bodies.append((row, array))
    return bodies


def _said(manifest: Manifest, onnx: bytes, x: NDArray[Any], true: NDArray[np.int64]) -> Reference:
    """Of the sound ones among samples x: (N, *shape), true: (N,); by the device's own scores and signals."""
    from models.evaluate import run_onnx

    has_embedding = bool(manifest.embedding)
    logits, embedding = run_onnx(
        onnx,
        x,
        logits=manifest.logits,
        embedding=manifest.embedding if has_embedding else manifest.logits,
        temperature=manifest.temperature,
    )
    scored = Scorer("margin").score(logits)
    sound = np.isfinite(scored.utility)
    if has_embedding:
        sound &= np.isfinite(embedding).all(axis=1)
    scored = Scored(scored.utility[sound], scored.label[sound], scored.confidence[sound])
    signals = Signals(manifest.reference, temperature=1.0, embedding=has_embedding)
    found = signals.rows(scored, logits[sound], embedding[sound] if has_embedding else None, count=int(sound.sum()))
    return Reference(found.values, found.labels.astype(np.int64), true[sound])
