"""How good is a model, and how sure may one be?

`run_onnx` runs the very file that ships; everything else is plain numpy on its logits: (N, C), or (N, T, C) of T heads,
of which the mean of their probabilities counts, as on the device (edge_agent/choose/committee.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from edge_agent.choose.committee import consensus
from edge_agent.contract.errors import IncompatibleError

Floats = NDArray[np.float32]
Each = Callable[[NDArray[Any], NDArray[Any], float], NDArray[np.float64]]
ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(kind for kind in vars(ort_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)
"""What onnxruntime raises for a model or a feed that it refuses; its own have no root but Exception."""
TEMPERATURE_MIN, TEMPERATURE_MAX = 0.05, 20.0


def open_session(onnx: bytes, *, threads: int = 1, fused: bool = True) -> ort.InferenceSession:
    """A CPU session without spinning threads; IncompatibleError when onnxruntime refuses the file.

    `fused`: as it runs everywhere; else node by node, as the graph is written.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it refuses is raised, and whoever asked says it
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not fused:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except ORT_ERRORS as error:
        raise IncompatibleError(f"onnxruntime {ort.__version__} refuses the model: {error}") from error


def run_onnx(
    onnx: bytes,
    x: NDArray[Any],
    *,
    logits: str = "logits",
    embedding: str = "embedding",
    batch: int = 256,
    threads: int = 1,
    temperature: float = 1.0,
) -> tuple[Floats, Floats]:
    """Logits (N, C) over the temperature and embedding (N, D), both float32, of raw samples x: (N, *shape).

    Of several heads the logits are what these say as one. IncompatibleError as of `run_session`, and when onnxruntime
    refuses the file.
    """
    session = open_session(onnx, threads=threads)
    said, embedded = run_session(session, x, logits=logits, embedding=embedding, batch=batch)
    return as_one(said, temperature), embedded


def run_outputs(
    session: ort.InferenceSession, x: NDArray[Any], names: Sequence[str], *, batch: int = 256
) -> list[Floats]:
    """Outputs by name, each with a row a sample, of raw samples x: (N, *shape).

    A graph whose batch axis is fixed is fed that many at a time; the last row, again, fills what is missing.

    Raises:
        IncompatibleError: onnxruntime refuses the samples, or the names of the outputs.
    """
    entry = session.get_inputs()[0]
    fixed = entry.shape[0] if isinstance(entry.shape[0], int) else 0
    step = fixed or batch
    missing = -len(x) % fixed if fixed else 0
    feed = np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing else x
    try:
        parts = [session.run(list(names), {entry.name: feed[i : i + step]}) for i in range(0, len(feed), step)]
    except ORT_ERRORS as error:
        raise IncompatibleError(f"the model cannot be run on {x.dtype} {x.shape}: {error}") from error
    return [np.concatenate(part)[: len(x)] for part in zip(*parts, strict=True)]


def run_session(
    session: ort.InferenceSession, x: NDArray[Any], *, logits: str, embedding: str, batch: int = 256
) -> tuple[Floats, Floats]:
    """Logits (N, C), or (N, T, C) of T heads, and embedding (N, D), float32, of x; as of `run_outputs`."""
    first, second = run_outputs(session, x, [logits, embedding], batch=batch)
    return first, second


def as_one(logits: NDArray[Any], temperature: float = 1.0) -> Floats:
    """Logits (N, C) over the temperature; of T heads (N, T, C) those whose softmax is the mean of the heads'.

    >>> one_sure, other_not = [[[9.0, 0.0], [0.0, 0.0]]], [[9.0, 0.0]]
    >>> softmax(as_one(np.array(one_sure))).round(2).tolist(), softmax(np.array(other_not)).round(2).tolist()
    ([[0.75, 0.25]], [[1.0, 0.0]])
    """
    scaled = np.asarray(logits, np.float32) / np.float32(temperature)
    return consensus(np.ascontiguousarray(scaled.transpose(1, 0, 2))) if scaled.ndim == 3 else scaled


def softmax(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (N, C), rows sum to 1."""
    if np.ndim(logits) == 3:
        logits, temperature = as_one(logits, temperature), 1.0
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probs: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probs


def nll(logits: NDArray[Any], y: NDArray[Any], temperature: float = 1.0) -> float:
    """Mean negative log likelihood of the truth y: (N,), in nats."""
    return float(np.mean(_nll(logits, y, temperature)))


def _nll(logits: NDArray[Any], y: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    if np.ndim(logits) == 3:
        logits, temperature = as_one(logits, temperature), 1.0
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    each: NDArray[np.float64] = np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(y)), y]
    return each


def fit_temperature(logits: NDArray[Any], y: NDArray[Any], *, each: Each | None = None) -> float:
    """The temperature that makes the probabilities most likely (Guo et al. 2017), within 0.05 .. 20.

    The likelihood has one peak in the logarithm of the temperature, so a golden-section search finds it. `each`: (N,)
    of another likelihood than that of a class, negative and logarithmic.
    """
    each = each or _nll
    golden = (math.sqrt(5.0) - 1.0) / 2.0
    low, high = math.log(TEMPERATURE_MIN), math.log(TEMPERATURE_MAX)
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if each(logits, y, math.exp(left)).mean() <= each(logits, y, math.exp(right)).mean():
            high = right
        else:
            low = left
    return math.exp((low + high) / 2.0)


def worthwhile_temperature(logits: NDArray[Any], y: NDArray[Any], *, folds: int = 5, each: Each | None = None) -> float:
    """The fitted temperature if samples that it was not fitted on gain by it, else 1.

    Cross-fitted: each fold is told by the others' temperature. The mean gain in likelihood must be more than its
    standard error: a model that is calibrated already is as often made worse as better.
    """
    each = each or _nll
    if len(y) < 2 * folds:
        return 1.0
    gains = np.empty(len(y))
    for fold in range(folds):
        mine = np.arange(len(y)) % folds == fold
        fitted = fit_temperature(logits[~mine], y[~mine], each=each)
        gains[mine] = each(logits[mine], y[mine], 1.0) - each(logits[mine], y[mine], fitted)
    return fit_temperature(logits, y, each=each) if gains.mean() > gains.std(ddof=1) / math.sqrt(len(y)) else 1.0


def accuracy(logits: NDArray[Any], y: NDArray[Any]) -> float:
    """Share of samples whose top class is the truth, 0..1."""
    return float(np.mean(top_class(logits) == y))


def top_class(logits: NDArray[Any]) -> NDArray[np.intp]:
    """(N,) index of the class that is said."""
    top: NDArray[np.intp] = np.argmax(as_one(logits) if np.ndim(logits) == 3 else logits, axis=1)
    return top


def macro_f1(logits: NDArray[Any], y: NDArray[Any]) -> float:
    """Mean F1 over the classes that occur in y, 0..1: a rare class counts as much as a common one."""
    predicted = top_class(logits)
    scores = []
    for label in np.unique(y):
        hits = np.count_nonzero((predicted == label) & (y == label))
        scores.append(2.0 * hits / (np.count_nonzero(predicted == label) + np.count_nonzero(y == label)))
    return float(np.mean(scores))


def ece(probs: NDArray[Any], y: NDArray[Any], *, bins: int = 15) -> float:
    """Expected calibration error, 0..1: mean gap of confidence and accuracy, over bins of equal mass.

    Equal mass (Nguyen & O'Connor 2015), because nearly all confidences of a good model lie in one bin of equal width.
    """
    confidence = probs.max(axis=1)
    right = np.argmax(probs, axis=1) == y
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return float(sum(abs(confidence[part].mean() - right[part].mean()) * len(part) for part in parts) / len(order))


def wilson_interval(k: float, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share of which k of n were seen, or of a mean of k / n (Wilson 1927); (0, 1) when n is 0.

    >>> low, high = wilson_interval(90, 100)
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    centre = (k + z * z / 2.0) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4.0)
    return max(0.0, centre - half), min(1.0, centre + half)


def agreement(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Share of rows on which two sets of logits have the same top class, 0..1."""
    return float(np.mean(top_class(a) == top_class(b)))
