"""What would as many labels have taught, picked at random?

The same first model, retrained for every version that the server published from the fleet's labels, in the same way,
with as many labels of the same stretch of the streams, as many of them held out. Several draws: which samples of a few
hundred were drawn is worth a point or two by itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models import train
from models.data import Labelled, finite_rows
from models.package import Packaged, package
from models.trainer import settings_of
from server.config import Teach
from server.demo.arms import Model
from server.demo.scenario import Scenario
from server.demo.stage import Advance
from server.errors import TrainingError
from server.store import versions
from server.store.store import Store
from server.teach.candidate import CALIBRATION_SAMPLES, told


class Picked(NamedTuple):
    """What one round of the server had to learn from: labels, and how far each stream had come."""

    version: int
    labels: int
    trained: int  # of them; the others were held out
    until: list[int]  # row per stream


def at_random(
    store: Store,
    scenario: Scenario,
    picks: Sequence[Picked],
    teach: Teach,
    *,
    seed: int,
    draws: int,
    advance: Advance,
) -> list[list[Model]]:
    """Per draw, a model for each of `picks`. Draws are taught in processes of their own, a core each."""
    with store.database.read() as connection:
        first = versions.get(connection, 1)
    if first is None or not first.weights_sha256:
        raise TrainingError("the first model has no weights to go on from")
    one = partial(_taught, scenario, picks, store.blobs.get(first.weights_sha256), teach)
    seeds = [(seed, 1 + draw) for draw in range(draws)]
    found = []
    with _processes(min(draws, os.cpu_count() or 1)) as pool:  # ends them, whatever happens
        for models in pool.imap(one, seeds):
            found.append(models)
            advance(len(found) / draws)
    return found


def _processes(count: int) -> multiprocessing.pool.Pool:
    """Ctrl-C is the parent's to answer."""
    context = multiprocessing.get_context("spawn")
    return context.Pool(count, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))


def _taught(
    scenario: Scenario, picks: Sequence[Picked], weights: bytes, teach: Teach, seed: tuple[int, int]
) -> list[Model]:
    """One draw, which keeps what it has picked from round to round."""
    rng = np.random.default_rng(seed)
    order = [rng.permutation(np.flatnonzero(finite_rows(stream.x))) for stream in scenario.streams]
    models = []
    for pick in picks:
        weights, packaged = _retrain(_draw(scenario, order, pick, rng), scenario, weights, teach)
        models.append(Model(pick.version, packaged.onnx, packaged.manifest))
    return models


def _draw(scenario: Scenario, order: list[NDArray[np.int64]], pick: Picked, rng: np.random.Generator) -> Labelled:
    """Base and as many random samples of the streams so far; earlier draws stay drawn, by the fixed order."""
    seen = [rows[rows < until] for rows, until in zip(order, pick.until, strict=True)]
    pairs = [(index, int(row)) for index, rows in enumerate(seen) for row in rows]
    # A place in each stream's fixed order, as a share of what was seen of it: every stream gives in proportion.
    rank = np.concatenate([(np.arange(len(rows)) + rng.random()) / max(1, len(rows)) for rows in seen])
    kept = [pairs[index] for index in np.argsort(rank, kind="stable")[: pick.trained]]
    x = np.stack([scenario.streams[index].x[row] for index, row in kept])
    y = np.array([scenario.streams[index].y[row] for index, row in kept], np.int64)
    return Labelled(np.concatenate([scenario.base.x, x]), np.concatenate([scenario.base.y, y]), scenario.names)


def _retrain(data: Labelled, scenario: Scenario, weights: bytes, teach: Teach) -> tuple[bytes, Packaged]:
    settings = settings_of(told(teach), data.x.shape[1:], str(data.x.dtype))
    net = train.fit(data.x, data.y, classes=len(data.names), settings=settings, parent=weights)
    some = np.random.default_rng(teach.seed).permutation(len(data.x))[:CALIBRATION_SAMPLES]
    holdout = (scenario.holdout.x, scenario.holdout.y)
    packaged = package(
        net, name="random", names=data.names, version=1, calibration=data.x[some], holdout=holdout, int8=teach.int8
    )
    return net.weights(), packaged
