"""Is one figure of how right a model was the same for all tasks: 1 for the truth, less for whatever is further off?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_agent.contract import score
from edge_agent.contract.task import Applies, Box, Said, Task, Truth, Value, truth_of

numbers = st.floats(-100.0, 100.0, width=32)


@st.composite
def scenes(draw, most: int = 8) -> np.ndarray:
    """Boxes of three classes that do not overlap: each in a cell of its own."""
    cells = draw(st.lists(st.integers(0, 15), max_size=most, unique=True))
    rows = [
        (draw(st.integers(0, 2)), c % 4 / 4, c // 4 / 4, c % 4 / 4 + 0.2, c // 4 / 4 + 0.2, draw(st.floats(0.1, 1.0)))
        for c in cells
    ]
    return np.array(rows, np.float64).reshape(-1, 6)


@given(scenes(), scenes())
def test_boxes_score_as_well_one_way_as_the_other_and_fully_against_themselves(a, b) -> None:
    assert score.of_boxes(a, a) == 1.0
    assert 0.0 <= score.of_boxes(a, b) <= 1.0
    assert score.of_boxes(a, b) == pytest.approx(score.of_boxes(b, a))
    assert score.of_boxes(a[::-1], b) == pytest.approx(score.of_boxes(a, b))
    padded = score.stacked([b, a])[0]
    assert score.of_boxes(a, padded) == pytest.approx(score.of_boxes(a, b))


@given(scenes().filter(len), st.integers(0, 7))
def test_every_box_that_is_missed_moved_or_misnamed_costs(a, at) -> None:
    at %= len(a)
    others = np.arange(len(a)) != at
    moved, renamed = a.copy(), a.copy()
    moved[at, 1:5] += 0.15  # IoU of .03 with where it was
    renamed[at, 0] = 3
    n = len(a)
    assert score.of_boxes(a[others], a) == pytest.approx(2 * (n - 1) / (2 * n - 1))
    assert score.of_boxes(moved, a) == score.of_boxes(renamed, a) == pytest.approx((n - 1) / n)
    assert score.of_boxes(np.concatenate((a, a[at : at + 1])), a) == pytest.approx(2 * n / (2 * n + 1))  # found once


@given(arrays(np.float64, (5, 3), elements=numbers), arrays(np.float64, (5, 3), elements=numbers))
def test_values_score_by_distance_over_scale(said, true) -> None:
    scale = np.array([1.0, 10.0, 0.5])
    found = score.of_values(said, true, scale)
    assert (score.of_values(true, true, scale) == 1.0).all()
    assert ((found >= 0.0) & (found <= 1.0)).all()
    nearer = true + 0.5 * (said - true)
    assert (score.of_values(nearer, true, scale) >= found - 1e-12).all()
    np.testing.assert_allclose(score.of_values(2 * said, 2 * true, 2 * scale), found, atol=1e-9)


def test_a_target_that_is_not_known_does_not_count_and_no_answer_is_no_good_one() -> None:
    true, scale = np.array([[1.0, np.nan], [np.nan, np.nan]]), np.array([2.0, 2.0])
    assert score.of_values(np.array([[2.0, 99.0], [0.0, 0.0]]), true, scale).tolist() == [0.5, 0.0]
    assert score.of_values(np.array([[np.nan, 1.0], [np.inf, 0.0]]), true, scale).tolist() == [0.0, 0.0]


@given(arrays(np.bool_, (6, 4)), arrays(np.bool_, (6, 4)))
def test_several_classes_score_by_the_share_of_right_decisions(said, true) -> None:
    assert score.of_several(said, true).tolist() == pytest.approx(1.0 - (said ^ true).mean(axis=1))


@pytest.mark.parametrize(
    ("said", "truth", "expected"),
    [
        (Said(applies=(Applies(0, 0.9), Applies(2, 0.4))), {"applies": [[0], [2]]}, 2 / 3),
        (Said(values=(Value(0, 4.0), Value(1, 1.0))), {"values": [[0, 5.0], [1, 1.0]]}, 0.75),
        (Said(boxes=(Box(1, 0, 0, 0.5, 0.5, 0.9), Box(1, 0.6, 0.6, 1, 1, 0.1))), {"boxes": [[1, 0, 0, 0.5, 0.5]]}, 1.0),
        (Said(), {"boxes": []}, 1.0),
        (Said(), {"boxes": [[0, 0, 0, 1, 1]]}, 0.0),
    ],
)
def test_what_a_device_sent_scores_as_its_arrays_do(said: Said, truth: dict, expected: float) -> None:
    terms = score.terms_of(score_min=0.3, scale=(2.0, 1.0))
    assert score.of_said(said, truth_of(truth), classes=3 if said.applies else 2, terms=terms) == pytest.approx(
        expected
    )


@pytest.mark.parametrize(
    ("task", "truths", "shape"),
    [
        ("detection", [{"boxes": []}, {"boxes": [[0, 0, 0, 1, 1], [1, 0, 0, 0.5, 1]]}], (2, 2, 6)),
        ("multilabel", [{"applies": []}, {"applies": [[2]]}], (2, 3)),
        ("regression", [{"values": [[1, 2.0]]}, {"values": []}], (2, 3)),
    ],
)
def test_truths_become_arrays_with_a_row_a_sample(task: Task, truths: list, shape: tuple[int, ...]) -> None:
    given_truths: list[Truth] = [truth_of(one) for one in truths]
    array = score.truths(given_truths, task, 3)
    assert array.shape == shape
    if task == "detection":
        assert array[:, :, 0].tolist() == [[-1, -1], [0, 1]]
    other: Task = "regression" if task != "regression" else "detection"
    with pytest.raises(ValueError, match=f"a truth of {task} among those of {other}"):
        score.truths(given_truths, other, 3)
