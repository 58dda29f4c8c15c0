"""How should a net go on from its champion: what gains, what breaks least, what forgets least?

Two rounds after a first model, each with more labels; every row is a way of training that goes on from its own last
model. Fashion-MNIST, where two classes come only after the first model; and the smartwatch, where people come whom the
first model never saw. Per row, mean over seeds: accuracy of the last model on held-out samples of all classes or
people; negative flips (share of samples that the model before had right and the next has wrong, mean of the rounds; Yan
et al., CVPR 2021); what the last model lost of the first one's accuracy on the old classes or people; CPU seconds of a
round.

    python benchmarks/recipes.py [--quick] [--only ROW,ROW] [--tasks fashion,watch] [--seeds N] [--out DIR]

The row `default` is what the product does where nobody says otherwise (the recipes' TOML files). With --out, finished
cells stay there and a later run goes on from them.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch

from models.data import Labelled, default_cache, load_fashion, load_watch
from models.recipes.catalogue import defaults
from models.train import Beside, Net, Settings, fit

ROUNDS = 2
LATE = (8, 9)  # bag, ankle boot
SP = {"shrink": 0.4}
ROWS: dict[str, dict[str, Any]] = {
    "scratch": {},
    "warm": {},
    "new labels only": {"replay": 0.0},
    "shrink .4": SP,
    "augment": {"augment": True},
    "distil 2": {"distil": 2.0},
    "distil 2 + average": {"distil": 2.0, "ema": 0.99},
    "shrink + distil + average": SP | {"distil": 0.5, "ema": 0.99},
    "augment + distil 2": {"augment": True, "distil": 2.0},
    "average": {"ema": 0.99},
    "distil": {"distil": 0.5},
    "replay 1/4": {"replay": 0.25},
    "four heads": {"heads": 4},
    "default": {},
}
QUICK = ("scratch", "warm", "new labels only", "shrink .4", "shrink + distil + average", "default")
AUGMENT = {"cnn": ("shift",), "cnn1d": ("jitter", "scale")}


class Task(NamedTuple):
    """What comes when."""

    recipe: str
    parts: list[Labelled]  # what each round adds; the first is the first model's
    test: Labelled
    old: np.ndarray  # (N,) bool: test samples of classes or people that the first model knew


class Found(NamedTuple):
    """Of one row and seed."""

    accuracy: float
    flips: float
    forgotten: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 seeds, fewer rows")
    parser.add_argument("--only", default="", help="rows of these names, with commas and no blanks between")
    parser.add_argument("--tasks", default="fashion,watch")
    parser.add_argument("--seeds", type=int, default=0, help="instead of 5 (quick: 2)")
    parser.add_argument("--out", type=Path, default=None, help="folder for finished cells")
    options = parser.parse_args()
    rows = options.only.split(",") if options.only else [*QUICK] if options.quick else [*ROWS]
    claims = []
    for name in options.tasks.split(","):
        seeds = options.seeds or (2 if options.quick else 5)
        made = {"fashion": fashion, "watch": watch}[name]
        found: dict[str, list[Found]] = {row: [] for row in rows}
        for seed in range(seeds):
            task, firsts = made(np.random.default_rng(seed)), dict[Settings, Net]()
            for row in rows:
                settings = settings_of(task, row, seed)
                file = options.out and options.out / f"{name}-{cell_name(settings, scratch=row == 'scratch')}.json"
                if not (file and file.exists()):
                    cell = played(task, settings, firsts, scratch=row == "scratch")
                    if file:
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(msgspec.json.encode(cell))
                found[row].append(msgspec.json.decode(file.read_bytes(), type=Found) if file else cell)
        show(name, seeds, found)
        claims += list(held_to(name, found))
    print()
    for claim, value, sign, target in claims:
        met = value >= target if sign == ">=" else value <= target
        print(f"RATIO {claim} {value:.4f} target {sign} {target:g} {'ok' if met else 'short'}")


def fashion(rng: np.random.Generator) -> Task:
    train, test = load_fashion(default_cache())
    order = rng.permutation(len(train.y))
    first = order[~np.isin(train.y[order], LATE)][:1000]
    rest = np.setdiff1d(order, first, assume_unique=True)
    rest = rng.permutation(rest)[: 400 * ROUNDS].reshape(ROUNDS, -1)
    held = test.take(rng.permutation(len(test.y))[:3000])
    return Task("cnn", [train.take(rows) for rows in (first, *rest)], held, ~np.isin(held.y, LATE))


def watch(rng: np.random.Generator) -> Task:
    """Of every person the first two thirds of each exercise are there to learn from."""
    data = load_watch()
    people = rng.permutation(np.unique(data.device))
    learn = np.zeros(len(data.y), bool)
    for person in people:
        for label in range(len(data.names)):
            rows = np.flatnonzero((data.device == person) & (data.y == label))
            learn[rows[: 2 * len(rows) // 3]] = True
    first, later = people[:4], people[4 : 4 + 3 * ROUNDS].reshape(ROUNDS, -1)
    parts = [
        data.take(rng.permutation(np.flatnonzero(learn & np.isin(data.device, group)))[:500])
        for group in (first, *later)
    ]
    held = data.take(np.flatnonzero(~learn))
    return Task("cnn1d", parts, held, np.isin(held.device, first))


def played(task: Task, settings: Settings, firsts: dict[Settings, Net], *, scratch: bool) -> Found:
    """All rounds of a row. `firsts`: first models made so far, for rows whose first model is the same."""
    torch.set_num_threads(1)
    seed = settings.seed
    plain = Settings(
        seed=seed, epochs=settings.epochs, heads=settings.heads, augment=settings.augment, ema=settings.ema
    )
    if plain not in firsts:
        firsts[plain] = fit(task.parts[0].x, task.parts[0].y, classes=classes_of(task.parts[:1]), settings=plain)
    net = firsts[plain]
    first = right = says(net, task.test.x) == task.test.y
    flips, began_s = [], time.thread_time()
    for number in range(1, len(task.parts)):
        net = next_model(task.parts[: number + 1], net, settings, scratch=scratch)
        now = says(net, task.test.x) == task.test.y
        flips.append(float((right & ~now).mean()))
        right = now
    return Found(
        accuracy=float(right.mean()),
        flips=float(np.mean(flips)),
        forgotten=float(first[task.old].mean() - right[task.old].mean()),
        seconds=(time.thread_time() - began_s) / len(flips),
    )


def cell_name(settings: Settings, *, scratch: bool) -> str:
    return hashlib.sha256(msgspec.json.encode((settings, scratch, ROUNDS))).hexdigest()[:16]


def settings_of(task: Task, row: str, seed: int) -> Settings:
    told = dict(defaults(task.recipe) if row == "default" else ROWS[row])
    if told.get("augment") is True:
        told["augment"] = AUGMENT[task.recipe]
    return msgspec.convert(told | {"seed": seed}, type=Settings)


def next_model(parts: list[Labelled], net: Net, settings: Settings, *, scratch: bool) -> Net:
    x, y = (np.concatenate([getattr(part, key) for part in parts]) for key in ("x", "y"))
    known = np.arange(len(y)) < len(y) - len(parts[-1].y)
    parent = None if scratch else net.weights()
    if settings.replay == 0.0:
        x, y, known = x[~known], y[~known], None
    return fit(x, y, classes=classes_of(parts), settings=settings, parent=parent, beside=Beside(known=known))


def classes_of(parts: list[Labelled]) -> int:
    return int(max(part.y.max() for part in parts)) + 1


def says(net: Net, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        logits = torch.cat([net.module(part)[0] for part in torch.split(torch.from_numpy(x), 1000)])
    return (logits.softmax(-1).mean(1) if logits.ndim == 3 else logits).argmax(1).numpy()


def show(task: str, seeds: int, found: dict[str, list[Found]]) -> None:
    print(f"\n{task}, {seeds} seeds, {ROUNDS} rounds (+- is the standard error over seeds)")
    print(f"{'':26}{'accuracy':>17}{'neg. flips':>17}{'forgotten':>17}{'CPU s':>11}")
    for row, cells in found.items():
        columns = [np.array(column) for column in zip(*cells, strict=True)]
        told = [f"{c.mean():8.4f} +-{c.std(ddof=1) / len(c) ** 0.5:.4f}" for c in columns[:3]]
        print(f"{row:26}{told[0]:>17}{told[1]:>17}{told[2]:>17}{columns[3].mean():11.1f}", flush=True)


def held_to(task: str, found: dict[str, list[Found]]) -> Iterator[tuple[str, float, str, float]]:
    """The default against the plain ways."""
    mean = {row: Found(*np.mean(cells, axis=0)) for row, cells in found.items()}
    if not {"default", "scratch", "warm"} <= mean.keys():
        return
    yield (
        f"recipes_{task}_default_accuracy_over_scratch",
        mean["default"].accuracy / mean["scratch"].accuracy,
        ">=",
        1.0,
    )
    yield f"recipes_{task}_default_accuracy_over_warm", mean["default"].accuracy / mean["warm"].accuracy, ">=", 1.0
    yield f"recipes_{task}_default_flips_over_warm", mean["default"].flips / mean["warm"].flips, "<=", 1.0
    yield f"recipes_{task}_default_round_s", mean["default"].seconds, "<=", 60.0


if __name__ == "__main__":
    main()
