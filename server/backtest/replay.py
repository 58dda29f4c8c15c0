"""How good does the model become when this strategy chooses?

    stretch of the stream -> model of the moment -> chooser -> rows -> labels, `delay` samples later -> next model

Every model is taught from scratch, on the first labels and all that have arrived, until it has converged: a fixed
number of epochs would under-train small sets, or large ones, and flatter whoever has the other. The reference is the
same with rows drawn from the whole stream at random, at sizes from a quarter of the smallest budget to four times the
largest, so that "random would have needed so many" is read off and not guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from models import evaluate, train
from models.data import Labelled
from models.taps import Taps
from server.backtest.crew import Arrived, gather
from server.backtest.material import Material

BATCH = 512
REFERENCE_SIZES = 8
DRAWS = 2  # of the reference for each seed: everything is measured by it, and one draw is worth points by luck alone
REFERENCE = 2  # keeps its random numbers apart from those of the split (0) and of the crew
Classifier = Callable[[NDArray[Any]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Raw samples (N, ...) to logits (N, C) and embedding (N, D)."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same for every strategy."""

    rounds: int = 10  # models taught along the stream
    delay: int = 200  # samples until a label arrives
    epochs: int = 20  # at least
    steps: int = 300  # of training, at least: small sets get more epochs
    threads: int = 1
    recipe: str = ""  # as of models.recipes; empty: by the shape of a sample
    learning_rate: float = train.Settings().learning_rate
    label_smoothing: float = train.LABEL_SMOOTHING


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What one strategy did with one budget and one seed."""

    strategy: str
    budget: float
    seed: int
    length: int  # of the stream
    labels: list[int]  # taught with, first model first
    accuracy: list[float]  # on the test set as it is in the end, of each model
    online: list[float]  # on each stretch of the stream, of the model that ran there
    rows: list[int]  # chosen
    overdraft: float  # the most by which any window w of a device's stream spent more than budget * w, in labels
    then: list[float] = []  # accuracy on the test set of its moment, where the world changes on the way
    arms: list[dict[str, float]] = []  # of a portfolio: part of the devices for each arm, before and after every round


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What labels drawn at random from the stream would teach, one seed."""

    seed: int
    labels: list[int]
    accuracy: list[float]


def play(material: Material, first: Classifier, *, strategy: str, budget: float, seed: int, settings: Settings) -> Cell:
    """Replay the stream once; `first` is the model that runs at its start."""
    stream, devices = material.stream, _devices(material.stream)
    names = np.unique(devices).tolist()
    crew = gather(strategy, budget, names, seed=seed)
    before, model, rows = first, first, []
    taught: list[int] = []
    fresh: list[int] = []  # rows that the model knows and the one before did not
    labels, models, online, shares = [0], [(model, 0)], [], [crew.shares()]
    crew.model_changed(_known(model, material, []))
    bounds = np.linspace(0, len(stream.y), settings.rounds + 1).astype(int).tolist()
    for begin, end in pairwise(bounds):
        logits, embedding = model(stream.x[begin:end])
        online.append(evaluate.accuracy(logits, stream.y[begin:end]))
        for name in names:
            own = np.flatnonzero(devices[begin:end] == name)
            rows += crew.choose(name, begin + own, logits[own], embedding[own])
        arrived = sorted(row for row in rows if row + settings.delay <= end or end == len(stream.y))
        if len(arrived) > len(taught):
            came = sorted(set(arrived) - set(taught))
            crew.learn(Arrived(came, stream.x[came], stream.y[came], before, model, fresh, stream.x[fresh]))
            before, fresh, taught = model, came, arrived
            model = teach(material, arrived, seed=seed, settings=settings)
            crew.model_changed(_known(model, material, arrived))
        labels.append(len(taught))
        models.append((model, end - 1))
        shares.append(crew.shares())
    return Cell(
        strategy=strategy,
        budget=budget,
        seed=seed,
        length=len(stream.y),
        labels=labels,
        accuracy=[judge(one, material.test) for one, _ in models],
        then=[judge(one, material.test_at(row)) for one, row in models] if material.stages else [],
        online=online,
        rows=sorted(rows),
        overdraft=max(overdraft(own, budget) for own in _by_device(rows, devices, names)),
        arms=shares if shares[0] else [],
    )


def _known(model: Classifier, material: Material, arrived: Sequence[int]) -> NDArray[np.float32]:
    """How the model sees what is labelled."""
    return model(np.concatenate([material.base.x, material.stream.x[list(arrived)]]))[1]


def reference(material: Material, *, budgets: Sequence[float], seed: int, settings: Settings) -> Reference:
    """Teach with random rows of the stream, smaller sets within larger ones; the mean of some draws."""
    length = len(material.stream.y)
    low, high = max(5.0, min(budgets) * length / 4.0), min(float(length), max(budgets) * length * 4.0)
    sizes = sorted({round(size) for size in np.geomspace(min(low, high), high, REFERENCE_SIZES)})
    orders = [np.random.default_rng([seed, REFERENCE, draw]).permutation(length).tolist() for draw in range(DRAWS)]
    accuracy = [
        [judge(teach(material, sorted(order[:size]), seed=seed, settings=settings), material.test) for size in sizes]
        for order in orders
    ]
    return Reference(seed=seed, labels=sizes, accuracy=np.mean(accuracy, axis=0).tolist())


def teach(material: Material, rows: Sequence[int], *, seed: int, settings: Settings) -> Classifier:
    """A model taught from scratch with the first labels and these rows of the stream."""
    base, stream = material.base, material.stream
    x, y = np.concatenate([base.x, stream.x[list(rows)]]), np.concatenate([base.y, stream.y[list(rows)]])
    batch = train.Settings().batch_size
    epochs = max(settings.epochs, math.ceil(settings.steps * batch / len(x)))
    how = train.Settings(
        recipe=settings.recipe,
        epochs=epochs,
        learning_rate=settings.learning_rate,
        threads=settings.threads,
        seed=seed,
        label_smoothing=settings.label_smoothing,
    )
    return _runner(train.fit(x, y, classes=len(base.names), settings=how))


def _runner(net: train.Net) -> Classifier:
    def run(x: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            parts = [net.module(torch.from_numpy(x[i : i + BATCH])) for i in range(0, len(x), BATCH)]
        return torch.cat([part[0] for part in parts]).numpy(), torch.cat([part[1] for part in parts]).numpy()

    return run


def from_onnx(onnx: bytes, taps: Taps) -> Classifier:
    """A model with these outputs; one without an embedding shows its logits instead."""
    return lambda x: evaluate.run_onnx(onnx, x, batch=1, logits=taps.logits, embedding=taps.embedding or taps.logits)


def judge(model: Classifier, test: Labelled) -> float:
    """Accuracy on the test set."""
    return evaluate.accuracy(model(test.x)[0], test.y)


def overdraft(rows: Sequence[int], budget: float) -> float:
    """The most by which any window of the stream spent more than `budget` times its length, in labels.

    >>> overdraft([10, 11, 12], 0.5)
    1.5
    """
    most = worst = 0.0
    last = None
    for row in sorted(rows):
        most = max(0.0, most - budget * (row - last)) + 1.0 if last is not None else 1.0
        last = row
        worst = max(worst, most - budget)
    return worst


def _by_device(rows: Sequence[int], devices: NDArray[Any], names: Sequence[Any]) -> Iterator[list[int]]:
    """Rows of the whole stream, as rows of each device's own."""
    chosen = np.zeros(len(devices), np.bool_)
    chosen[list(rows)] = True
    for name in names:
        yield np.flatnonzero(chosen[devices == name]).tolist()


def _devices(stream: Labelled) -> NDArray[Any]:
    return np.zeros(len(stream.y), np.int64) if stream.device is None else stream.device
