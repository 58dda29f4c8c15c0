"""What does a model answer, as shipped?

The very file that devices run, on onnxruntime; of a committee the mean of the members' probabilities counts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import Manifest
from server.teach.gates.answers import Said
from server.teach.gates.held import Names
from server.teach.gates.paired import Floats

if TYPE_CHECKING:
    from models.kinds.kind import Outputs

LATENCY_SAMPLES = 200
LEAST_LIKELY = 1e-12  # of a class that a model does not know: its logarithm must be a number


class Model(Protocol):
    """Something with a manifest that can be run."""

    @property
    def manifest(self) -> Manifest:
        """What is stated of it."""

    @property
    def onnx(self) -> bytes:
        """The file."""


def run(model: Model, x: NDArray[Any]) -> Outputs:
    """All that it gives of samples x: (N, *shape)."""
    from models.kinds.kind import run

    return run(model.onnx, model.manifest, x)


def members(model: Model, ran: Outputs) -> NDArray[np.float64]:
    """Logits (N, T, C) of T members, 1 where it is no committee."""
    return np.asarray(ran.logits, np.float64).reshape(len(ran.logits), -1, len(model.manifest.classes))


def logits(model: Model, x: NDArray[Any]) -> NDArray[np.float64]:
    """(N, T, C) of samples x, as `members`."""
    return members(model, run(model, x))


def outputs(model: Model, x: NDArray[Any], names: Sequence[str]) -> list[NDArray[np.float32]]:
    """What the graph gives of samples x, by the names of its outputs."""
    from models.evaluate import open_session, run_outputs

    return run_outputs(open_session(model.onnx), x, names)


def probabilities(logits: NDArray[np.float64], temperature: float) -> Floats:
    """(N, C): the mean of the members'; zeros where a logit is not finite, which is no answer."""
    sound = np.asarray(np.isfinite(logits).all(axis=(1, 2)))
    scaled = np.where(sound[:, None, None], logits, 0.0) / temperature
    powers = np.exp(scaled - scaled.max(axis=2, keepdims=True))
    mean: Floats = (powers / powers.sum(axis=2, keepdims=True)).mean(axis=1) * sound[:, None]
    return mean


def top(probs: Floats, names: Names) -> Names:
    """(N,) the name of the likeliest class; "" where there is no answer."""
    return np.where(probs.max(axis=1) > 0.0, names[np.argmax(probs, axis=1)], "")


def said(model: Model, ran: Outputs, label: Names) -> Said:
    """What it says, having given `ran`, of samples whose classes are `label`: (N,)."""
    manifest = model.manifest
    probs = probabilities(members(model, ran), manifest.temperature)
    names = np.array(manifest.classes, dtype=np.str_)
    of_label = likelihood(probs, names, label)
    brier = np.square(probs).sum(axis=1) - 2.0 * of_label + 1.0
    return Said(top(probs, names), probs.max(axis=1), brier, -np.log(np.maximum(of_label, LEAST_LIKELY)))


def likelihood(probs: Floats, names: Names, label: Names) -> Floats:
    """(N,) the probability of each label; 0 of one that the model does not know."""
    order = np.argsort(names)
    place = np.minimum(np.searchsorted(names, label, sorter=order), len(names) - 1)
    column = order[place]
    return np.where(names[column] == label, probs[np.arange(len(label)), column], 0.0)


def right(model: Model, x: NDArray[Any], label: Names, *, among: Names) -> NDArray[np.bool_]:
    """(N,) whether the likeliest class of those in `among`, by name, is the label."""
    names = np.array(model.manifest.classes, dtype=np.str_)
    probs = np.where(np.isin(names, among), probabilities(logits(model, x), 1.0), 0.0)
    found: NDArray[np.bool_] = top(probs, names) == label
    return found


def strangeness(model: Model, x: NDArray[Any]) -> dict[str, Floats]:
    """Scores (N,), larger where stranger: energy, minus the largest logit, distance to the nearest class centre.

    The last is Mahalanobis' (Lee et al., NeurIPS 2018), in the directions that the manifest states.
    """
    manifest = model.manifest
    ran = run(model, x)
    logits_ = np.nan_to_num(members(model, ran).mean(axis=1) / manifest.temperature)
    most = logits_.max(axis=1)
    found = {"energy": -(most + np.log(np.exp(logits_ - most[:, None]).sum(axis=1))), "max_logit": -most}
    if manifest.embedding and manifest.reference.whitening is not None:
        whitening = np.asarray(manifest.reference.whitening.array(), np.float64)
        centres = np.asarray(manifest.reference.class_centres.array(), np.float64) @ whitening
        away = (np.nan_to_num(ran.embedding) @ whitening)[:, None] - centres[None]
        found["mahalanobis"] = np.square(away).sum(axis=2).min(axis=1)
    return found


def latency_ms(onnx: bytes, x: NDArray[Any]) -> float:
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
