"""Does the server tell one device from all, other class shares from other looks, and when not to believe itself?

Real images (Fashion-MNIST) through a real int8 model. Every run draws anew, without replacement, what is held out and
what the stream shows, so that "clean" is clean. Peers in the same run: the plain two-sample test on the same signals,
which says drift or none and cannot say which; and the mean confidence that is always believed (CBPE as NannyML has it).

    python benchmarks/fleet_drift.py [--quick]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edge_agent.choose.acquisition import Scorer
from edge_agent.choose.signals import UNIT, Signals
from models import evaluate
from models.data import default_cache, load_fashion
from models.package import package
from models.train import Settings, fit
from server.drift.accuracy import Believed, without_labels
from server.drift.fleet import judge
from server.drift.series import Moved, Series, moved
from server.drift.shift import Known, Seen, describe, tell

CLASSES = 10
HELD_OUT, SPANS, SAMPLES = 2000, 24, 100  # of a window: a day, 100 samples an hour
DEVICES, HOURS, CHANGE = 12, 60, 40
ALPHA = 1.0 / 720.0 / 2.0  # as the server asks: a look each hour, one wrong verdict a month, half for each question
EVEN = np.full(CLASSES, 0.1)
MILD = np.array([3.0] * 3 + [1.0] * 7) / 16.0
STRONG = np.array([6.0] + [1.0] * 9) / 15.0


class Pool(NamedTuple):
    """What the model says of every image of a pool. values: (N, P)."""

    values: np.ndarray
    predicted: np.ndarray
    true: np.ndarray

    def take(self, rows: np.ndarray) -> Pool:
        """Some of them."""
        return Pool(*(part[rows] for part in self))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    quick = parser.parse_args().quick
    pools = see_all(train=3000 if quick else 6000)
    one_window(pools, runs=40 if quick else 200)
    whole_fleet(pools, runs=10 if quick else 60)


# --- the model, and what it sees


def see_all(*, train: int) -> dict[str, Pool]:
    known, unseen = load_fashion(default_cache())
    order = np.random.default_rng(0).permutation(len(known.y))
    base, held, more = (known.take(order[a:b]) for a, b in ((0, train), (train, train + 1000), (-4000, None)))
    net = fit(base.x, base.y, classes=CLASSES, settings=Settings(epochs=6, seed=0))
    made = package(net, name="bench", names=known.names, version=1, calibration=base.x[:512], holdout=(held.x, held.y))
    x, y = np.concatenate([unseen.x, more.x]), np.concatenate([unseen.y, more.y])
    rng = np.random.default_rng(1)
    worlds = {
        "clean": x,
        "contrast .8": scaled(128 + (x - 128.0) * 0.8),
        "dark .8": scaled(x * 0.8),
        "noise 20": scaled(x + rng.normal(0, 20, x.shape)),
        "blur 3x3": scaled(blurred(x)),
        "shift 2 px": np.roll(x, 2, axis=2),
        "fogged": scaled(x * 0.85 + 15),
    }
    signals = Signals(made.manifest.reference, temperature=made.manifest.temperature, embedding=True)
    return {name: see(made.onnx, signals, made.manifest.temperature, images, y) for name, images in worlds.items()}


def see(onnx: bytes, signals: Signals, temperature: float, x: np.ndarray, y: np.ndarray) -> Pool:
    logits, embedding = evaluate.run_onnx(onnx, x)
    rows = signals.rows(Scorer("margin", temperature=temperature).score(logits), logits, embedding, count=len(x))
    assert len(rows.values) == len(x)
    return Pool(rows.values / UNIT, rows.labels.astype(np.int64), y)


def scaled(x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0, 255).astype(np.uint8)


def blurred(x: np.ndarray) -> np.ndarray:
    wide = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1)), mode="edge")
    return sum(wide[:, i : i + 28, j : j + 28] for i in range(3) for j in range(3)) / 9.0


# --- one window: which kind, how accurate


class Tried(NamedTuple):
    """Over all runs of a scenario."""

    kinds: Counter[str]
    raw: float  # share in which the plain two-sample test says drift
    given: float  # share in which an accuracy was given
    covered: float  # of those, in whose interval the truth was
    half: float
    naive_covered: float
    accuracy: float


def one_window(pools: dict[str, Pool], *, runs: int) -> None:
    scenarios = {"clean": ("clean", EVEN), "labels mild": ("clean", MILD), "labels 6x1": ("clean", STRONG)}
    scenarios |= {name: (name, EVEN) for name in pools if name != "clean"}
    print(f"\none window of {SPANS * SAMPLES} samples, {HELD_OUT} held out, {runs} runs a row\n")
    print(
        f"{'scenario':12} {'accuracy':>8} {'none':>6} {'label':>6} {'covar.':>6} {'unsure':>6} {'2-sample':>8}", end=""
    )
    print(f" {'given':>6} {'covers':>6} {'half':>6} {'naive':>6}")
    found = {name: trials(pools["clean"], pools[world], shares, runs) for name, (world, shares) in scenarios.items()}
    for name, t in found.items():
        shares = [t.kinds[kind] / runs for kind in ("none", "label shift", "covariate or concept shift", "cannot tell")]
        print(f"{name:12} {t.accuracy:8.3f} {' '.join(f'{share:6.2f}' for share in shares)} {t.raw:8.2f}", end="")
        print(f" {t.given:6.2f} {t.covered:6.2f} {t.half:6.3f} {t.naive_covered:6.2f}")
    print()
    labels, looks = ("labels mild", "labels 6x1"), [name for name in scenarios if name in pools and name != "clean"]
    claim("drift_kind_wrong_on_clean", 1 - found["clean"].kinds["none"] / runs, "<=", 0.02)
    claim("drift_label_shift_recognised", worst(found[n].kinds["label shift"] / runs for n in labels), ">=", 0.95)
    claim(
        "drift_covariate_recognised",
        worst(found[n].kinds["covariate or concept shift"] / runs for n in looks),
        ">=",
        0.95,
    )
    believed = [found[name] for name in ("clean", *labels)]
    claim("drift_two_sample_calls_label_shift_drift", worst(found[n].raw for n in labels), ">=", 0.95)
    claim("accuracy_without_labels_covers", worst(t.covered for t in believed), ">=", 0.93)
    wrong = np.mean([t.given * (1 - t.covered) for t in found.values()])
    naive = np.mean([1 - t.naive_covered for t in found.values()])
    claim("accuracy_without_labels_false_over_naive_false", wrong / naive, "<=", 0.2)


def trials(clean: Pool, world: Pool, shares: np.ndarray, runs: int) -> Tried:
    kinds: Counter[str] = Counter()
    raw, given, covered, half, naive, accuracy = [], [], [], [], [], []
    for seed in range(runs):
        rng = np.random.default_rng([7, seed])
        order = rng.permutation(len(clean.true))
        known = Known(*clean.take(order[:HELD_OUT]), CLASSES)
        shown = world.take(drawn(order[HELD_OUT:], clean.true, shares, rng))
        model, seen = describe(known), window(shown)
        truth = float((shown.predicted == shown.true).mean())
        shift = tell(model, seen, alpha=ALPHA)
        kinds[shift.kind] += 1
        raw.append(shift.raw_p is not None and shift.raw_p < ALPHA)
        said = without_labels(known, model, seen, shift)
        given.append(isinstance(said, Believed))
        if isinstance(said, Believed):
            covered.append(said.low <= truth <= said.high)
            half.append((said.high - said.low) / 2)
        naive.append(abs(shown.values[:, 0].mean() - truth) <= cbpe_half(shown.values[:, 0]))
        accuracy.append(truth)
    return Tried(
        kinds,
        float(np.mean(raw)),
        float(np.mean(given)),
        float(np.mean(covered)) if covered else 1.0,
        float(np.mean(half)) if half else float("nan"),
        float(np.mean(naive)),
        float(np.mean(accuracy)),
    )


def cbpe_half(confidence: np.ndarray) -> float:
    return 1.96 * float(np.sqrt((confidence * (1 - confidence)).sum())) / len(confidence)


def drawn(rows: np.ndarray, true: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """SPANS * SAMPLES of the rows, with those shares of classes, in random order."""
    counts = rng.multinomial(SPANS * SAMPLES, shares)
    return rng.permutation(np.concatenate([rows[true[rows] == k][:n] for k, n in enumerate(counts)]))


def window(shown: Pool) -> Seen:
    parts = np.array_split(np.arange(len(shown.true)), SPANS)
    means = np.array([mean_of(shown, part) for part in parts])
    return Seen(np.array([float(len(part)) for part in parts]), means, np.zeros(SPANS, np.int64))


def mean_of(shown: Pool, rows: np.ndarray) -> np.ndarray:
    share = np.bincount(shown.predicted[rows], minlength=CLASSES) / len(rows)
    return np.concatenate([shown.values[rows].mean(axis=0), share])


# --- the fleet: who has moved


def whole_fleet(pools: dict[str, Pool], *, runs: int) -> None:
    print(
        f"\n{DEVICES} devices, {HOURS} hours, {SAMPLES} samples an hour, change after {CHANGE}; {runs} fleets a row\n"
    )
    everybody = set(range(DEVICES))
    rows: dict[str, tuple[str, set[int], float, str]] = {
        "nothing": ("clean", set(), 0.0, "nobody"),
        "one fogged": ("fogged", {3}, 1.0, "device"),
        "three dark": ("dark .8", {1, 4, 7}, 1.0, "several devices"),
        "all blurred": ("blur 3x3", everybody, 1.0, "fleet"),
        "5 % blurred": ("blur 3x3", everybody, 0.05, "fleet"),
    }
    right = {}
    for name, (world, who, share, expected) in rows.items():
        found = Counter()
        alone = 0
        for seed in range(runs):
            devices = fleet(pools["clean"], pools[world], who, share, np.random.default_rng([9, seed]))
            judged = judge(devices, {}, alpha=ALPHA)
            exact = expected == "fleet" or set(judged.flagged) == {f"cam-{i}" for i in who}
            found[judged.who if exact else f"{judged.who}, not all"] += 1
            alone += any(isinstance(m := moved(one), Moved) and m.p < ALPHA / DEVICES for one in devices.values())
        right[name] = found[expected] / runs
        told = ", ".join(f"{who} {count / runs:.2f}" for who, count in found.most_common())
        print(f"{name:12} {told:50} any device by itself (Bonferroni): {alone / runs:.2f}")
        right[f"{name} alone"] = alone / runs
    print()
    claim("fleet_wrong_verdicts_while_nothing_moves", 1 - right["nothing"], "<=", 0.02)
    claim("fleet_one_device_told", right["one fogged"], ">=", 0.95)
    claim("fleet_several_told", right["three dark"], ">=", 0.95)
    claim("fleet_season_told", right["all blurred"], ">=", 0.95)
    claim("fleet_weak_season_pooled_less_alone", right["5 % blurred"] - right["5 % blurred alone"], ">=", 0.5)


def fleet(clean: Pool, world: Pool, who: set[int], share: float, rng: np.random.Generator) -> dict[str, Series]:
    """`share` of the samples of the devices `who` come from `world` after CHANGE hours."""
    devices = {}
    for device in range(DEVICES):
        means = []
        for hour in range(HOURS):
            rows = rng.integers(0, len(clean.true), SAMPLES)
            many = int(rng.binomial(SAMPLES, share)) if device in who and hour >= CHANGE else 0
            parts = zip(world.take(rows[:many]), clean.take(rows[many:]), strict=True)
            means.append(mean_of(Pool(*(np.concatenate(pair) for pair in parts)), np.arange(SAMPLES)))
        start = np.arange(HOURS) * 3_600_000
        devices[f"cam-{device}"] = Series(start, np.full(HOURS, float(SAMPLES)), np.array(means), CLASSES)
    return devices


def worst(shares: object) -> float:
    return float(min(shares))  # type: ignore[call-overload]


def claim(name: str, value: float, sign: str, target: float) -> None:
    met: dict[str, Callable[[float, float], bool]] = {"<=": lambda v, t: v <= t, ">=": lambda v, t: v >= t}
    print(f"RATIO {name} {value:.3f} target {sign} {target} {'ok' if met[sign](value, target) else 'short'}")


if __name__ == "__main__":
    main()
