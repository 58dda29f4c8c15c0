"""What do candidate and champion say of what is held out, as shipped?

Here the models are run; what follows from their answers is decided by the pure rules of gates.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import Manifest
from server.teach import gates
from server.teach.dataset import Part

if TYPE_CHECKING:
    from models.package import Packaged

LATENCY_SAMPLES = 200


@dataclass(frozen=True)
class Champion:
    """The model to beat, and to go on from."""

    number: int
    manifest: Manifest
    onnx: bytes
    weights: bytes  # empty: none to go on from


def compare(
    part: Part, classes: Sequence[str], packaged: Packaged, champion: Champion | None
) -> tuple[gates.Held, dict[str, float]]:
    """Who was right on what is held out, and what that comes to."""
    label = np.array(classes, dtype=np.str_)[part.y]
    candidate = _right(packaged.manifest, packaged.onnx, part.x, label)
    before = _right(champion.manifest, champion.onnx, part.x, label) if champion else np.zeros_like(candidate)
    figures = {
        "onnx_bytes": float(len(packaged.onnx)),
        "latency_ms": _latency_ms(packaged.onnx, part.x),
        "fp32_accuracy": packaged.fp32_accuracy,
        **_accuracies("candidate", candidate, part),
    }
    if champion:
        figures |= {
            "champion_latency_ms": _latency_ms(champion.onnx, part.x),
            **_accuracies("champion", before, part),
        }
    held = gates.Held(candidate, before, part.stream, part.probability, part.device, label)
    return held, {key: value for key, value in figures.items() if value is not None}


def _accuracies(who: str, right: NDArray[np.bool_], part: Part) -> dict[str, float | None]:
    weight = 1.0 / part.probability
    return {
        f"{who}_{origin}_accuracy": gates.accuracy(right[rows], weight[rows])
        for origin, rows in (("stream", part.stream), ("import", ~part.stream))
    }


def _right(manifest: Manifest, onnx: bytes, x: NDArray[Any], label: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(N,) whether the model's top class, by name, is the label."""
    from models.evaluate import run_onnx

    embedding = manifest.embedding or manifest.logits  # one output is enough here
    logits, _ = run_onnx(onnx, x, logits=manifest.logits, embedding=embedding)
    named = np.array(manifest.classes, dtype=np.str_)[np.argmax(logits, axis=1)]
    right: NDArray[np.bool_] = named == label
    return right


def _latency_ms(onnx: bytes, x: NDArray[Any]) -> float:
    """Median milliseconds of one sample on this machine, one thread: to compare two models, not to promise."""
    from models.evaluate import open_session

    session = open_session(onnx)
    entry = session.get_inputs()[0].name
    times = []
    for i in range(min(LATENCY_SAMPLES, len(x))):
        started_s = time.perf_counter()
        session.run(None, {entry: x[i : i + 1]})
        times.append(time.perf_counter() - started_s)
    return float(np.median(times)) * 1000
