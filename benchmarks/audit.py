"""What does recording the probability of selection buy?

A stream of real images through a real model; the selector of the device picks 5 %, again and again with other seeds.
From the labels of what it picked the accuracy on the whole stream is estimated, and held against the truth: error and
coverage of the 95 % interval, against a uniform audit of as many labels, and against what everybody does (the plain
accuracy of the picked).

    python benchmarks/audit.py [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from _fashion import Played, play

from edge_agent.choose.acquisition import Scorer
from edge_agent.choose.selector import Rules, Selector
from server.audit.estimators import Estimate, difference, hajek

SHARE = 0.05
BLOCK = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    repetitions = 60 if parser.parse_args().quick else 400
    played = play(train=1500, stream=10_000, seed=0)
    truth = float(played.right.mean())
    mean_confidence = float(played.confidence.mean())
    found: dict[str, list[Estimate]] = {"uniform": [], "picked, plain": [], "Hajek": [], "difference": []}
    for seed in range(repetitions):
        rows, p = select(played, seed)
        right, confidence = played.right[rows], played.confidence[rows]
        found["Hajek"].append(hajek(right, p))
        found["difference"].append(difference(right, confidence, p, stream_confidence=mean_confidence))
        found["picked, plain"].append(hajek(right, np.full(len(rows), SHARE)))
        uniform = np.random.default_rng([seed, 1]).choice(len(played.right), len(rows), replace=False)
        found["uniform"].append(hajek(played.right[uniform], np.full(len(rows), len(rows) / len(played.right))))
    labels = np.mean([e.labels for e in found["Hajek"]])
    print(f"true accuracy {truth:.4f}; {labels:.0f} labels; {repetitions} repetitions\n")
    print(f"{'estimator':16} {'bias':>8} {'RMSE':>8} {'coverage':>9} {'half-width':>11}")
    for name, estimates in found.items():
        errors = np.array([e.value for e in estimates]) - truth
        half = np.mean([(e.high - e.low) / 2 for e in estimates])
        error, covered = rmse(estimates, truth), coverage(estimates, truth)
        print(f"{name:16} {errors.mean():+8.4f} {error:8.4f} {covered:9.3f} {half:11.4f}")
    print()
    ratio = rmse(found["difference"], truth) / rmse(found["uniform"], truth)
    claim("audit_rmse_difference_over_uniform", ratio, "<=", 1.0, lambda v, t: v <= t)
    for name in ("Hajek", "difference"):
        covered = coverage(found[name], truth)
        claim(f"audit_coverage_{name.lower()}_low", covered, ">=", 0.93, lambda v, t: v >= t)
        claim(f"audit_coverage_{name.lower()}_high", covered, "<=", 0.97, lambda v, t: v <= t)


def select(played: Played, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that the device's selector picks of the stream, and their probabilities."""
    selector = Selector(Rules(label_share=SHARE), np.random.default_rng(seed))
    scorer = Scorer("margin", temperature=played.temperature)
    rows, probabilities = [], []
    for start in range(0, len(played.right), BLOCK):
        logits, embedding = played.logits[start : start + BLOCK], played.embedding[start : start + BLOCK]
        for row, selection in selector.offer(scorer.score(logits), embedding, count=len(logits), sample_bytes=1000):
            rows.append(start + row)
            probabilities.append(selection.probability)
    return np.array(rows), np.array(probabilities)


def rmse(estimates: list[Estimate], truth: float) -> float:
    return float(np.sqrt(np.mean([(e.value - truth) ** 2 for e in estimates])))


def coverage(estimates: list[Estimate], truth: float) -> float:
    return float(np.mean([e.low <= truth <= e.high for e in estimates]))


def claim(name: str, value: float, sign: str, target: float, met: Callable[[float, float], bool]) -> None:
    print(f"RATIO {name} {value:.3f} target {sign} {target} {'ok' if met(value, target) else 'short'}")


if __name__ == "__main__":
    main()
