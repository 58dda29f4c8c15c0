"""Is a net learned by several ranks as by one process, is it the same net each time, and what does it cost?

Each recipe learns in place, twice, and once more from weights that are rounded otherwise: what that changes is what
other orders of addition may change. Then in ranks under torchrun: one with NCCL and two that share the GPU where torch
finds one, two on the CPU anyway. Curves are held against each other, weights of a repetition bit by bit. In the end a
training that `fit` launches, one of whose ranks is killed.

    python benchmarks/ranks.py [--quick]

torch, numpy and msgspec are enough; recipes whose packages are not installed are left out, and that is said.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # where it is not installed
from models.checkpoint import FILE
from models.curve import Point
from models.errors import DataError
from models.job import Beside, Job
from models.launch import Launch
from models.net import Parts, Prepare
from models.ranks import Ranks, group
from models.recipes.catalogue import build, defaults
from models.recipes.minilm import WIDTH, _Body
from models.train import Net, Settings, _begun, fit, learned

ON_GPU = torch.cuda.is_available()
CLASSES = 3
APART = 10.0  # times what rounding the first weights otherwise changes: optimisers turn a rounded gradient into a step
NOTHING = 1e-4  # of a loss: less is none, whatever rounding does
SPEED = 0.8  # of the loop in place
QUICK_ONES = ("cnn", "cnn1d", "mlp", "text", "fcos")  # that a CPU learns in a second or two
SHAPES: dict[str, tuple[int, tuple[int, ...], str]] = {
    "large": (61_440, (28, 28), "uint8"),  # cnn in batches of 1,024, for its speed
    "cnn": (600, (28, 28), "uint8"),
    "cnn1d": (600, (100, 6), "float32"),
    "mlp": (600, (30,), "float32"),
    "text": (600, (64,), "uint8"),
    "fcos": (300, (48, 48), "uint8"),
    "audio": (200, (16_000,), "int16"),
    "lite0": (120, (64, 64, 3), "uint8"),
    "ssdlite": (100, (96, 96, 3), "uint8"),
    "minilm": (120, (32,), "int32"),
}


class Curve(msgspec.Struct):
    """Of one training."""

    losses: list[float]
    epoch_s: float  # of those after the first


class Apart(NamedTuple):
    """Ranks against in place."""

    most: float  # of any recipe and epoch: how far losses are apart, in what rounding changes
    speed: float  # of `large`, in the speed in place; 0: was not among them


class Seen(NamedTuple):
    """A training in place."""

    curve: Curve
    again: bool  # the same again gave the same weights
    rounded: float  # how far losses are apart when the first weights are rounded otherwise


def untaught(shape: tuple[int, ...]) -> Parts:
    """The net of `minilm` before it was taught: what it was taught is 90 MB."""
    return Parts(Prepare("text", shape), _Body(shape[0]), WIDTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the recipes that a CPU learns in seconds")
    parser.add_argument("--rank", nargs=2, metavar=("FOLDER", "NAMES"), help="what torchrun starts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # rounds to 10 bits
    if options.rank:
        _rank(Path(options.rank[0]), options.rank[1].split(","))
        return
    print(f"{torch.cuda.get_device_name() if ON_GPU else 'no CUDA device'}; torch {torch.__version__}")
    seen = _in_place([*SHAPES] if ON_GPU and not options.quick else [*QUICK_ONES])
    names, apart = [name for name in seen if name != "large"], {}
    if ON_GPU:
        apart["one_nccl"] = _apart("one rank, NCCL", 1, [*seen], seen)
        apart["two_on_gpu"] = _apart("two ranks on one GPU, gloo", 2, names, seen)
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # for those that are started from here on
    on_cpu = {name: one for name, one in seen.items() if name in QUICK_ONES}
    apart["two_on_cpu"] = _apart("two ranks on the CPU, gloo", 2, [*on_cpu], on_cpu, elsewhere=ON_GPU)
    same = _killed()
    print()
    for name, found in apart.items():
        _say(f"ranks_{name}_apart_over_rounding", found.most, "<=", APART)
    if ON_GPU and apart["one_nccl"].speed:
        _say("ranks_one_nccl_over_in_place", apart["one_nccl"].speed, ">=", SPEED)
    _say("ranks_same_bits_again", sum(one.again for one in seen.values()) / len(seen), ">=", 1.0)
    _say("ranks_killed_same_bits", same, ">=", 1.0)


def _say(name: str, value: float, sign: str, target: float) -> None:
    met = value >= target if sign == ">=" else value <= target
    print(f"RATIO {name} {value:.3g} target {sign} {target:g} {'ok' if met else 'short'}")


# --- what is learned ---


def _job(name: str) -> Job:
    count, shape, dtype = SHAPES[name]
    rng = np.random.default_rng(0)
    y = rng.integers(CLASSES, size=count)
    patterns = rng.normal(0.0, 40.0, (CLASSES, *shape))
    x: Any = rng.normal(0.0, 30.0, (count, *shape)) + patterns[y] + 100.0
    if dtype == "int32":
        x = np.abs(x) * 50.0
    x = np.clip(x, 0, 255).astype(dtype) if dtype == "uint8" else x.astype(dtype)
    recipe, truth = {"large": "cnn"}.get(name, name), y
    task: Any = "detection" if name in ("fcos", "ssdlite") else "classification"
    if task == "detection":
        x, truth = _scenes(rng, y, shape)
    told: dict[str, Any] = {**defaults(recipe, task), "epochs": 3, "precision": "fp32"}
    told["recipe"] = recipe if recipe != "minilm" else "benchmarks.ranks:untaught"
    if name == "large":
        told |= {"batch_size": 1024, "precision": "auto", "epochs": 5}
    settings = msgspec.convert(told, type=Settings)
    return Job(x=x, y=truth, classes=CLASSES, settings=settings, task=task, parent=None, beside=Beside())


def _scenes(rng: np.random.Generator, y: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A bright square in each, whose brightness tells its class."""
    side = shape[0] // 3
    x = rng.normal(30.0, 5.0, (len(y), *shape))
    truth = np.full((len(y), 1, 6), 1.0, np.float32)
    for image, boxes, k in zip(x, truth, y, strict=True):
        top, left = rng.integers(shape[0] - side, size=2)
        image[top : top + side, left : left + side] += 60.0 * (k + 1)
        corners = np.array([left, top, left + side, top + side]) / shape[0]
        boxes[0, :5] = k, *corners
    return np.clip(x, 0, 255).astype(np.uint8), truth


def _learn(job: Job, ranks: Ranks, *, rounded: bool = False) -> tuple[Curve, bytes]:
    losses, times = [], [time.perf_counter()]

    def listen(_share: float, _text: str, point: Point | None = None, /) -> None:
        if point is not None:
            losses.append(point.loss)
            times.append(time.perf_counter())

    net = _begun(job, None)
    if rounded:
        chance = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in net.module.parameters():
                weight.mul_(1.0 + 1.2e-7 * torch.randn(weight.shape, generator=chance))
    net = learned(job, net, None, ranks, checkpoint=None, progress=listen)
    took = np.diff(times).tolist()
    return Curve(losses, statistics.median(took[1:] or [0.0])), net.weights()


# --- in place, and in ranks ---


def _in_place(names: list[str]) -> dict[str, Seen]:
    seen = {}
    print(f"\n{'in place':10}{'seconds':>9}{'first loss':>12}{'last':>8}{'rounded':>10}  the same again")
    for name in names:
        start = time.perf_counter()
        try:
            job = _job(name)
            build(job.settings.recipe, job.x.shape[1:], classes=CLASSES, seed=0, task=job.task)
        except DataError as error:
            print(f"{name:10} left out: {error}")
            continue
        curve, weights = _learn(job, Ranks())
        again = _learn(job, Ranks())[1] == weights
        rounded = _far(curve, _learn(job, Ranks(), rounded=True)[0])
        took = time.perf_counter() - start
        first, last = curve.losses[0], curve.losses[-1]
        print(f"{name:10}{took:9.1f}{first:12.3f}{last:8.3f}{rounded:10.1e}  {again}", flush=True)
        seen[name] = Seen(curve, again, rounded)
    return seen


def _far(one: Curve, other: Curve) -> float:
    return max(abs(a - b) for a, b in zip(one.losses, other.losses, strict=True))


def _apart(what: str, world: int, names: list[str], seen: dict[str, Seen], *, elsewhere: bool = False) -> Apart:
    """How far the losses of any epoch are from those in place; elsewhere: what was seen was, so one rank is asked."""
    start = time.perf_counter()
    found = _launched(world, names)
    took = time.perf_counter() - start
    alone = _launched(1, names) if elsewhere else {name: one.curve for name, one in seen.items()}
    print(f"\n{what}: {took:.1f} s with the start of the processes")
    most = 0.0
    for name, curve in found.items():
        far = _far(curve, alone[name])
        most = max(most, far / max(seen[name].rounded, NOTHING))
        times = f"an epoch {curve.epoch_s:.3f} s, in place {alone[name].epoch_s:.3f} s"
        print(f"{name:10} losses {far:.1e} apart at most; {times}", flush=True)
    large = found.get("large")
    return Apart(most, alone["large"].epoch_s / large.epoch_s if large else 0.0)


def _launched(world: int, names: list[str]) -> dict[str, Curve]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
        subprocess.run([*command, __file__, "--rank", folder, ",".join(names)], check=True, timeout=300)
        return msgspec.json.decode((Path(folder) / "curves.json").read_bytes(), type=dict[str, Curve])


def _rank(folder: Path, names: list[str]) -> None:
    with group() as ranks:
        curves = {name: _learn(_job(name), ranks)[0] for name in names}
        if ranks.first:
            (folder / "curves.json").write_bytes(msgspec.json.encode(curves))


# --- a rank is killed ---


def _killed() -> float:
    """1 when a training whose second rank is killed ends in the weights of one that was left alone."""
    job = _job("cnn")
    settings = msgspec.structs.replace(job.settings, epochs=8, batch_size=4)  # 1,200 steps: six checkpoints
    net = []
    for kills in (False, True):
        with tempfile.TemporaryDirectory() as name:
            start, said = time.perf_counter(), []
            for line in _fits(job, settings, Path(name), kill=kills):
                said.append(line)
            net.append(said.pop())
            print(f"\nlaunched by fit, two ranks{', one killed' if kills else ''}: {time.perf_counter() - start:.1f} s")
            print("\n".join(line for line in said if "begin again" in line))
    return float(net[0] == net[1])


def _fits(job: Job, settings: Settings, folder: Path, *, kill: bool) -> Iterator[Any]:
    """What is said, and the weights."""
    said: list[str] = []

    def listen(_share: float, text: str, _point: Point | None = None, /) -> None:
        said.append(text)
        if kill and len(said) == 3 and (folder / FILE).exists():
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                words = process.read_bytes().split(b"\0")
                if b"models.rank" in words and str(folder / "ranks").encode() in words and b"models.node" not in words:
                    os.kill(int(process.parent.name), signal.SIGKILL)
                    return

    launch = Launch(kind="torchrun", processes=2)
    net: Net = fit(job.x, job.y, classes=CLASSES, settings=settings, folder=folder, progress=listen, launch=launch)
    yield from said
    yield net.weights()


if __name__ == "__main__":
    main()
