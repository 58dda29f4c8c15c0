"""What does it cost to score a sample, from logits, against plain numpy and the libraries?

Microseconds of CPU a sample, least of many runs in random order, all in one run; 10 classes and 1000. Two comparisons:

"ours" is what the agent does: in one pass the score, the label, the confidence and the energy of logits after
temperature, NaN where logits are not usable; "numpy, same" gives the same. "ours alone" is the score and nothing else,
and so are "numpy alone" and the libraries; these start from probabilities, and get the softmax from numpy first.
Numpy's margin is the faster of two ways for so many classes, partition or arg max twice. Peers of the extra `peers`
are measured where they are installed; which are missing is said.

EPIG on a stream (choose/targets.py) is held against its definition with as many targets, which it equals up to 10
classes and costs as much; of more it costs no more.

    python benchmarks/scoring.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from edge_agent.choose.acquisition import Scorer, entropy, margin
from edge_agent.choose.committee import bald, epig
from edge_agent.choose.targets import EVERY, KEPT, Targets

BATCHES = (1, 32, 1024)
CLASSES = (10, 1000)
MEMBERS = 20
HEADS, EPIG_CLASSES = 5, (10, 100)
KINDS = ("margin", "entropy")
LARGE = 1 << 18  # logits of a batch that is measured fewer times

Score = Callable[[np.ndarray], object]
Found = dict[tuple[str, int, int], float]  # (name, classes, batch) -> us a sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    repeat = 30 if parser.parse_args().quick else 200
    scores, committee = peers()
    scores = own() | scores
    rng = np.random.default_rng(0)
    found: Found = {}
    for classes in CLASSES:
        for batch in BATCHES:
            logits = rng.normal(0, 3, (batch, classes)).astype(np.float32)
            times = repeat if logits.size < LARGE else max(3, repeat // 20)
            found |= {(name, classes, batch): value for name, value in us(scores, logits, batch, times).items()}
    show(found)
    logits = rng.normal(0, 3, (MEMBERS, 1024, CLASSES[0])).astype(np.float32)
    bald_us = us({"ours bald": bald} | committee, logits, 1024, max(3, repeat // 20))
    for name, value in bald_us.items():
        print(f"{name + f', {MEMBERS} members, batch 1024':44}{value:10.3f}")
    epigs = {classes: epig_us(rng, classes, max(3, repeat // 40)) for classes in EPIG_CLASSES}
    for classes, (ours, exact) in epigs.items():
        print(f"{f'EPIG, {HEADS} members, C{classes}, ours and exact':44}{ours:10.3f}{exact:12.1f}")
    print()
    for kind in KINDS:
        for rival in sorted({name for name, _, _ in found if name.endswith(kind) and not name.startswith("ours")}):
            ours = f"ours {kind}" if "same" in rival else f"ours alone, {kind}"
            for classes in CLASSES:
                slug = f"scoring_{rival.replace(',', '').replace(' ', '_')}_over_ours_c{classes}_batch_32"
                claim(slug, found[rival, classes, 32] / found[ours, classes, 32], ">=", 1.0)
    for name in committee:
        claim(f"scoring_{name.replace(' ', '_')}_over_ours", bald_us[name] / bald_us["ours bald"], ">=", 1.0)
    ours, exact = epigs[max(epigs)]
    claim(f"scoring_exact_epig_over_ours_c{max(epigs)}", exact / ours, ">=", 1.0)


def epig_us(rng: np.random.Generator, classes: int, repeat: int) -> tuple[float, float]:
    """Microseconds a sample on a stream, and by the definition with as many targets, of a block of 32."""
    logits = rng.normal(0, 3, (HEADS, KEPT * EVERY, classes)).astype(np.float32)
    block, stream = np.ascontiguousarray(logits[:, :32]), Targets()
    stream.utility(logits, count=KEPT * EVERY)
    scores = {"ours": lambda z: stream.utility(z, count=32), "exact": lambda z: epig(z, logits[:, ::EVERY])}
    found = us(scores, block, 32, repeat)
    return found["ours"], found["exact"]


def show(found: Found) -> None:
    print(f"{'us a sample':24}" + "".join(f"{f'C{classes} B{batch}':>12}" for classes in CLASSES for batch in BATCHES))
    for name in dict.fromkeys(name for name, _, _ in found):
        values = (found[name, classes, batch] for classes in CLASSES for batch in BATCHES)
        print(f"{name:24}" + "".join(f"{value:12.3f}" for value in values))


def own() -> dict[str, Score]:
    """Ours, and plain numpy."""
    return {
        "ours margin": Scorer("margin").score,
        "ours entropy": Scorer("entropy").score,
        "ours alone, margin": margin,
        "ours alone, entropy": entropy,
        "numpy, same margin": lambda z: numpy_same(z, faster_margin(z)),
        "numpy, same entropy": lambda z: numpy_same(z, numpy_entropy),
        "numpy alone, margin": lambda z: faster_margin(z)(softmax(z)),
        "numpy alone, entropy": lambda z: numpy_entropy(softmax(z)),
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def numpy_same(logits: np.ndarray, score: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, ...]:
    scaled = logits * np.float32(1.0)
    top = scaled.max(axis=1)
    exp = np.exp(scaled - top[:, None])
    total = exp.sum(axis=1)
    p = exp / total[:, None]
    utility, confidence = score(p), p.max(axis=1)
    utility[~np.isfinite(confidence)] = np.nan
    return utility, p.argmax(axis=1), confidence, -(top + np.log(total))


def numpy_margin(p: np.ndarray) -> np.ndarray:
    top = np.partition(p, -2, axis=1)
    return 1.0 - (top[:, -1] - top[:, -2])


def numpy_margin_twice(p: np.ndarray) -> np.ndarray:
    """Arg max twice."""
    rows, others = np.arange(len(p)), p.copy()
    label = p.argmax(axis=1)
    others[rows, label] = 0.0
    return 1.0 - (p[rows, label] - others.max(axis=1))


def faster_margin(logits: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return numpy_margin if logits.shape[1] <= 32 else numpy_margin_twice


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


def us(scores: dict[str, Score], logits: np.ndarray, samples: int, repeat: int) -> dict[str, float]:
    """Least CPU microseconds a sample, over `repeat` rounds of some calls of each, in random order."""
    calls = max(2, 256 // samples)
    least = dict.fromkeys(scores, float("inf"))
    rng = np.random.default_rng(0)
    for _ in range(repeat):
        for name in rng.permutation(list(scores)).tolist():
            score = scores[name]
            score(logits)  # brings its code and tables back into the cache
            start = time.process_time_ns()
            for _ in range(calls):
                score(logits)
            least[name] = min(least[name], time.process_time_ns() - start)
    return {name: value / 1000 / calls / samples for name, value in least.items()}


def claim(name: str, value: float, sign: str, target: float) -> None:
    met = value <= target if sign == "<=" else value >= target
    print(f"RATIO {name} {value:.3f} target {sign} {target} {'ok' if met else 'short'}")


if __name__ == "__main__":
    main()
