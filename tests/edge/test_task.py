"""Values of tasks: what may come off the wire, and which boxes show the same thing."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_agent.contract.boxes import area, match, overlap, suppress
from edge_agent.contract.errors import MessageError
from edge_agent.contract.task import Applies, Box, Said, Truth, Value, plain, truth_of


def boxes(least: int = 0, most: int = 12) -> st.SearchStrategy[np.ndarray]:
    corners = st.integers(least, most).flatmap(
        lambda n: arrays(np.float64, (n, 2, 2), elements=st.floats(0.0, 1.0, width=32))
    )
    return corners.map(lambda c: np.concatenate((c.min(axis=1), c.max(axis=1)), axis=1))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, "exactly one"),
        ({"boxes": [], "values": []}, "exactly one"),
        ({"boxes": [[0, 0.5, 0.1, 0.5, 0.9]]}, "left < right"),
        ({"boxes": [[0, 0.1, 0.1, 1.5, 0.9]]}, "1"),
        ({"boxes": [[-1, 0.1, 0.1, 0.5, 0.9]]}, "0"),
        ({"applies": [[0, 2.0]]}, "1"),
        ({"applies": [[i] for i in range(301)]}, "300"),
        ([], "object"),
    ],
)
def test_what_is_no_truth_is_refused(value: object, says: str) -> None:
    with pytest.raises(MessageError, match=says):
        truth_of(value)


def test_an_image_without_boxes_is_an_answer() -> None:
    truth = truth_of({"boxes": []})
    assert truth.task == "detection"
    assert truth.boxes == ()


@pytest.mark.parametrize(
    "truth",
    [
        Truth(boxes=(Box(3, 0.0, 0.25, 0.5, 1.0),)),
        Truth(applies=(Applies(1), Applies(4))),
        Truth(values=(Value(0, -3.5, 0.25),)),
    ],
)
def test_what_is_stored_comes_back(truth: Truth) -> None:
    assert truth_of(plain(truth)) == truth


def test_said_leaves_out_what_its_task_has_not() -> None:
    assert plain(Said(values=(Value(0, 1.5),))) == {"values": ([0, 1.5, 0.0],)}
    assert msgspec.json.decode(b"{}", type=Said) == Said()


@given(boxes(), boxes())
def test_overlap_is_a_share_and_the_same_both_ways(a: np.ndarray, b: np.ndarray) -> None:
    shared = overlap(a, b)
    assert shared.shape == (len(a), len(b))
    assert ((shared >= 0.0) & (shared <= 1.0 + 1e-12)).all()
    np.testing.assert_allclose(shared, overlap(b, a).T)


@given(boxes(least=1))
def test_a_box_with_an_area_overlaps_itself_wholly(a: np.ndarray) -> None:
    np.testing.assert_allclose(np.diag(overlap(a, a)), area(a) > 0.0)


@given(boxes(), st.floats(0.1, 0.9), st.randoms(use_true_random=False))
def test_what_stays_does_not_overlap_and_what_goes_did(a: np.ndarray, most: float, random) -> None:
    score = np.array([random.random() for _ in a])
    label = np.array([random.randrange(2) for _ in a], np.int64)
    kept = suppress(a, score, label, overlap_max=most)
    assert list(score[kept]) == sorted(score[kept], reverse=True)
    shared = overlap(a, a) > most
    for i in kept:
        assert not any(shared[i, j] and label[i] == label[j] for j in kept if j != i)
    for i in set(range(len(a))) - set(kept.tolist()):
        assert any(shared[i, j] and label[i] == label[j] and score[j] >= score[i] for j in kept)


@given(boxes(), boxes(), st.floats(0.1, 0.9))
def test_a_true_box_is_found_once_and_only_where_it_is(a: np.ndarray, b: np.ndarray, least: float) -> None:
    found = match(a, np.linspace(1.0, 0.0, len(a)), b, overlap_min=least)
    hits = found[found >= 0]
    assert len(set(hits.tolist())) == len(hits)
    shared = overlap(a, b)
    assert all(shared[i, j] >= least for i, j in enumerate(found) if j >= 0)


def test_the_surer_box_takes_the_true_one() -> None:
    true = np.array([[0.0, 0.0, 1.0, 1.0]])
    said = np.array([[0.0, 0.0, 1.0, 0.9], [0.0, 0.0, 1.0, 1.0]])
    assert match(said, np.array([0.9, 0.8]), true, overlap_min=0.5).tolist() == [0, -1]
    classes = np.array([[False], [True]])
    assert match(said, np.array([0.9, 0.8]), true, overlap_min=0.5, same=classes).tolist() == [-1, 0]
