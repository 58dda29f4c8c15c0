"""What does it buy that devices send twice what is labelled, and the server chooses?

Eight devices see the same scenes, each scene half of them, as runs of near-duplicates. Every device selects by its own
rules (the real Selector); the server spares what shows the same and chooses by its own (the real plan); the model is
taught anew after every round. All arms spend the same labels, round by round: as many as devices that send k = 1 sent.

    python benchmarks/two_stage.py [--quick] [--seeds N] [--only NAME]

Data that are not installed are named and left out.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import NamedTuple

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import numpy as np
from _streams import fashion, filmed, mnist

from edge_agent.choose.acquisition import Scored, Scorer
from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.selector import Selector
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.config import AgentConfig, Budget, Device
from edge_agent.orders import configured
from models.data import Labelled
from models.errors import DataError
from server.backtest.material import Material
from server.backtest.replay import Classifier, Settings, judge, teach
from server.label.plan import Labelled as Known
from server.label.plan import Waiting, plan

DEVICES = 8
ROUNDS = 6
SCENES = 150  # new ones in a round
SEEN_BY = 0.5  # chance that a device sees a scene
RUN = 5  # near-duplicates in a row
SHARE = 0.025  # of the frames that may be labelled
BASE, TEST = 50, 2500
BLOCK = 32
COSINE = 0.995
TRAINING = Settings(epochs=20, steps=300, recipe="_streams:hidden_64")


class Arm(NamedTuple):
    """times: k. strategy: of the server; "" labels what comes, in order. cosine: None spares nothing."""

    times: float
    strategy: str = ""
    cosine: float | None = None


ARMS = {
    "k=1, all labelled": Arm(1.0),
    "k=1, duplicates spared": Arm(1.0, "margin_k_centre", COSINE),
    "k=2, margin_k_centre": Arm(2.0, "margin_k_centre", COSINE),
    "k=2, badge": Arm(2.0, "badge", COSINE),
    "k=2, no sparing": Arm(2.0, "margin_k_centre", None),
}
PLAIN = "k=1, all labelled"
QUICK = (PLAIN, "k=1, duplicates spared", "k=2, margin_k_centre")


class Fleet(NamedTuple):
    """What all devices see. round, device, scene: (N,) of each frame of the stream, in order of time."""

    material: Material
    round: np.ndarray
    device: np.ndarray
    scene: np.ndarray


class Course(NamedTuple):
    """How one arm went: labels spent, accuracy after each round, frames sent, labels for a scene that had one."""

    labels: list[int]
    accuracy: list[float]
    sent: int
    repeats: int
    wrongly_spared: int
    spared: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 seeds, three arms")
    parser.add_argument("--seeds", type=int, default=0, help="instead of 5")
    parser.add_argument("--only", default="", help="the data set of that name")
    options = parser.parse_args()
    arms = QUICK if options.quick else tuple(ARMS)
    claims: list[tuple[str, float, str, float]] = []
    for name, load in (("fashion", fashion), ("mnist", mnist)):
        if options.only not in name:
            continue
        try:
            pool, test = load()
        except DataError as error:
            print(f"{name}: left out: {error}")
            continue
        courses: dict[str, list[Course]] = {arm: [] for arm in arms}
        for seed in range(options.seeds or (2 if options.quick else 5)):
            fleet = make_fleet(pool, test, seed)
            for arm in arms:
                budget = np.diff([0, *courses[PLAIN][seed].labels]).tolist() if arm != PLAIN else None
                courses[arm].append(run(fleet, ARMS[arm], seed, budget))
        claims += report(name, courses)
    print()
    for name, value, sign, target in claims:
        met = value >= target if sign == ">=" else value <= target
        print(f"RATIO {name} {value:.3f} target {sign} {target:g} {'ok' if met else 'short'}")


def make_fleet(pool: Labelled, test: Labelled, seed: int) -> Fleet:
    """Scenes, who sees them, and what they look like each time."""
    rng = np.random.default_rng([seed, 0])
    rows = rng.permutation(len(pool.y))
    base, rest = rows[:BASE], rows[BASE : BASE + ROUNDS * SCENES]
    frames: list[tuple[int, int, int]] = []  # round, device, scene
    for scene in range(ROUNDS * SCENES):
        seen = np.flatnonzero(rng.random(DEVICES) < SEEN_BY)
        frames += [(scene // SCENES, int(device), scene) for device in seen for _ in range(RUN)]
    turn, device, scene = np.array(frames).T
    x = filmed(pool.x[rest[scene]].reshape(-1, 14, 14), rng).reshape(len(scene), -1).astype(np.float32)
    stream = Labelled(x, pool.y[rest[scene]], pool.names)
    judged = test.take(np.arange(min(TEST, len(test.y))))
    return Fleet(Material(pool.take(base), stream, judged), turn, device, scene)


def run(fleet: Fleet, arm: Arm, seed: int, budget: list[int] | None) -> Course:
    """One arm; `budget` is labels in each round, None: all that is sent."""
    rng = np.random.default_rng([seed, 1])
    stream = fleet.material.stream
    selectors = [_selector(arm.times, SplitMix64(seed, 2, device)) for device in range(DEVICES)]
    model = teach(fleet.material, [], seed=seed, settings=TRAINING)
    waiting: dict[int, str] = {}  # row -> reason
    labelled: list[int] = []
    sent, spared = 0, []
    course = Course([], [], 0, 0, 0, 0)
    for turn in range(ROUNDS):
        found = send(fleet, turn, model, selectors)
        sent += len(found)
        waiting |= found
        if arm.strategy and budget is not None:
            picked, beside = choose(stream.x, waiting, labelled, budget[turn], arm, model, rng)
            spared += list(beside.items())
        else:
            picked, beside = list(waiting), {}
        for row in (*picked, *beside):
            del waiting[row]
        labelled += picked
        if picked:
            model = teach(fleet.material, sorted(labelled), seed=seed, settings=TRAINING)
            for selector in selectors:
                selector.model_changed()
        course.labels.append(len(labelled))
        course.accuracy.append(judge(model, fleet.material.test))
    return course._replace(
        sent=sent,
        repeats=len(labelled) - len(np.unique(fleet.scene[labelled])),
        spared=len(spared),
        wrongly_spared=sum(fleet.scene[one] != fleet.scene[other] for one, other in spared),
    )


def _selector(times: float, rng: SplitMix64) -> Selector:
    budget = Budget(label_share=SHARE, over_selection=times, drift_reserve_labels=0.0)
    return NoveltyQuantile(configured(AgentConfig(device=Device(name="cam"), budget=budget)).rules, rng)


def send(fleet: Fleet, turn: int, model: Classifier, selectors: list[Selector]) -> dict[int, str]:
    """Rows that the devices send in a round, with the reason."""
    scorer = Scorer("margin")
    found: dict[int, str] = {}
    for device, selector in enumerate(selectors):
        rows = np.flatnonzero((fleet.round == turn) & (fleet.device == device))
        for start in range(0, len(rows), BLOCK):
            own = rows[start : start + BLOCK]
            logits, embedding = model(fleet.material.stream.x[own])
            scored: Scored = scorer.score(logits)
            for chosen in selector.offer(scored, embedding, count=len(own), sample_bytes=1):
                found[int(own[chosen.row])] = chosen.selection.reason
    return found


def choose(
    x: np.ndarray,
    reasons: dict[int, str],
    labelled: list[int],
    count: int,
    arm: Arm,
    model: Classifier,
    rng: np.random.Generator,
) -> tuple[list[int], dict[int, int]]:
    """What the server has labelled of what waits, and what stands with a labelled sample then."""
    rows = list(reasons)
    logits, embedding = model(x[rows])
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exp / exp.sum(axis=1, keepdims=True)
    known = model(x[labelled])[1] if labelled else np.zeros((0, embedding.shape[1]), np.float32)
    made = plan(
        Waiting(
            audit=np.array([reasons[row] in ("explore", "random") for row in rows]),
            utility=Scorer("margin").score(logits).utility,
            bodies=[str(row) for row in rows],
            encoded=np.ones(len(rows), np.bool_),
            embeddings=embedding,
            probabilities=probabilities,
        ),
        Known([f"labelled {row}" for row in labelled], known),
        count,
        strategy=arm.strategy,
        rng=rng,
        exploration=0.1,
        min_cosine=arm.cosine,
    )
    picked = {rows[at] for at in made.rows}
    pool = [*rows, *labelled]
    beside = {
        rows[at]: pool[other]
        for at, other in enumerate(made.stands_with.tolist())
        if other != at and (other >= len(rows) or rows[other] in picked)
    }
    return [rows[at] for at in made.rows], beside


def report(name: str, courses: dict[str, list[Course]]) -> list[tuple[str, float, str, float]]:
    """A table of one data set, and its claims."""
    plain = courses[PLAIN]
    print(f"\n{name}: {len(plain)} seeds, {DEVICES} devices, {ROUNDS} rounds")
    print(
        f"{'':24} {'sent':>6} {'labels':>7} {'repeats':>8} {'spared':>7} {'wrongly':>8} {'accuracy':>9} "
        f"{'gain, points':>16} {'labels saved':>13}"
    )
    claims = []
    for arm, found in courses.items():
        gain = [100.0 * (one.accuracy[-1] - base.accuracy[-1]) for one, base in zip(found, plain, strict=True)]
        half = 2.0 * np.std(gain, ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else np.nan
        share = saved(found, plain)
        labels, sent, repeats, spared, wrong = (np.mean([value(one) for one in found]) for value in FIGURES)
        print(
            f"{arm:24} {sent:6.0f} {labels:7.0f} {repeats:8.0f} {spared:7.0f} {wrong:8.0f} "
            f"{np.mean([one.accuracy[-1] for one in found]):9.4f} {np.mean(gain):+8.2f} +-{half:5.2f} {share:12.0%}",
            flush=True,
        )
        if arm in QUICK[1:]:
            key = arm.replace("=", "").replace(", ", "_").replace(" ", "_")
            claims.append((f"two_stage_{name}_{key}_labels_saved", share, ">=", 0.0))
            claims.append((f"two_stage_{name}_{key}_gain_points", float(np.mean(gain)), ">=", 0.0))
    return claims


FIGURES: tuple[Callable[[Course], float], ...] = (
    lambda one: one.labels[-1],
    lambda one: one.sent,
    lambda one: one.repeats,
    lambda one: one.spared,
    lambda one: one.wrongly_spared,
)


def saved(found: list[Course], plain: list[Course]) -> float:
    """Share of the plain arm's labels that the other needs fewer, for what both reach: read off the mean curves."""
    own, base = (np.mean([one.accuracy for one in some], axis=0) for some in (found, plain))
    own_labels, base_labels = (np.mean([one.labels for one in some], axis=0) for some in (found, plain))
    own, base = np.maximum.accumulate(own), np.maximum.accumulate(base)
    level = min(own[-1], base[-1])
    return float(1.0 - np.interp(level, own, own_labels) / np.interp(level, base, base_labels))


if __name__ == "__main__":
    main()
