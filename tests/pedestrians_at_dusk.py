"""A camera that looks for people, and dusk: a real detector, real photographs, and its own labels from by day.

x        crops of photographs, 300 x 300, as a camera sees them at dusk: a twelfth of the light, and its sensor's noise
truths   the boxes that the detector in float32 finds on the same crops by day
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pedestrians
from task_worlds import World

from edge_agent.contract.boxes import suppress

PEOPLE, OTHERS = ("astronaut", "camera"), ("chelsea", "coffee", "motorcycle_left", "rocket", "brick", "grass")
LIGHT, NOISE = 0.08, 4.0  # share of the light that is left; grey levels of noise
SCORE_MIN, OVERLAP_MAX = 0.4, 0.5


def dusk(count: int) -> World:
    """`count` crops, every other with somebody on it, shuffled."""
    rng, photos = np.random.default_rng(5), pedestrians.photographs()
    by_day = np.stack([_crop(photos[_name(number)], rng) for number in rng.permutation(count)])
    light = by_day * LIGHT + rng.normal(0.0, NOISE, by_day.shape)
    x = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    told = {"trainer": "pedestrian_heads:finetune", "epochs": 40, "int8": False}  # the gate of int8 refuses it: 0.95
    return World("detection", ("person",), x, _found(by_day), told)


def _name(number: np.int64) -> str:
    which = PEOPLE if number % 2 else OTHERS
    return which[number // 2 % len(which)]


def _crop(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = photo.shape[:2]
    side = int(min(height, width) * rng.uniform(0.75, 1.0))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    crop = pedestrians.resized(photo[top : top + side, left : left + side])
    return crop[:, ::-1] if rng.random() < 0.5 else crop


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
