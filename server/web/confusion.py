"""How is a confusion matrix shown, and what is most often taken for what? Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from server.teach.gates.portrait import Bin, Portrait

STEPS = 9  # of colour
CLASSES_MAX = 40  # above, no eye finds anything in a matrix: the list of what is confused remains
WORST = 10
NO_ANSWER = "no answer"


class Cell(NamedTuple):
    """What of one class was taken for one."""

    n: int
    share: float  # of its class, weighted as the gates do
    heat: int  # 0..STEPS
    right: bool


class Line(NamedTuple):
    """One true class."""

    name: str
    n: int
    recall: float
    precision: float | None  # None: it was never said
    cells: Sequence[Cell]


class Mistake(NamedTuple):
    """One class taken for another."""

    truth: str
    said: str
    n: int
    share: float  # of the true class


class Shown(NamedTuple):
    """All of it."""

    names: Sequence[str]  # said, in the order of the cells
    lines: Sequence[Line]
    mistakes: Sequence[Mistake]  # the most samples first
    bins: Sequence[Bin]
    drawn: bool  # few enough classes for a matrix
    n: int


def of(kept: Any) -> Shown:
    """Of a portrait, as a run's report keeps it."""
    one = msgspec.convert(kept, type=Portrait)
    cells = {(truth, said): (n, weight) for truth, said, n, weight in one.cells}
    names = [name or NO_ANSWER for name in one.names]
    by_truth, by_said = _sums(one, 0), _sums(one, 1)
    lines = []
    for truth in sorted({truth for truth, _ in cells}):
        row = [_cell(cells.get((truth, said), (0, 0.0)), by_truth[truth], truth == said) for said in range(len(names))]
        mass = cells.get((truth, truth), (0, 0.0))[1]
        precision = mass / by_said[truth] if truth in by_said else None
        lines.append(Line(names[truth], sum(cell.n for cell in row), mass / by_truth[truth], precision, row))
    wrong = [
        Mistake(names[truth], names[said], n, weight / by_truth[truth])
        for (truth, said), (n, weight) in cells.items()
        if truth != said
    ]
    wrong.sort(key=lambda one: (-one.n, one.truth, one.said))
    total = sum(line.n for line in lines)
    return Shown(names, lines, wrong[:WORST], one.bins, len(names) <= CLASSES_MAX, total)


def _sums(one: Portrait, by: int) -> dict[int, float]:
    found: dict[int, float] = {}
    for truth, said, _, weight in one.cells:
        of = (truth, said)[by]
        found[of] = found.get(of, 0.0) + weight
    return found


def _cell(found: tuple[int, float], of_class: float, right: bool) -> Cell:
    n, weight = found
    share = weight / of_class
    return Cell(n, share, max(1, round(STEPS * share)) if n else 0, right)
