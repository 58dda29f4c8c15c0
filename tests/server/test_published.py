"""Do the baselines decide as their authors' library does?

`GOLDEN` is what scikit-activeml 1.0.1 decided; where that is installed it is asked again, sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.backtest import published, strategies

LENGTH, CLASSES, DIMENSIONS, SHARE = 400, 3, 6, 0.1
KNOWN = 12  # labelled from the start
Decide = Callable[[NDArray[Any], NDArray[Any]], list[int]]


class Drawn:
    """The random numbers of the library's managers, in their order: each normal starts from the next double."""

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed)

    def random(self) -> float:
        return float(self._state.random_sample())

    def normal(self, mean: float, sd: float, count: int) -> NDArray[np.float64]:
        return np.array([self._normal(mean, sd) for _ in range(count)])

    def _normal(self, mean: float, sd: float) -> float:
        before = self._state.get_state()
        drawn = float(self._state.normal(mean, sd))
        self._state.set_state(before)
        self._state.random_sample()
        return drawn


def stream() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Overlapping classes; the embedding says where a sample lies. From doubles of MT19937: the same everywhere."""
    state = np.random.RandomState(7)
    embedding = (4.0 * state.random_sample((LENGTH + KNOWN, DIMENSIONS)) - 2.0).astype(np.float32)
    weights = (2.0 * state.random_sample((DIMENSIONS, CLASSES)) - 1.0).astype(np.float32)
    return (embedding @ weights).astype(np.float32), embedding


def ours(name: str) -> list[int]:
    logits, embedding = stream()
    chooser = MAKE[name](SHARE, Drawn(3))
    chooser.model_changed(embedding[:KNOWN])
    rows: list[int] = []
    for begin, end in ((0, 130), (130, 131), (131, LENGTH)):  # in whatever stretches
        own = chooser.choose(logits[KNOWN:][begin:end], embedding[KNOWN:][begin:end])
        rows += [begin + row for row in own]
    return rows


MAKE: dict[str, Any] = {
    **{name: strategies.find(name) for name in strategies.PUBLISHED},
    "split": lambda share, rng: published.Threshold(share, rng, at_random=0.2),
}


def theirs(name: str) -> list[int]:
    """The library's decisions on the same stream, one sample at a time."""
    from skactiveml import stream as library
    from skactiveml.base import SkactivemlClassifier
    from skactiveml.stream import budgetmanager as managers

    logits, embedding = stream()
    probs = published.probabilities(logits)

    class Told(SkactivemlClassifier):  # type: ignore[misc]
        """Says what our model says of a row, which is handed in as its index beside the embedding."""

        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Told:  # noqa: N803
            return self

        def predict_proba(self, X: Any) -> Any:  # noqa: N803
            return np.array([probs[at[row.tobytes()]] for row in X])

    at = {row.astype(np.float64).tobytes(): index for index, row in enumerate(embedding)}
    seed = 3
    made = {
        "fixed": lambda: library.FixedUncertainty(
            classes=list(range(CLASSES)),
            budget_manager=managers.FixedUncertaintyBudgetManager(classes=list(range(CLASSES)), budget=SHARE),
        ),
        "variable": lambda: library.VariableUncertainty(
            budget_manager=managers.VariableUncertaintyBudgetManager(budget=SHARE)
        ),
        "random_variable": lambda: library.RandomVariableUncertainty(
            budget_manager=managers.RandomVariableUncertaintyBudgetManager(budget=SHARE, random_state=seed)
        ),
        "split": lambda: library.Split(
            budget_manager=managers.SplitBudgetManager(v=0.2, budget=SHARE, random_state=seed)
        ),
        "density": lambda: library.StreamDensityBasedAL(
            budget_manager=managers.DensityBasedSplitBudgetManager(budget=SHARE, random_state=seed)
        ),
        "pals": lambda: library.StreamProbabilisticAL(
            metric="rbf",
            metric_dict={"gamma": "mean"},
            budget_manager=managers.BalancedIncrementalQuantileFilter(budget=SHARE),
        ),
    }
    if name == "biqf":
        return _filtered(managers.BalancedIncrementalQuantileFilter(budget=SHARE), published.margins(probs[KNOWN:]))
    chooser, known, rows = made[name](), list(range(KNOWN)), []
    teller = Told(classes=list(range(CLASSES)))
    for index in range(KNOWN, KNOWN + LENGTH):
        sample = embedding[index : index + 1].astype(np.float64)
        labelled = embedding[known].astype(np.float64)
        # All of the first class: the library leaves the second out when it counts for the width of its kernel.
        asked, utilities = chooser.query(sample, clf=teller, X=labelled, y=np.zeros(len(known)), return_utilities=True)
        more = {"utilities": utilities} if name == "pals" else {}
        chooser.update(sample, asked, budget_manager_param_dict=more)
        if len(asked):
            rows.append(index - KNOWN)
            known.append(index)
    return rows


def _filtered(manager: Any, utilities: list[float]) -> list[int]:
    rows = []
    for index, utility in enumerate(utilities):
        one = np.array([utility])
        asked = manager.query_by_utility(one)
        manager.update(one, asked, one)
        rows += [index] if len(asked) else []
    return rows


GOLDEN: dict[str, list[int]] = {
    "split": [
        0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 14, 18, 27, 37, 48, 57, 67, 76, 85, 96, 105, 115, 125, 134, 143, 153,
        164, 172, 182, 192, 203, 215, 222, 231, 240, 250, 260, 270, 279, 290, 298, 308, 320, 327, 337, 349,
        357, 367, 376, 387, 396,
    ],
    "variable": [
        0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 17, 27, 36, 48, 57, 65, 75, 85, 94, 105, 114, 123, 133, 142, 152,
        162, 171, 181, 191, 200, 210, 219, 229, 239, 250, 259, 268, 279, 287, 297, 306, 320, 327, 337, 345,
        356, 365, 375, 384, 394,
    ],
    "random_variable": [
        0, 2, 3, 10, 11, 13, 14, 15, 16, 20, 23, 24, 35, 44, 53, 62, 71, 82, 91, 100, 113, 120, 130, 139, 151,
        159, 168, 180, 189, 198, 207, 217, 227, 238, 247, 256, 265, 275, 284, 294, 304, 313, 323, 333, 342,
        352, 362, 372, 385, 391,
    ],
    "fixed": [
        30, 157, 203, 307,
    ],
    "biqf": [
        0, 10, 15, 16, 18, 30, 39, 68, 84, 90, 93, 111, 114, 119, 157, 160, 172, 182, 192, 193, 194, 197, 200,
        227, 244, 245, 279, 296, 297, 298, 300, 304, 307, 311, 331, 334, 353, 394,
    ],
    "density": [
        5, 10, 20, 30, 42, 51, 60, 70, 80, 90, 100, 113, 120, 130, 141, 151, 162, 173, 180, 191, 205, 217,
        221, 232, 240, 250, 261, 270, 282, 290, 301, 311, 320, 333, 340, 350, 362, 370, 381, 390,
    ],
    "pals": [
        0, 3, 14, 36, 55, 58, 90, 94, 114, 119, 150, 153, 157, 160, 172, 182, 186, 193, 200, 203, 220, 222,
        254, 284, 292, 296, 297, 298, 300, 307, 311, 323, 327, 328, 333, 340, 346, 347, 363,
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", strategies.PUBLISHED)
def test_the_decisions_are_those_of_the_library(name: str) -> None:
    assert ours(name) == GOLDEN[name]


@pytest.mark.parametrize("name", strategies.PUBLISHED)
def test_the_library_where_it_is_installed_still_decides_so(name: str) -> None:
    pytest.importorskip("skactiveml")
    assert theirs(name) == GOLDEN[name]


def test_the_gain_is_that_of_the_library_at_few_and_many_labels() -> None:
    frequencies = np.array([[0.0, 0.0, 0.0], [0.3, 0.2, 0.1], [1.0, 1.0, 0.0], [4.0, 3.5, 1.0], [50.0, 2.0, 1.0]])
    by_library = [0.6646726, 0.2707403, 0.166417, 0.02166353, -9.714451e-16]
    assert [published.gain(row) for row in frequencies] == pytest.approx(by_library, abs=1e-7)
