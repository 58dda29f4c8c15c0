"""int8 or float: which form of a model is to ship?

int8 is half the time and a quarter of the bytes, and nearly always says the same. Nets with squeeze-and-excite or
hard-swish, and channels whose ranges are far apart, may lose much by it: then float ships, and the reason with it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models import evaluate

MIN_AGREEMENT = 0.97  # less blocks hardly anything, more refuses models over ties
MAX_LOSS = 0.01  # of accuracy
RUNS = (5, 200)  # of each file, least and most
TIMED_S = 1.0  # for all of them: a large model is run seldom


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """From where on int8 hurts. min_agreement: with float, in top classes; max_loss: of accuracy. Shares, 0..1."""

    min_agreement: float = MIN_AGREEMENT
    max_loss: float = MAX_LOSS


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The two forms on the same samples. loss: of accuracy, None without truth; low, high: its 95 % interval."""

    samples: int
    agreement: float
    float_accuracy: float | None
    int8_accuracy: float | None
    loss: float | None
    low: float | None
    high: float | None
    float_bytes: int
    int8_bytes: int
    float_ms: float  # median of a single sample on the machine that compared
    int8_ms: float


def judge(found: Compared, limits: Limits) -> str:
    """Why float is to ship; "" when int8 may.

    What is seen counts, not what is proved: float is the safe form, and the interval says how sure the loss is.
    """
    if found.int8_bytes >= found.float_bytes:
        return f"int8 is no smaller: {found.int8_bytes} bytes, float {found.float_bytes}: nothing in it is quantised"
    if found.agreement < limits.min_agreement:
        return (
            f"int8 says the same as float of {found.agreement:.1%} of {found.samples} samples, "
            f"at least {limits.min_agreement:.1%} is asked for"
        )
    if found.loss is not None and found.loss > limits.max_loss:
        return (
            f"int8 loses {100 * found.loss:.1f} points of accuracy on {found.samples} samples "
            f"(95 % interval {100 * (found.low or 0.0):.1f} to {100 * (found.high or 0.0):.1f}), "
            f"at most {100 * limits.max_loss:.1f} are allowed"
        )
    return ""


def paired_loss(before: NDArray[np.bool_], after: NDArray[np.bool_], *, confidence: float = 0.95) -> tuple[float, ...]:
    """Loss of a share between two sets of yes and no on the same samples, and its interval.

    Agresti and Min (Statistics in Medicine 2005): half a sample is added to each cell of the table.

    >>> before = np.arange(100) < 90
    >>> [round(number, 3) for number in paired_loss(before, before)]
    [0.0, -0.019, 0.019]
    >>> [round(number, 3) for number in paired_loss(before, np.arange(100) < 80)]
    [0.1, 0.037, 0.159]
    """
    n = len(before)
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    difference = (lost - won) / (n + 2.0)
    spread = math.sqrt(max(lost + won + 1.0 - (lost - won) ** 2 / (n + 2.0), 0.0)) / (n + 2.0)
    half = NormalDist().inv_cdf(0.5 + confidence / 2.0) * spread
    return (lost - won) / n, difference - half, difference + half


def compare(
    float_file: bytes,
    int8_file: bytes,
    x: NDArray[Any],
    y: NDArray[Any] | None,
    *,
    logits: str,
    clock: Callable[[], float] = time.perf_counter,
) -> Compared:
    """Hold the two files against each other on raw samples x: (N, *shape), y: (N,) or None."""
    said = [evaluate.run_onnx(file, x, logits=logits, embedding=logits)[0] for file in (float_file, int8_file)]
    right = [None if y is None else evaluate.top_class(one) == y for one in said]
    loss = (None,) * 3 if right[0] is None or right[1] is None else paired_loss(right[0], right[1])
    accuracies = [None if one is None else float(one.mean()) for one in right]
    took = medians([float_file, int8_file], x[:1], clock=clock)
    return Compared(
        samples=len(x),
        agreement=evaluate.agreement(*said),
        float_accuracy=accuracies[0],
        int8_accuracy=accuracies[1],
        loss=loss[0],
        low=loss[1],
        high=loss[2],
        float_bytes=len(float_file),
        int8_bytes=len(int8_file),
        float_ms=took[0],
        int8_ms=took[1],
    )


def by_agreement(
    float_file: bytes,
    int8_file: bytes,
    x: NDArray[Any],
    agreement: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Compared:
    """The same of what has no one class: `agreement` is the mean score of int8's answers by float's."""
    float_ms, int8_ms = medians([float_file, int8_file], x[:1], clock=clock)
    return Compared(
        samples=len(x),
        agreement=agreement,
        float_accuracy=None,
        int8_accuracy=None,
        loss=None,
        low=None,
        high=None,
        float_bytes=len(float_file),
        int8_bytes=len(int8_file),
        float_ms=float_ms,
        int8_ms=int8_ms,
    )


def medians(files: list[bytes], sample: NDArray[Any], *, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Median ms of a run of each file on sample (1, *shape), one thread; in turns, so that noise meets all alike."""
    runs = []
    for file in files:
        session = evaluate.open_session(file)
        runs.append(partial(session.run, None, {session.get_inputs()[0].name: sample}))
    for run in runs:
        run()  # the first allocates
    took: list[list[float]] = [[] for _ in files]
    began = clock()
    while len(took[0]) < RUNS[0] or (len(took[0]) < RUNS[1] and clock() - began < TIMED_S):
        for run, times in zip(runs, took, strict=True):
            start = clock()
            run()
            times.append(1000.0 * (clock() - start))
    return [statistics.median(times) for times in took]
