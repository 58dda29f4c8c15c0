"""Does a detector's utility find the frames in which it errs, those included in which it finds nothing?

The detector is a real one (`python scripts/pedestrians.py` makes it once; without it this says so, and claims nothing),
on pans over real photographs: the camera goes slowly over a picture, some with a person and some without. Now and then
a frame or a few are spoilt, as streams are: dark, out of focus, noisy, or partly covered. What the detector says of the
frame before it was spoilt stands for the truth, so this is about errors that spoiling causes, not about all of them.

An error is 1 - F1 at an overlap of 1/2. "missed" are spoilt frames in which nothing at all is found though a person is
there: the errors that scores cannot show. Of each function the best 5 % of the frames are looked at: how many of the
errors, and of the missed frames, are among them, over what a random choice would find.

    margin             ours: doubt of the boxes, and boxes that break off or are missing
    margin, no frames  the same without the stream: every frame for itself
    least_confidence, entropy   of the surest doubt of a box
    mean score         1 - mean score of the boxes, 0 without any: the threshold filter of KubeEdge Sedna
    close to 1/2       nearness of a score to a threshold: as Roboflow's sampler

    python benchmarks/detection.py [--quick]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.tasks.detection import Detection
from edge_agent.choose.tasks.frames import Frames
from edge_agent.contract.artifact import MANIFEST
from edge_agent.contract.boxes import match
from edge_agent.model import Model

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))

import pedestrians

SHARE = 0.05
SPOILT, SHOTS = 0.03, 60  # share of frames at which something begins; frames to a pan
PEOPLE = {"astronaut", "camera"}  # photographs that show one: half of the pans
OURS = "margin"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer pans")
    pans = 20 if parser.parse_args().quick else 60
    if not (pedestrians.folder() / MANIFEST).exists():
        print("missing: the detector; `python scripts/pedestrians.py` makes it")
        return
    model = Model(pedestrians.folder())
    clean, spoilt = frames(pans, np.random.default_rng(0))
    truth, _ = outputs(model, clean)
    said, run_s = outputs(model, spoilt)
    error, missed = errors(model, truth, said)
    utilities, score_s = scores(model, said)
    print(f"{len(error)} frames, {1000 * run_s:.1f} ms a run, {1000 * score_s:.2f} ms to score")
    print(f"mean error {error.mean():.3f}; {int(missed.sum())} frames in which a person is missed altogether\n")
    print(f"{'of the best 5 %':24}{'errors':>10}{'missed':>10}   times what chance finds")
    found = {name: (lift(one, error), lift(one, missed)) for name, one in utilities.items()}
    for name, (errs, miss) in found.items():
        print(f"{name:24}{errs:10.2f}{miss:10.2f}")
    print()
    rivals = [found[name] for name in ("mean score", "close to 1/2")]
    claim("detection_errors_found_over_chance", found[OURS][0], 5.0)
    claim("detection_missed_found_over_chance", found[OURS][1], 5.0)
    claim("detection_errors_found_less_the_best_rival's", found[OURS][0] - max(errs for errs, _ in rivals), 0.0)
    claim("detection_missed_found_less_without_frames", found[OURS][1] - found["margin, no frames"][1], 0.0)
    claim("detection_run_over_scoring", run_s / score_s, 10.0)


def frames(pans: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(N, SIDE, SIDE, 3) uint8 as they are, and with some of them spoilt."""
    photos = pedestrians.photographs()
    people, others = (sorted(set(photos) & PEOPLE), sorted(set(photos) - PEOPLE))
    names = [(people if i % 2 else others)[int(rng.integers(len(people if i % 2 else others)))] for i in range(pans)]
    clean = np.concatenate([pan(photos[name], rng) for name in names])
    spoilt, left, how = clean.copy(), 0, 0
    for i in range(len(clean)):
        if left == 0 and rng.random() < SPOILT:
            left, how = int(rng.integers(1, 4)), int(rng.integers(4))
        if left:
            spoilt[i], left = spoil(clean[i], how, rng), left - 1
    return clean, spoilt


def pan(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A window of two thirds of a photograph that drifts over it, a pixel or two a frame."""
    height, width = photo.shape[:2]
    side = int(min(height, width) * rng.uniform(0.6, 0.95))
    at, step = rng.uniform(0, 1, 2) * (height - side, width - side), rng.normal(0, 1.2, 2)
    shots = []
    for _ in range(SHOTS):
        at = np.clip(at + step, 0, (height - side, width - side))
        top, left = at.astype(int)
        shots.append(pedestrians.resized(photo[top : top + side, left : left + side]))
    return np.stack(shots)


def spoil(frame: np.ndarray, how: int, rng: np.random.Generator) -> np.ndarray:
    """Dark, out of focus, noisy or covered."""
    x = frame.astype(np.float32)
    if how == 0:
        x *= rng.uniform(0.03, 0.3)
    elif how == 1:
        coarse = int(rng.integers(10, 40))
        x = np.asarray(pedestrians.resized(frame[::coarse, ::coarse]), np.float32)
    elif how == 2:
        x += rng.normal(0.0, rng.uniform(40, 120), x.shape)
    else:
        top, left = rng.integers(0, 150, 2)
        x[top : top + 200, left : left + 200] = rng.uniform(0, 255)
    return np.clip(x, 0, 255).astype(np.uint8)


def outputs(model: Model, x: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """Logits and boxes of every frame, and seconds a frame."""
    logits, boxes, began = [], [], time.process_time()
    for one in x:
        model.run(0, one)
        logits.append(model.logits[0].copy())
        boxes.append(model.further[0].copy())
    return (np.stack(logits), np.stack(boxes)), (time.process_time() - began) / len(x)


def score(model: Model, said: tuple[np.ndarray, np.ndarray], name: str, *, by_frames: bool = True) -> Scored:
    answer = model.manifest.answer
    if by_frames:
        return Detection(name, answer=answer, frames=Frames()).score(*said)
    each = [Detection(name, answer=answer).score(said[0][i : i + 1], said[1][i : i + 1]) for i in range(len(said[0]))]
    return each[0]._replace(utility=np.concatenate([one.utility for one in each]))


def scores(model: Model, said: tuple[np.ndarray, np.ndarray]) -> tuple[dict[str, np.ndarray], float]:
    began = time.process_time()
    ours = score(model, said, OURS)
    took_s = (time.process_time() - began) / len(said[0])
    shown = [[box.score for box in ours.answers.said(row).boxes] for row in range(len(said[0]))]
    return {
        OURS: ours.utility,
        "margin, no frames": score(model, said, OURS, by_frames=False).utility,
        "least_confidence": score(model, said, "least_confidence").utility,
        "entropy": score(model, said, "entropy").utility,
        "mean score": np.array([1.0 - np.mean(one) if one else 0.0 for one in shown]),
        "close to 1/2": np.array([max((1.0 - abs(2.0 * s - 1.0) for s in one), default=0.0) for one in shown]),
    }, took_s


def errors(
    model: Model, truth: tuple[np.ndarray, np.ndarray], said: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) 1 - F1 against what is said of the clean frames, and whether all of it is missed."""
    there, here = (score(model, one, OURS).answers.found for one in (truth, said))
    error, missed = np.zeros(len(here)), np.zeros(len(here))
    for i, (true, found) in enumerate(zip(there, here, strict=True)):
        a, b = true.corners[: true.counted], found.corners[: found.counted]
        right = int((match(b, found.score[: found.counted], a, overlap_min=0.5) >= 0).sum())
        error[i] = 1.0 - 2.0 * right / (len(a) + len(b)) if len(a) + len(b) else 0.0
        missed[i] = len(a) > 0 and len(b) == 0
    return error, missed


def lift(utility: np.ndarray, wanted: np.ndarray) -> float:
    """How much of `wanted` is in the best SHARE, over SHARE; ties as chance would have them."""
    order = np.lexsort((np.random.default_rng(0).random(len(utility)), -utility))
    best = order[: round(SHARE * len(utility))]
    return float(wanted[best].sum() / wanted.sum() / SHARE)


def claim(name: str, value: float, target: float) -> None:
    print(f"RATIO {name} {value:.3f} target >= {target} {'ok' if value >= target else 'short'}")


if __name__ == "__main__":
    main()
