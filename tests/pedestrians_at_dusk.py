"""A camera that looks for people while dusk falls: a real detector, real photographs, and its labels from by day.

x        photographs, 300 x 300: first somebody who is watched by day, then crops of all of them as a camera sees them
         at dusk: a twelfth of the light, and its sensor's noise
truths   the boxes that the detector in float32 finds on the same by day
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pedestrians
from task_worlds import World

from edge_agent.contract.boxes import suppress
from server.label.labeler import Question

PEOPLE, OTHERS = ("astronaut", "camera"), ("chelsea", "coffee", "motorcycle_left", "rocket", "brick", "grass")
LIGHT, NOISE = 0.08, 4.0  # share of the light that is left; grey levels of noise
SCORE_MIN, OVERLAP_MAX = 0.4, 0.5
BY_DAY = 40  # frames before it is dark, in which somebody is followed


def evening(count: int) -> World:
    """Frames by day, then `count` crops at dusk, every other with somebody on it, shuffled."""
    rng, photos = np.random.default_rng(5), pedestrians.photographs()
    watched = [_square(photos["camera"], 440, top=20, left=frame) for frame in range(BY_DAY)]
    light = np.stack(watched + [_crop(photos[_name(number)], rng) for number in rng.permutation(count)])
    dark = light[BY_DAY:] * LIGHT
    dark = np.clip(np.rint(dark + rng.normal(0.0, NOISE, dark.shape)), 0, 255).astype(np.uint8)
    return World("detection", ("person",), np.concatenate([light[:BY_DAY], dark]), _found(light), {})


class ByDay:
    """Answers for people: of a file `NUMBER-ROW.png` the boxes of that row, as a file of all truths has them."""

    def __init__(self, files: Sequence[str]) -> None:
        (file,) = files
        self._truths = json.loads(Path(file).read_text())

    def label(self, batch: list[Question]) -> list[dict[str, Any]]:
        return [self._truths[row_of(question.ref)] for question in batch]


def row_of(name: str) -> int:
    """Of which row a file is.

    >>> row_of("000123-17.png")
    17
    """
    return int(Path(name).stem.rpartition("-")[2])


def _name(number: np.int64) -> str:
    which = PEOPLE if number % 2 else OTHERS
    return which[number // 2 % len(which)]


def _crop(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = photo.shape[:2]
    side = int(min(height, width) * rng.uniform(0.75, 1.0))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    crop = _square(photo, side, top=top, left=left)
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def _square(photo: np.ndarray, side: int, *, top: int, left: int) -> np.ndarray:
    return pedestrians.resized(photo[top : top + side, left : left + side])


def _found(x: np.ndarray) -> list[dict]:
    session = ort.InferenceSession((pedestrians.folder() / pedestrians.FLOAT).read_bytes())
    truths = []
    for one in x:
        logits, boxes = (found[0] for found in session.run(["logits", "boxes"], {"image": one[None]}))
        score = 1.0 / (1.0 + np.exp(-logits[:, 0]))
        sure = score >= SCORE_MIN
        boxes, score = boxes[sure].clip(0.0, 1.0), score[sure]
        kept = suppress(boxes, score, np.zeros(len(score), int), overlap_max=OVERLAP_MAX)
        truths.append({"boxes": [[0, *(float(edge) for edge in boxes[row])] for row in kept]})
    return truths
