"""What does it cost to score a sample, from logits, against plain numpy and the libraries?

Microseconds of CPU a sample, least of many runs, all in one run; 10 classes. Ours includes temperature, softmax, label,
confidence and the check for NaN; the others get the softmax from numpy first, since they start from probabilities, and
give the score alone. "numpy, same" gives what ours gives. Peers of the extra `peers` are measured where they are
installed; which are missing is said.

    python benchmarks/scoring.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from edge_agent.choose.acquisition import Scorer
from edge_agent.choose.committee import bald

BATCHES = (1, 32, 1024)
CLASSES = 10
MEMBERS = 20

Score = Callable[[np.ndarray], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    repeat = 40 if parser.parse_args().quick else 300
    scores, committee = peers()
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    print(f"{'us a sample, batch':34}" + "".join(f"{batch:>10}" for batch in BATCHES))
    for name, score in (own() | scores).items():
        found[name] = [us(score, rng.normal(0, 3, (b, CLASSES)).astype(np.float32), b, repeat) for b in BATCHES]
        print(f"{name:34}" + "".join(f"{value:10.3f}" for value in found[name]))
    for name, score in ({"ours bald": bald} | committee).items():
        logits = rng.normal(0, 3, (MEMBERS, 1024, CLASSES)).astype(np.float32)
        found[name] = [us(score, logits, 1024, max(3, repeat // 20))]
        print(f"{name + f', {MEMBERS} members':34}{'':20}{found[name][0]:10.3f}")
    print()
    for kind in ("margin", "entropy"):
        rivals = {name: values for name, values in found.items() if name.endswith(kind) and not name.startswith("ours")}
        for name, values in rivals.items():
            slug = f"scoring_{name.replace(',', '').replace(' ', '_')}_over_ours_batch_32"
            claim(slug, values[1] / found[f"ours {kind}"][1], ">=", 1.0)
    for name in committee:
        claim(f"scoring_{name.replace(' ', '_')}_over_ours", found[name][0] / found["ours bald"][0], ">=", 1.0)


def own() -> dict[str, Score]:
    """Ours, and the plainest numpy that gives the number."""
    return {
        "ours margin": Scorer("margin").score,
        "ours entropy": Scorer("entropy").score,
        "numpy alone, margin": lambda z: numpy_margin(softmax(z)),
        "numpy alone, entropy": lambda z: numpy_entropy(softmax(z)),
        "numpy, same margin": lambda z: numpy_same(z, numpy_margin),
        "numpy, same entropy": lambda z: numpy_same(z, numpy_entropy),
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def numpy_same(logits: np.ndarray, score: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, ...]:
    p = softmax(logits * np.float32(1.0))
    utility, confidence = score(p), p.max(axis=1)
    utility[~np.isfinite(confidence)] = np.nan
    return utility, p.argmax(axis=1), confidence


def numpy_margin(p: np.ndarray) -> np.ndarray:
    top = np.partition(p, -2, axis=1)
    return 1.0 - (top[:, -1] - top[:, -2])


def numpy_entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p)).sum(axis=1)


def peers() -> tuple[dict[str, Score], dict[str, Score]]:
    """Of the libraries that are here: scores of logits (N, C), and of committees' logits (T, N, C)."""
    scores: dict[str, Score] = {}
    committee: dict[str, Score] = {}
    try:
        from modAL.uncertainty import _proba_entropy, _proba_margin

        scores["modAL margin"] = lambda z: _proba_margin(softmax(z))
        scores["modAL entropy"] = lambda z: _proba_entropy(softmax(z))
    except ImportError:
        print("missing: modAL-python")
    try:
        from skactiveml.pool import uncertainty_scores

        scores["skactiveml margin"] = lambda z: uncertainty_scores(softmax(z.astype(float)), method="margin_sampling")
        scores["skactiveml entropy"] = lambda z: uncertainty_scores(softmax(z.astype(float)), method="entropy")
    except ImportError:
        print("missing: scikit-activeml")
    try:
        from baal.active.heuristics import BALD, Entropy, Margin

        scores["baal margin"] = lambda z: Margin().get_uncertainties(softmax(z))
        scores["baal entropy"] = lambda z: Entropy().get_uncertainties(softmax(z))
        committee["baal bald"] = lambda z: BALD().get_uncertainties(np.moveaxis(softmax(z), 0, -1))
    except ImportError:
        print("missing: baal")
    try:
        from river.active import EntropySampler
        from river.dummy import NoChangeClassifier

        sampler = EntropySampler(NoChangeClassifier())

        def river_entropy(logits: np.ndarray) -> list[float]:
            return [sampler._p(dict(enumerate(p.tolist()))) for p in softmax(logits)]

        scores["river entropy"] = river_entropy
    except ImportError:
        print("missing: river")
    return scores, committee


def us(score: Score, logits: np.ndarray, samples: int, repeat: int) -> float:
    """Least CPU microseconds a sample, over `repeat` rounds of some calls."""
    calls = max(1, 256 // samples)
    least = float("inf")
    for _ in range(repeat):
        start = time.process_time_ns()
        for _ in range(calls):
            score(logits)
        least = min(least, time.process_time_ns() - start)
    return least / 1000 / calls / samples


def claim(name: str, value: float, sign: str, target: float) -> None:
    met = value <= target if sign == "<=" else value >= target
    print(f"RATIO {name} {value:.3f} target {sign} {target} {'ok' if met else 'short'}")


if __name__ == "__main__":
    main()
