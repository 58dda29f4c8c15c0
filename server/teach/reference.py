"""What does a model say of samples whose truth is known?

Run once, where a candidate is judged or an artifact is added: the file that ships, on the held-out imports. It is kept
with the file (store/references.py), not in the manifest: devices have no use for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Scored, Scorer
from edge_agent.choose.signals import Signals
from edge_agent.contract.artifact import Manifest
from server.store import labels, references, samples
from server.store.references import Reference
from server.store.store import Store

MOST = 4000  # samples; more is surer, and takes longer and a larger blob
_AT_ONCE = 256  # read and run: more only takes memory


def learn(store: Store, manifest: Manifest, onnx: bytes, *, now_ms: int) -> int:
    """Make the reference of a model and keep it; returns of how many samples, 0 when none are held out that fit."""
    index = {name: number for number, name in enumerate(manifest.classes)}
    with store.database.read() as connection:
        names = labels.names(connection)
        rows = [
            row
            for row in labels.held_out_imports(connection)
            if names[row.class_index] in index
            and (tuple(row.shape), row.dtype) == (manifest.input.shape, manifest.input.dtype)
        ]
    if not rows:
        return 0
    some = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST])
    chosen = [rows[i] for i in some]
    true = np.array([index[names[row.class_index]] for row in chosen])
    parts = [_run(store, manifest, onnx, chosen[i : i + _AT_ONCE]) for i in range(0, len(chosen), _AT_ONCE)]
    sound = np.concatenate([part[2] for part in parts])
    made = Reference(
        np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), true[sound]
    )
    references.put(store, manifest.variant("cpu-int8").sha256, made, now_ms=now_ms)
    return len(made.true)


def _run(
    store: Store, manifest: Manifest, onnx: bytes, rows: Sequence[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """(values, predicted) of the sound samples, and which are (N,): the device's own scores and signals."""
    from models.evaluate import run_onnx

    x = np.stack([samples.sample_array(store.blobs, row) for row in rows])
    has_embedding = bool(manifest.embedding)
    logits, embedding = run_onnx(
        onnx, x, logits=manifest.logits, embedding=manifest.embedding if has_embedding else manifest.logits
    )
    scored = Scorer("margin", temperature=manifest.temperature).score(logits)
    sound = np.isfinite(scored.utility) & (np.isfinite(embedding).all(axis=1) | (not has_embedding))
    scored = Scored(scored.utility[sound], scored.label[sound], scored.confidence[sound])
    signals = Signals(manifest.reference, temperature=manifest.temperature, embedding=has_embedding)
    found = signals.rows(scored, logits[sound], embedding[sound] if has_embedding else None, count=int(sound.sum()))
    return found.values, found.labels.astype(np.int64), sound
