"""What did it save, and how sure is that?

Pure: cells in, figures out. Intervals are 95 % over seeds (Student's t). `saving` is the number of labels that random
would have needed for the accuracy that a strategy ended with, over the labels it used; it comes from the mean curve of
the reference, made never to fall. A saving at the end of the reference is a lower bound, and
marked so. Levels are set by random alone: shares of what it gains with the budget's labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from server.backtest.grid import Results
from server.backtest.replay import Cell, Reference

LEVELS = (0.5, 0.75, 1.0)  # of random's gain; lower says nothing, higher is not reached by all
PARTS = 20  # windows of the stream, for the use of the budget

Interval = tuple[float, float]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over seeds; the interval is None with one seed."""

    value: float
    interval: Interval | None


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """An accuracy, and the labels it takes. `used`: None when it is not reached."""

    accuracy: float
    random_needs: float
    used: float | None

    @property
    def ratio(self) -> float | None:
        """Labels that random needs, over those used."""
        return self.random_needs / self.used if self.used else None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One strategy with one budget, over all seeds."""

    strategy: str
    budget: float
    labels: list[float]  # mean, of each model
    accuracy: list[Estimate]  # of each model
    gain: Estimate  # accuracy at the end over that of `random`, of the same seed and budget
    saving: Estimate
    lower_bound: bool  # the saving is at least this
    levels: list[Level]
    then: list[Estimate]  # accuracy of each model on the test set of its moment: another one where the world changes
    online: Estimate  # accuracy of what ran, on the whole stream: what the users got
    by_stretch: list[Estimate]  # the same for each stretch between two models
    spent_share: float
    by_part: list[float]  # share spent in each of PARTS windows of the stream, mean of the seeds
    by_part_most: list[float]  # the same, of the seed that spent most there
    overdraft: float  # the worst of all seeds
    arms: list[dict[str, float]]  # of a portfolio: mean share of each arm, before the first round and after each


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """What random labels teach: the mean of all seeds, made never to fall."""

    labels: list[float]
    accuracy: list[float]
    half: list[float]  # half the interval of each mean

    def needs(self, accuracy: float) -> float:
        """Labels for an accuracy, between 0 and the curve's end."""
        place = np.interp(accuracy, self.accuracy, self._places(self.labels))
        return float(np.exp(place) - self._shift)

    def reaches(self, labels: float) -> float:
        """Accuracy with so many labels."""
        return float(np.interp(self._places([labels])[0], self._places(self.labels), self.accuracy))

    # Between two points accuracy runs straight over the logarithm of the labels, as learning curves nearly do. Over the
    # labels themselves the chord lies below the curve: random then seems to need more than it does.

    @property
    def _shift(self) -> float:
        """Gives no label at all a place: half the smallest size."""
        return self.labels[1] / 2.0

    def _places(self, labels: Sequence[float]) -> NDArray[np.float64]:
        places: NDArray[np.float64] = np.log(np.asarray(labels) + self._shift)
        return places


def lines(results: Results) -> tuple[list[Line], Curve]:
    """Every strategy and budget, and the curve that they are held against."""
    without = {cell.seed: cell.accuracy[0] for cell in results.cells}
    curve = _curve(results.references, list(without.values()))
    groups: dict[tuple[float, str], list[Cell]] = {}
    for cell in results.cells:
        groups.setdefault((cell.budget, cell.strategy), []).append(cell)
    return [_line(cells, groups[budget, "random"], curve) for (budget, _), cells in groups.items()], curve


def estimate(values: Sequence[float] | NDArray[np.float64]) -> Estimate:
    """Mean and interval.

    >>> estimate([2.0, 2.0])
    Estimate(value=2.0, interval=(2.0, 2.0))
    """
    mean, half = float(np.mean(values)), _half(values)
    return Estimate(value=mean, interval=None if math.isinf(half) else (mean - half, mean + half))


def accuracy_of(values: Sequence[float] | NDArray[np.float64]) -> Estimate:
    """As `estimate`, of shares: the interval of few seeds is not to leave 0..1.

    >>> accuracy_of([0.9, 1.0]).interval[1]
    1.0
    """
    made = estimate(values)
    if made.interval is None:
        return made
    return Estimate(value=made.value, interval=(max(0.0, made.interval[0]), min(1.0, made.interval[1])))


def _half(values: Sequence[float] | NDArray[np.float64]) -> float:
    free = len(values) - 1
    if free < 1:
        return math.inf
    return float(stdtrit(free, 0.975)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _curve(references: Sequence[Reference], without: Sequence[float]) -> Curve:
    """The first point is no label at all."""
    table = np.array([one.accuracy for one in references])
    half = [_half(table[:, column]) for column in range(table.shape[1])]
    mean = _never_falling([float(np.mean(without)), *table.mean(axis=0).tolist()])
    rising = [value + 1e-12 * place for place, value in enumerate(mean)]  # np.interp wants no ties
    return Curve(labels=[0.0, *references[0].labels], accuracy=rising, half=[_half(without), *half])


def _never_falling(values: Sequence[float]) -> list[float]:
    """The nearest sequence that never falls (pool adjacent violators, Ayer et al. 1955).

    >>> _never_falling([1.0, 3.0, 2.0, 4.0])
    [1.0, 2.5, 2.5, 4.0]
    """
    pools: list[list[float]] = []
    for value in values:
        pools.append([value])
        while len(pools) > 1 and float(np.mean(pools[-2])) > float(np.mean(pools[-1])):
            pools[-2:] = [[*pools[-2], *pools[-1]]]
    return [float(np.mean(pool)) for pool in pools for _ in pool]


def _line(cells: list[Cell], at_random: list[Cell], curve: Curve) -> Line:
    labels = np.array([cell.labels for cell in cells]).mean(axis=0)
    accuracy = np.array([cell.accuracy for cell in cells])
    ends, used = estimate(accuracy[:, -1]), float(labels[-1])
    gain = accuracy[:, -1] - np.array([cell.accuracy[-1] for cell in at_random])
    saving = _saving(ends, used, curve)
    return Line(
        strategy=cells[0].strategy,
        budget=cells[0].budget,
        labels=labels.tolist(),
        accuracy=[accuracy_of(column) for column in accuracy.T],
        gain=estimate(gain),
        saving=saving,
        lower_bound=ends.value >= curve.accuracy[-1],
        levels=_levels(labels, accuracy.mean(axis=0), cells[0], curve),
        then=[accuracy_of(column) for column in np.array([cell.then or cell.accuracy for cell in cells]).T],
        online=accuracy_of([_online(cell) for cell in cells]),
        by_stretch=[accuracy_of(column) for column in np.array([cell.online for cell in cells]).T],
        spent_share=float(np.mean([len(cell.rows) / cell.length for cell in cells])),
        by_part=_by_part(cells).mean(axis=0).tolist(),
        by_part_most=_by_part(cells).max(axis=0).tolist(),
        overdraft=max(cell.overdraft for cell in cells),
        arms=_arms(cells),
    )


def _saving(ends: Estimate, used: float, curve: Curve) -> Estimate:
    """The interval has the noise of both curves in it, as independent."""
    used = max(used, 1.0)
    value = curve.needs(ends.value) / used
    if ends.interval is None:
        return Estimate(value=value, interval=None)
    nearest = int(np.argmin(np.abs(np.array(curve.accuracy) - ends.value)))
    half = math.hypot(ends.interval[1] - ends.value, curve.half[nearest])
    return Estimate(
        value=value, interval=(curve.needs(ends.value - half) / used, curve.needs(ends.value + half) / used)
    )


def _levels(labels: NDArray[np.float64], accuracy: NDArray[np.float64], cell: Cell, curve: Curve) -> list[Level]:
    start = curve.accuracy[0]
    gained = curve.reaches(cell.budget * cell.length) - start
    targets = [start + share * gained for share in LEVELS]
    return [
        Level(accuracy=target, random_needs=curve.needs(target), used=_first(labels, accuracy, target))
        for target in targets
    ]


def _first(labels: NDArray[np.float64], accuracy: NDArray[np.float64], target: float) -> float | None:
    """Labels at which a curve first reaches a level."""
    above = np.flatnonzero(accuracy >= target - 1e-9)
    if not len(above):
        return None
    after = int(above[0])
    if after == 0:
        return float(labels[0])
    part = (target - accuracy[after - 1]) / (accuracy[after] - accuracy[after - 1])
    return float(labels[after - 1] + part * (labels[after] - labels[after - 1]))


def _arms(cells: list[Cell]) -> list[dict[str, float]]:
    rounds = zip(*(cell.arms for cell in cells), strict=True)
    return [{arm: float(np.mean([one[arm] for one in seeds])) for arm in seeds[0]} for seeds in rounds]


def _online(cell: Cell) -> float:
    """Stretches are of one length, but for rounding."""
    return float(np.mean(cell.online))


def _by_part(cells: list[Cell]) -> NDArray[np.float64]:
    """(seeds, PARTS) share spent."""
    return np.array(
        [np.histogram(cell.rows, bins=PARTS, range=(0, cell.length))[0] * (PARTS / cell.length) for cell in cells]
    )
