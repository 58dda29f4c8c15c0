"""What does recording the probability of selection buy?

Streams of real samples through a real model; the selector of the device picks 10, 5 or 1 %, again and again with other
seeds. From the labels of what it picked the accuracy on the whole stream is estimated, and held against the truth:
error and coverage of the 95 % interval, against a uniform audit of as many labels, against what everybody does (the
plain accuracy of the picked), and against the limit: no unbiased estimator that knows of a sample what the device says
of it can have less error than the recorded probabilities allow (Godambe and Joshi 1965).

    python benchmarks/audit.py [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from _played import Played, play, play_watch

from edge_agent.choose.acquisition import Scorer
from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.choose.tally import BINS, bin_of
from models.errors import DataError
from server.audit.estimators import Estimate, Stream, difference, hajek, post_stratified

SHARES = (0.1, 0.05, 0.01)
BLOCK = 128
SLICES = 40  # of the utility, for the limit
DATA: dict[str, Callable[[], Played]] = {
    "fashion": lambda: play(train=1500, stream=10_000, seed=0),
    "watch": lambda: play_watch(train=200, stream=10_000, seed=0),
}


class Drawn(NamedTuple):
    """What the selector picked in one repetition."""

    rows: np.ndarray  # (n,)
    probability: np.ndarray  # (n,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    repetitions = 60 if parser.parse_args().quick else 800
    claims: list[str] = []
    for name, load in DATA.items():
        try:
            played = load()
        except DataError as error:
            print(f"{name}: left out: {error}\n")
            continue
        for share in SHARES:
            claims += measure(f"{name}_{share:.0%}".replace("%", "pc"), played, share, repetitions)
    print("\n".join(claims))


def measure(name: str, played: Played, share: float, repetitions: int) -> list[str]:
    """Print the table of one setting; returns its claims."""
    utility = utilities(played)
    draws = [select(played, share, seed) for seed in range(repetitions)]
    found: dict[str, list[Estimate]] = {}
    for seed, drawn in enumerate(draws):
        for kind, estimate in estimates(played, utility, drawn, share, seed).items():
            found.setdefault(kind, []).append(estimate)
    truth = float(played.right.mean())
    best, even = limit(played, utility, draws), rmse(found["uniform"], truth)
    labels, worth = (np.mean([getattr(e, key) for e in found["Hajek"]]) for key in ("labels", "effective"))
    said = [e for e in found["post-stratified"] if e.enough]
    held = f"; of these the post-stratified interval held the truth in {coverage(said, truth):.1%}" if said else ""
    print(f"{name}: true accuracy {truth:.4f}; {labels:.0f} labels worth {worth:.0f}; {repetitions} repetitions")
    print(f"enough to be said in {len(said) / repetitions:.0%} of them{held}\n")
    print(f"{'estimator':16} {'bias':>8} {'RMSE':>8} {'/uniform':>9} {'coverage':>9} {'half-width':>11}")
    for kind, several in found.items():
        errors = np.array([e.value for e in several]) - truth
        half = np.mean([(e.high - e.low) / 2 for e in several])
        error, covered = rmse(several, truth), coverage(several, truth)
        print(f"{kind:16} {errors.mean():+8.4f} {error:8.4f} {error / even:9.2f} {covered:9.3f} {half:11.4f}")
    print(f"{'limit':16} {'':8} {best:8.4f} {best / even:9.2f}\n")
    error = rmse(found["post-stratified"], truth)
    claims = [
        claim(f"audit_{name}_rmse_over_uniform", error / even, "<=", 1.0),
        claim(f"audit_{name}_rmse_over_limit", error / best, "<=", 1.2),
    ]
    for kind in ("Hajek", "difference", "post-stratified"):
        covered = coverage(found[kind], truth)
        claims.append(claim(f"audit_{name}_coverage_{kind.lower()}_low", covered, ">=", 0.93))
        claims.append(claim(f"audit_{name}_coverage_{kind.lower()}_high", covered, "<=", 0.97))
    return claims


def estimates(played: Played, utility: np.ndarray, drawn: Drawn, share: float, seed: int) -> dict[str, Estimate]:
    """By every estimator, and of a uniform audit."""
    rows, p = drawn
    right, confidence, bins = played.right[rows], played.confidence[rows], bin_of(utility)
    stream = Stream(
        np.bincount(bins, minlength=BINS).astype(np.float64), np.bincount(bins, played.confidence, minlength=BINS)
    )
    alike = np.random.default_rng([seed, 1]).choice(len(played.right), len(rows), replace=False)
    return {
        "uniform": hajek(played.right[alike], np.full(len(rows), len(rows) / len(played.right))),
        "picked, plain": hajek(right, np.full(len(rows), share)),
        "Hajek": hajek(right, p),
        "difference": difference(right, confidence, p, stream_confidence=float(played.confidence.mean())),
        "post-stratified": post_stratified(right, confidence, p, bins[rows], stream=stream),
    }


def utilities(played: Played) -> np.ndarray:
    """(N,) as the device scores it."""
    return Scorer("margin", temperature=played.temperature).score(played.logits).utility


def select(played: Played, share: float, seed: int) -> Drawn:
    """Rows that the device's selector picks of the stream, and their probabilities."""
    selector = NoveltyQuantile(Rules(label_share=share), SplitMix64(seed))
    scorer = Scorer("margin", temperature=played.temperature)
    rows, probabilities = [], []
    for start in range(0, len(played.right), BLOCK):
        logits, embedding = played.logits[start : start + BLOCK], played.embedding[start : start + BLOCK]
        for row, selection in selector.offer(scorer.score(logits), embedding, count=len(logits), sample_bytes=1000):
            rows.append(start + row)
            probabilities.append(selection.probability)
    return Drawn(np.array(rows), np.array(probabilities))


def limit(played: Played, utility: np.ndarray, draws: list[Drawn]) -> float:
    """Least standard error of an unbiased estimator that knows the accuracy at each utility.

    What is left is who is right at equal utility, r (1 - r), for every sample of a slice times 1 / p - 1. The mean of
    1 / p over a slice, sent or not, is Hajek's over what was sent.
    """
    edges = np.quantile(utility, np.linspace(0, 1, SLICES + 1)[1:-1])
    piece = np.searchsorted(edges, utility)
    held = np.bincount(piece, minlength=SLICES)
    right = np.bincount(piece, played.right, minlength=SLICES) / np.maximum(held, 1)
    weight = 1 / np.concatenate([drawn.probability for drawn in draws])
    sent = piece[np.concatenate([drawn.rows for drawn in draws])]
    squares = np.bincount(sent, weight**2, SLICES)
    mean = squares / np.maximum(np.bincount(sent, weight, SLICES), 1e-9)
    return float((held * right * (1 - right) * np.maximum(mean - 1, 0)).sum() ** 0.5 / len(utility))


def rmse(several: list[Estimate], truth: float) -> float:
    return float(np.sqrt(np.mean([(e.value - truth) ** 2 for e in several])))


def coverage(several: list[Estimate], truth: float) -> float:
    return float(np.mean([e.low <= truth <= e.high for e in several]))


def claim(name: str, value: float, sign: str, target: float) -> str:
    met = value <= target if sign == "<=" else value >= target
    return f"RATIO {name} {value:.3f} target {sign} {target} {'ok' if met else 'short'}"


if __name__ == "__main__":
    main()
