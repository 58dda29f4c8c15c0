"""What does choosing 100 of 10,000 candidates cost on the server, and do the picks cover as well?

10,000 x 128 embeddings, 10 classes, 50 labelled, pick 100; CPU seconds, least of a few runs, one run for all. Peers of
the extra `peers` are measured where they are installed; which are missing is said.

    python benchmarks/batch_selection.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

# CPU time of several threads says little.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import numpy as np

from server.label.choice import STRATEGIES, choose, utility
from server.label.coverage import Pool, representatives

COUNT = 100
LABELLED = 50
LIMIT_S = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, and 3,000 candidates for the peers")
    quick = parser.parse_args().quick
    pool = make_pool(10_000)
    ours = {}
    for name in STRATEGIES:
        ours[name], _ = cpu_s(lambda name=name: pick(name, pool), repeat=5 if quick else 15)
    others = make_pool(3_000) if quick else pool
    print(f"{'10,000 x 128, pick 100':34} {'CPU s':>8}")
    for name, seconds in ours.items():
        print(f"{'ours: ' + name:34} {seconds:8.4f}")
    seconds, _ = cpu_s(lambda: representatives(pool.embeddings, utility(pool)), repeat=2)
    print(f"{'ours: duplicates across devices':34} {seconds:8.4f}\n")
    found = measure_peers(others)
    own_s, rows = cpu_s(lambda: pick("k_centre", others), repeat=5)
    print(f"\n{f'k-centre, {len(others.embeddings):,} candidates':34} {'CPU s':>8} {'x ours':>8} {'radius':>8}")
    rng = np.random.default_rng(0)
    print(f"{'ours: k_centre':34} {own_s:8.4f} {1.0:8.1f} {radius(others, rows):8.3f}")
    print(
        f"{'random':34} {'':8} {'':8} {radius(others, rng.choice(len(others.embeddings), COUNT, replace=False)):8.3f}"
    )
    for name, (peer_s, picked) in found.items():
        print(f"{name:34} {peer_s:8.4f} {peer_s / own_s:8.1f} {radius(others, picked):8.3f}")
    rivals = measure_rivals(others)
    print(f"\n{f'others, {len(others.embeddings):,} candidates':34} {'CPU s':>8} {'x ours':>8}")
    same = {
        name: cpu_s(lambda name=name: pick(name, others), repeat=5)[0] for name in {of for of, _ in rivals.values()}
    }
    for name, (of, peer_s) in rivals.items():
        print(f"{name:34} {peer_s:8.4f} {peer_s / same[of]:8.1f} of {of}")
    print()
    for name, (of, peer_s) in rivals.items():
        claim(f"batch_selection_{name.replace(' ', '_')}_over_ours", peer_s / same[of], ">=", 1.0)
    for name, seconds in ours.items():
        claim(f"batch_selection_cpu_s_{name}", seconds, "<=", LIMIT_S)
    for name, (peer_s, picked) in found.items():
        claim(f"batch_selection_{name.replace(' ', '_')}_over_ours", peer_s / own_s, ">=", 1.0)
        claim(
            f"batch_selection_radius_over_{name.replace(' ', '_')}",
            radius(others, rows) / radius(others, picked),
            "<=",
            1.001,
        )


def make_pool(size: int) -> Pool:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(size, 128)).astype(np.float32)
    probabilities = rng.dirichlet(np.full(10, 0.5), size).astype(np.float32)
    return Pool(embeddings, probabilities, rng.normal(size=(LABELLED, 128)).astype(np.float32))


def pick(name: str, pool: Pool) -> np.ndarray:
    return choose(name, pool, COUNT, rng=np.random.default_rng(0), exploration=0.0).rows


def radius(pool: Pool, rows: np.ndarray) -> float:
    """Largest distance of a candidate to what is labelled or picked."""
    centres = np.concatenate((pool.labelled, pool.embeddings[rows])).astype(np.float64)
    x = pool.embeddings.astype(np.float64)
    table = (x**2).sum(axis=1)[:, None] - 2 * x @ centres.T + (centres**2).sum(axis=1)
    return float(np.sqrt(table.min(axis=1).max()))


def measure_peers(pool: Pool) -> dict[str, tuple[float, np.ndarray]]:
    """CPU seconds and picks of the k-centre of each peer that is here; the labelled are the first rows, as told."""
    x = np.concatenate((pool.labelled, pool.embeddings))
    unlabelled = np.arange(LABELLED, len(x))
    found = {}
    try:
        from skactiveml.pool import CoreSet

        y = np.full(len(x), np.nan)
        y[:LABELLED] = 0
        seconds, rows = cpu_s(lambda: CoreSet(random_state=0).query(x, y, batch_size=COUNT), repeat=2)
        found["skactiveml CoreSet"] = seconds, rows - LABELLED
    except ImportError:
        print("missing: scikit-activeml")
    try:
        from small_text.query_strategies.coresets import greedy_coreset

        seconds, rows = cpu_s(
            lambda: greedy_coreset(x, unlabelled, np.arange(LABELLED), COUNT, distance_metric="euclidean"), repeat=2
        )
        found["small-text greedy_coreset"] = seconds, np.asarray(rows)  # positions among the unlabelled
    except ImportError:
        print("missing: small-text")
    return found


def measure_rivals(pool: Pool) -> dict[str, tuple[str, float]]:
    """CPU seconds of what each peer has besides, and our strategy that does the same."""
    x = np.concatenate((pool.labelled, pool.embeddings))
    found = {}
    try:
        from skactiveml.pool import TypiClust

        y = np.full(len(x), np.nan)
        y[:LABELLED] = 0
        seconds, _ = cpu_s(lambda: TypiClust(random_state=0).query(x, y, batch_size=COUNT), repeat=1)
        found["skactiveml TypiClust"] = "typical", seconds
    except ImportError:
        pass  # measure_peers has said so
    try:
        from baal.active.heuristics import Margin

        seconds, _ = cpu_s(lambda: Margin()(pool.probabilities)[:COUNT], repeat=5)
        found["baal Margin"] = "margin", seconds
    except ImportError:
        print("missing: baal")
    return found


def cpu_s(function: Callable[[], object], *, repeat: int) -> tuple[float, np.ndarray]:
    """Least CPU seconds of a call, and what it gave."""
    least, gave = float("inf"), None
    for _ in range(repeat):
        start = time.process_time()
        gave = function()
        least = min(least, time.process_time() - start)
    return least, np.asarray(gave)


def claim(name: str, value: float, sign: str, target: float) -> None:
    met = value <= target if sign == "<=" else value >= target
    print(f"RATIO {name} {value:.3f} target {sign} {target} {'ok' if met else 'short'}")


if __name__ == "__main__":
    main()
