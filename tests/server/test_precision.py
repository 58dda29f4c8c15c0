"""Is mean average precision COCO's, does weight mean repetition, and does its interval hold?"""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from server.teach.gates import paired
from server.teach.gates.precision import average_precision, mean_precision, rank

CLASSES = (0, 1, 2)
Boxes = list[np.ndarray]


def scenes(n: int, seed: int, *, noise: float = 0.04, missed: float = 0.2) -> tuple[Boxes, Boxes]:
    """Said and true boxes of n images: moved, missed, doubled, misnamed and made up."""
    rng = np.random.default_rng(seed)
    said, true = [], []
    for _ in range(n):
        count = rng.integers(0, 6)
        corner, size = rng.random((count, 2)) * 0.7, 0.1 + 0.2 * rng.random((count, 2))
        label = rng.choice(CLASSES, count, p=[0.6, 0.3, 0.1])
        real = np.column_stack((label, corner, corner + size, np.ones(count)))
        kept = real[rng.random(count) > missed]
        ours = np.concatenate((kept, kept[rng.random(len(kept)) < 0.3]))
        ours[:, 1:5] += rng.normal(0.0, noise, (len(ours), 4))
        ours[:, 0] = np.where(rng.random(len(ours)) < 0.1, rng.choice(CLASSES, len(ours)), ours[:, 0])
        corners = rng.random((rng.integers(0, 4), 2)) * 0.7
        made = np.column_stack((rng.choice(CLASSES, len(corners)), corners, corners + 0.2, np.zeros(len(corners))))
        ours = np.concatenate((ours, made))
        ours[:, 5] = np.clip(rng.normal(np.where(np.arange(len(ours)) < len(kept), 0.7, 0.4), 0.2), 0.01, 0.99)
        said.append(ours[(ours[:, 3] > ours[:, 1]) & (ours[:, 4] > ours[:, 2])])
        true.append(real)
    return said, true


def by_coco(said: Boxes, true: Boxes) -> tuple[float, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def plain(rows: Boxes, *, scored: bool) -> list[dict]:
        return [
            {"id": 0, "image_id": i, "category_id": int(b[0]), "bbox": [b[1], b[2], b[3] - b[1], b[4] - b[2]]}
            | ({"score": b[5]} if scored else {"iscrowd": 0, "area": (b[3] - b[1]) * (b[4] - b[2])})
            for i, boxes in enumerate(rows)
            for b in (boxes * np.array([1, 1000, 1000, 1000, 1000, 1])).tolist()
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        marks = [one | {"id": k} for k, one in enumerate(plain(true, scored=False), 1)]
        truth.dataset = {
            "images": [{"id": i} for i in range(len(true))],
            "annotations": marks,
            "categories": [{"id": c} for c in CLASSES],
        }
        truth.createIndex()
        judged = COCOeval(truth, truth.loadRes(plain(said, scored=True)), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[0]), float(judged.stats[1])


@pytest.mark.parametrize("seed", range(8))
def test_it_is_coco_s(seed: int) -> None:
    said, true = scenes(40, seed, noise=0.01 * (1 + seed % 4))
    found = mean_precision(said, true, np.ones(40), classes=CLASSES)
    assert (found.all, found.half) == pytest.approx(by_coco(said, true), abs=1e-9)


def test_an_image_of_weight_two_counts_as_two_images() -> None:
    said, true = scenes(30, 1)
    weight = np.where(np.arange(30) % 3 == 0, 2.0, 1.0)
    twice = [row for row in range(30) for _ in range(int(weight[row]))]
    repeated = mean_precision([said[i] for i in twice], [true[i] for i in twice], np.ones(len(twice)), classes=CLASSES)
    found = mean_precision(said, true, weight, classes=CLASSES)
    # Boxes of equal score stand side by side when repeated, and are one step here: the curves part by such a step.
    assert found.all == pytest.approx(repeated.all, abs=0.01)
    scaled = mean_precision(said, true, 7.0 * weight, classes=CLASSES)
    assert (found.all, found.half) == pytest.approx((scaled.all, scaled.half))
    np.testing.assert_allclose(found.influence, scaled.influence, atol=1e-9)


def area(image, hit, true, weight) -> float:
    """Under the curve at all recalls: that which the influence is exact for."""
    each = weight[image]
    hits, boxes = np.cumsum(each * hit), np.cumsum(each)
    best = np.maximum.accumulate((hits / boxes)[::-1])[::-1]
    return float((each * hit) @ best / weight[true].sum())


@pytest.mark.parametrize("seed", range(4))
def test_the_influence_is_the_derivative(seed: int) -> None:
    said, true = scenes(25, seed)
    weight = np.random.default_rng(seed).uniform(0.5, 3.0, 25)
    ranked = rank(said, true, 0)
    hit = ranked.hit[0]
    _, influence = average_precision(ranked.image, hit, ranked.true, weight)
    assert weight @ influence == pytest.approx(0.0, abs=1e-9)
    step = 1e-6
    for row in range(25):
        moved = weight.copy()
        moved[row] += step
        slope = (area(ranked.image, hit, ranked.true, moved) - area(ranked.image, hit, ranked.true, weight)) / step
        assert influence[row] / weight.sum() == pytest.approx(slope, abs=1e-4)


def test_intervals_of_a_difference_hold_about_as_often_as_they_say() -> None:
    """Of two detectors on the same images; the truth by very many."""

    def both(n: int, seed: int) -> tuple[float, np.ndarray]:
        said, true = scenes(n, seed)
        other = [boxes[: max(0, len(boxes) - 1)] for boxes in said]
        ones = np.ones(n)
        ours, theirs = (mean_precision(x, true, ones, classes=CLASSES[:1]) for x in (said, other))
        return ours.all - theirs.all, ours.influence - theirs.influence

    real, _ = both(1500, 999)
    covered = 0
    for seed in range(40):
        figure, influence = both(80, seed)
        found = paired.of_parts(figure, influence, np.ones(80), confidence=0.95, growing=False)
        covered += found.low <= real <= found.high
    assert covered >= 36


def test_nothing_said_or_nothing_there_is_told_apart() -> None:
    said, true = scenes(5, 0)
    empty = [np.zeros((0, 6))] * 5
    assert mean_precision(empty, true, np.ones(5), classes=CLASSES).all == 0.0
    assert mean_precision(said, empty, np.ones(5), classes=CLASSES).classes == {}
    assert mean_precision(true, true, np.ones(5), classes=CLASSES).all == pytest.approx(1.0)
