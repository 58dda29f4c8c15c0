"""How often do the gates block a candidate that is honest, and how often do they let through one that is not?

Real trainings on Fashion-MNIST at a quarter of its pixels, judged as a round does (tests/taught.py says what goes wrong
with them). Honest ones in three situations: labels teach something, labels teach nothing new (the hardest to leave
alone: a candidate that is as good), and two classes are new. An honest training may lose a class for all that it gains.
Whether a block was wrong is said by three times as many samples, that nobody judged by: of no gate that failed is the
figure beyond its limit there. What went wrong counts as caught when the gate that names it fails, whatever else does.

Beside it, without trainings: on an audit that grows, a candidate that is as good as the champion is looked at after
every 20 labels. How often is it ever found to be worse, by our interval and by one for a fixed number of samples?

    python benchmarks/gates.py [--quick] [--seeds N]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

import taught

from models.package import Packaged
from server.teach.gates import paired
from server.teach.gates.verdict import Gate
from server.teach.judging import Judged

WORLDS = {"labels teach": {}, "nothing new": {"settled": True}, "two new classes": {"classes": 8}}
PLANTED: dict[str, tuple[Callable[..., Judged], str]] = {
    "a class of one device": (taught.lost_class, f"stream/device {taught.BUSY}/class {taught.LOST}"),
    "labels turned round": (taught.flipped_labels, f"labels/device {taught.LIAR}"),
    "temperature": (taught.wrong_temperature, "stream/calibration"),
    "int8 collapse": (taught.collapsed_int8, "int8_agreement"),
    "forgetting": (taught.forgetful, "import"),
    "poisoned augmentation": (taught.disturbed_lessons, "robustness/noise"),
    "sure of nothing": (taught.sure_of_nothing, "strangers"),
}
SIZE = {"imports": 1500, "labels": 1500, "held": 600, "audit": 2000, "epochs": 8}  # as many as [teach] has
LOOKS = range(20, 1001, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="6 seeds for each kind of candidate, 200 audits")
    parser.add_argument("--seeds", type=int, default=0, help="instead of 40 (quick: 6)")
    options = parser.parse_args()
    seeds = options.seeds or (6 if options.quick else 40)
    spent, blocked, wrongly = honest(seeds)
    caught = planted(max(2, seeds // 4))
    ours, plain = peeked(200 if options.quick else 1000)
    print(f"\nfound worse at some look: {ours:.1%} by the anytime interval, {plain:.1%} by one for a fixed number")
    print()
    say("gates_honest_blocked_share", blocked, "<=", 0.05)
    say("gates_honest_blocked_wrongly_share", wrongly, "<=", 0.025)
    say("gates_planted_caught_share", float(np.mean(list(caught.values()))), ">=", 0.95)
    say("gates_least_caught_share_of_a_kind", min(caught.values()), ">=", 0.8)
    say("gates_peeking_false_share", ours, "<=", 0.025)
    say("gates_seconds_to_judge_a_round", spent, "<=", 5.0)


def say(name: str, value: float, sign: str, target: float) -> None:
    met = value <= target if sign == "<=" else value >= target
    print(f"RATIO {name} {value:.3f} target {sign} {target:g} {'ok' if met else 'short'}")


def honest(seeds: int) -> tuple[float, float, float]:
    """CPU seconds to judge one, the share that was blocked, and that of those blocked for what is not so."""
    spent: list[float] = []
    blocked = wrong = 0
    print(f"{'honest':<20}{'blocked':>9}{'wrongly':>9}  gained  by which gates")
    for name, situation in WORLDS.items():
        by: Counter[str] = Counter()
        gained, stopped, mistaken = [], 0, 0
        for judged, seconds, refuted in candidates(situation, seeds):
            failed = [gate.name for gate in judged.verdict.failed()]
            by.update(failed)
            stopped += bool(failed)
            mistaken += bool(failed) and set(failed) == refuted
            spent.append(seconds)
            gained.append(gain(judged))
        blocked, wrong = blocked + stopped, wrong + mistaken
        said = ", ".join(f"{gate} {count}" for gate, count in by.most_common(6)) or "-"
        print(f"{name:<20}{stopped:>4}/{seeds:<4}{mistaken:>4}/{seeds:<4}  {np.mean(gained):+.3f}  {said}", flush=True)
    total = seeds * len(WORLDS)
    return float(np.median(spent)), blocked / total, wrong / total


def candidates(situation: dict[str, object], seeds: int) -> Iterator[tuple[Judged, float, set[str]]]:
    """Each judged, the CPU seconds of that, and the gates that fresh samples refute; a new fleet for every fourth."""
    for seed in range(seeds):
        if seed % 4 == 0:
            world = taught.fleet(seed=100 + seed, **SIZE, **situation)  # type: ignore[arg-type]
        made = taught.packed(taught.trained(world, seed=seed, share=0.9), world.names, world.data)
        begun = time.process_time()
        judged = taught.judged(world, made)
        yield judged, time.process_time() - begun, refuted(world, made, judged)


def refuted(world: taught.Fleet, made: Packaged, judged: Judged) -> set[str]:
    """Failed gates whose figure is within its limit on samples that nobody judged by."""
    if judged.verdict.passed:
        return set()
    again = taught.judged(replace(world, data=replace(world.data, holdout=world.fresh)), made)
    figures = {gate.name: gate.figure for gate in again.verdict.gates}
    return {gate.name for gate in judged.verdict.failed() if within(gate, figures.get(gate.name, gate.figure))}


def within(gate: Gate, figure: float) -> bool:
    """Whether the figure is on the other side of the limit than what failed."""
    return (figure >= gate.limit) if gate.figure < gate.limit else (figure <= gate.limit)


def gain(judged: Judged) -> float:
    return judged.figures["candidate_stream_accuracy"] - judged.figures["champion_stream_accuracy"]


def planted(seeds: int) -> dict[str, float]:
    """The share of each kind that was caught by the gate that names it."""
    caught: dict[str, list[bool]] = {name: [] for name in PLANTED}
    beside: dict[str, Counter[str]] = {name: Counter() for name in PLANTED}
    gained: dict[str, list[float]] = {name: [] for name in PLANTED}
    for seed in range(seeds):
        world = taught.fleet(seed=500 + seed, **SIZE)
        for name, (make, gate) in PLANTED.items():
            judged = make(world, seed=seed)
            failed = {one.name for one in judged.verdict.failed()}
            caught[name].append(gate in failed)
            beside[name].update(sorted(failed - {gate}))
            gained[name].append(gain(judged))
    print(f"\n{'planted':<24}{'caught':>9}  gained  by the gate, and oftenest beside it")
    for name, (_, gate) in PLANTED.items():
        others = ", ".join(f"{other} {count}" for other, count in beside[name].most_common(3)) or "-"
        print(f"{name:<24}{sum(caught[name]):>4}/{seeds:<4}  {np.mean(gained[name]):+.3f}  {gate}; {others}")
    return {name: float(np.mean(found)) for name, found in caught.items()}


def peeked(audits: int) -> tuple[float, float]:
    """The share of audits in which some look finds worse what is as good: by our rule, and by that for a fixed set."""
    rng = np.random.default_rng(0)
    ever = np.zeros((audits, 2), bool)
    for audit in range(audits):
        values = rng.choice([-1, 0, 1], size=LOOKS[-1], p=[0.05, 0.9, 0.05])
        for n in LOOKS:
            ones = np.ones(n)
            ever[audit, 0] |= paired.anytime_below(values[:n], ones, 0.0) < 0.025
            ever[audit, 1] |= paired.fixed_below(values[:n], ones, 0.0) < 0.025
    ours, plain = ever.mean(axis=0)
    return float(ours), float(plain)


if __name__ == "__main__":
    main()
