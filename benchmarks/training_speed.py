"""Is the training loop as fast as a bare torch loop over the same tensors, and what memory does it take?

The same net, batches, optimiser and precision on the device that torch finds; the bare loop has nothing but forward,
loss, backward and step. Both are run in turn; an epoch after the first one counts, and the median of the ratios. Then
whether a training that was killed goes on, and the same call gives the same weights; what each thing costs that [teach]
can switch on; and a whole round of the demo's size: fit, export, int8, description.

    python benchmarks/training_speed.py [--quick]

torch, numpy and msgspec are enough; without onnx and onnxruntime the round is left out, and that is said.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))  # where it is not installed
from models import samples
from models.learn import WEIGHT_DECAY
from models.recipes.catalogue import build
from models.settings import LABEL_SMOOTHING, Settings
from models.train import Beside, Net, fit

TARGET = 0.9
ROUND_S = 60.0
CLASSES = 10
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
EXTRAS: dict[str, dict[str, Any]] = {
    "shift": {"augment": ("shift",)},
    "average": {"ema": 0.99},
    "distil": {"distil": 2.0},
    "four heads": {"heads": 4},
    "pseudo-labels": {"pseudo_labels": 0.95},
}


class Work(NamedTuple):
    """Samples and how many at a time."""

    x: np.ndarray  # (N, *shape) uint8
    y: np.ndarray  # (N,) int64
    size: int
    epochs: int

    @property
    def name(self) -> str:
        """For people."""
        return "x".join(map(str, self.x.shape[1:])) + f", batches of {self.size}"


class Way(NamedTuple):
    """How both loops go."""

    name: str
    precision: str = "fp32"
    compiled: bool = False
    beside: bool = False  # samples stay in the machine's memory


WAYS = (
    Way("fp32"),
    Way("bf16", "bf16"),
    Way("bf16, samples beside the GPU", "bf16", beside=True),
    Way("bf16, compiled", "bf16", compiled=True),
)


class Run(NamedTuple):
    """What one training took."""

    epochs_s: list[float]
    peak_mib: float  # on the GPU

    @property
    def epoch_s(self) -> float:
        """Of those after the first, in which kernels are chosen and memory is taken."""
        return statistics.median(self.epochs_s[1:])


class Pair(NamedTuple):
    """Ours and the bare loop, in turn."""

    own: Run
    bare: Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer samples and pairs")
    quick = parser.parse_args().quick
    print(f"{torch.cuda.get_device_name() if ON_GPU else 'no CUDA device: CPU, 1 thread'}; torch {torch.__version__}")
    works = [_work((28, 28), 1024, 60, 7), _work((96, 96, 3), 256, 40, 7)]
    if not ON_GPU:
        works = [_work((28, 28), 64, 16 if quick else 94, 4)]
    ways = [way for way in WAYS[: None if ON_GPU else 1] if not (quick and way.compiled)]
    ratios = [ratio for work in works for ratio in _speed(work, ways, pairs=4)]
    agreement = _again(works[0])
    _extras(works[0])
    round_s = _round()
    print()
    _say("training_speed_over_bare_loop", min(ratios), ">=", TARGET)
    _say("training_resumed_agreement", agreement, ">=", 0.99)
    if round_s is not None:
        _say("training_round_s", round_s, "<=", ROUND_S)


def _say(name: str, value: float, sign: str, target: float) -> None:
    met = value >= target if sign == ">=" else value <= target
    print(f"RATIO {name} {value:.3f} target {sign} {target:g} {'ok' if met else 'short'}")


def _work(shape: tuple[int, ...], size: int, batches: int, epochs: int) -> Work:
    """Images of ten patterns, in noise."""
    rng, count = np.random.default_rng(0), size * batches
    y = rng.integers(CLASSES, size=count)
    patterns = rng.integers(0, 256, (CLASSES, *shape), dtype=np.uint8)
    x = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    return Work(x // 4 * 3 + patterns[y] // 4, y, size, epochs)


# --- speed ---


def _speed(work: Work, ways: Sequence[Way], *, pairs: int) -> Iterator[float]:
    """A row for each way, and its ratio."""
    print(f"\n{work.name}, {len(work.x)} images: images/s of an epoch after the first")
    print(f"{'':30}{'ours':>10}{'bare':>10}{'ratio':>7}{'peak MiB':>10}{'bare':>7}{'first epoch s':>15}{'bare':>7}")
    for way in ways:
        count = 2 if way.compiled else pairs + 1  # compiling takes its time
        runs = [Pair(_ours(work, way), _bare(work, way)) for _ in range(count)]
        own, bare = (statistics.median(run.epoch_s for run in column) for column in zip(*runs[1:], strict=True))
        ratio = statistics.median(run.bare.epoch_s / run.own.epoch_s for run in runs[1:])
        first, last = runs[0], runs[-1]
        print(
            f"{way.name:30}{len(work.x) / own:10.0f}{len(work.x) / bare:10.0f}{ratio:7.3f}"
            f"{last.own.peak_mib:10.0f}{last.bare.peak_mib:7.0f}{first.own.epochs_s[0]:15.2f}"
            f"{first.bare.epochs_s[0]:7.2f}",
            flush=True,
        )
        yield ratio
    plain = _bare(work, Way("fp32"), layout=torch.contiguous_format)
    print(f"{'fp32, channels first':30}{'':10}{len(work.x) / plain.epoch_s:10.0f}")
    print(f"process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most")


def _ours(work: Work, way: Way, **more: Any) -> Run:
    settings = Settings(
        recipe="cnn",
        epochs=work.epochs,
        batch_size=work.size,
        precision=way.precision,
        compile="on" if way.compiled else "off",
        **more,
    )
    watch = _Watch()
    with _samples_beside() if way.beside else nullcontext():
        _fit(work, settings, progress=lambda *_: watch.lap())
    return watch.run()


def _fit(work: Work, settings: Settings, *, parent: bytes | None = None, **more: Any) -> Net:
    if settings.distil and parent is None:
        parent = _parent(work)
    beside = Beside(unlabelled=work.x[-1000:])
    return fit(work.x, work.y, classes=CLASSES, settings=settings, parent=parent, beside=beside, **more)


def _parent(work: Work) -> bytes:
    return fit(work.x[:200], work.y[:200], classes=CLASSES, settings=Settings(recipe="cnn", epochs=1)).weights()


def _bare(work: Work, way: Way, *, layout: torch.memory_format = torch.channels_last) -> Run:
    """A loop as one writes it for this task alone."""
    watch = _Watch()
    torch.set_num_threads(1)
    net = build("cnn", work.x.shape[1:], classes=CLASSES, seed=0).to(device=DEVICE, memory_format=layout)
    data, truth = torch.tensor(work.x), torch.tensor(work.y, device=DEVICE)
    data = data if way.beside else data.to(DEVICE)
    optimiser = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=WEIGHT_DECAY, fused=ON_GPU)
    forward = torch.compile(net) if way.compiled else net
    wanted = samples.shares(torch.tensor(work.y))
    for epoch in range(work.epochs):
        parts = samples.batches(wanted, work.size, torch.Generator().manual_seed(epoch))
        there = torch.split(torch.cat(parts).to(DEVICE), work.size)
        for rows, here in zip(parts, there, strict=True):
            x = data[rows].to(DEVICE) if way.beside else data[here]
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=way.precision == "bf16"):
                loss = functional.cross_entropy(forward(x)[0], truth[here], label_smoothing=LABEL_SMOOTHING)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        watch.lap()
    return watch.run()


class _Watch:
    """Seconds of each epoch: wall time on a GPU; on a CPU the thread's own, for the machine may be busy with others."""

    def __init__(self) -> None:
        torch.compiler.reset()  # nothing is left of the run before, which would count against the limit of variants
        if ON_GPU:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self._times = [self._now()]

    def lap(self) -> None:
        self._times.append(self._now())

    def run(self) -> Run:
        peak = torch.cuda.max_memory_allocated() / 2**20 if ON_GPU else 0.0
        return Run(np.diff(self._times).tolist(), peak)

    def _now(self) -> float:
        if not ON_GPU:
            return time.thread_time()
        torch.cuda.synchronize()
        return time.perf_counter()


@contextmanager
def _samples_beside() -> Iterator[None]:
    """As if they took more than their share of the GPU's memory."""
    was, samples.SAMPLE_SHARE = samples.SAMPLE_SHARE, 0.0
    try:
        yield
    finally:
        samples.SAMPLE_SHARE = was


# --- the same again ---


class _KilledError(Exception):
    pass


def _again(work: Work) -> float:
    """How many answers of a training that was killed and went on are those of one that was not."""
    settings = Settings(recipe="cnn", epochs=16, batch_size=work.size, shrink=0.4, distil=0.5, ema=0.99, seed=1)
    fit_again = partial(_fit, work, settings, parent=_parent(work))
    whole, other = fit_again(), fit_again()
    seen: list[str] = []

    def killed(share: float, *_: object) -> None:
        if share > 0.9:
            raise _KilledError

    with tempfile.TemporaryDirectory() as folder:
        try:
            fit_again(folder=Path(folder), progress=killed)
        except _KilledError:
            resumed = fit_again(folder=Path(folder), progress=lambda _share, said, *_: seen.append(said))
    print(f"\nkilled and begun again: goes on at {seen[0].split(',')[0]}")
    print(f"the same call again:    {_apart(whole, other, work)}")
    print(f"killed, gone on:        {_apart(whole, resumed, work)}")
    if ON_GPU:
        with _samples_beside():
            print(f"samples beside the GPU: {_apart(whole, fit_again(), work)}")
        exact = msgspec.structs.replace(settings, precision="fp32")
        print(f"fp32, again:            {_apart(_fit(work, exact), _fit(work, exact), work)}")
    return _agreement(whole, resumed, work) if len(seen) < settings.epochs else 0.0


def _apart(one: Net, other: Net, work: Work) -> str:
    pairs = list(zip(one.module.state_dict().values(), other.module.state_dict().values(), strict=True))
    if all(torch.equal(a, b) for a, b in pairs):
        return "the very same weights"
    most = max(float((a - b).abs().max()) for a, b in pairs if a.is_floating_point())
    return f"weights {most:.2g} apart at most, {_agreement(one, other, work):.4f} of the answers the same"


def _agreement(one: Net, other: Net, work: Work) -> float:
    with torch.no_grad():
        said = [net.module(torch.tensor(work.x[:2000]))[0].argmax(dim=1) for net in (one, other)]
    return float((said[0] == said[1]).double().mean())


# --- what else costs ---


def _extras(work: Work) -> None:
    print()
    way = Way("", "bf16" if ON_GPU else "fp32")
    plain = _ours(work, way).epoch_s
    for name, more in EXTRAS.items():
        print(f"{name:16}{plain / _ours(work, way, **more).epoch_s:8.2f} of its speed", flush=True)


def _round() -> float | None:
    """Seconds of a round of the demo's size; None: what it needs is not installed."""
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"a round of the demo: left out, for there is no {' and no '.join(missing)} here")
        return None
    from models.package import package

    work = _work((28, 28), 100, 45, 8)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    net = fit(work.x[:3000], work.y[:3000], classes=CLASSES, settings=Settings(shrink=0.4, distil=0.5, ema=0.99))
    names = tuple(map(str, range(CLASSES)))
    holdout = (work.x[3000:], work.y[3000:])
    package(net, name="r", names=names, version=1, calibration=work.x[:512], holdout=holdout)
    round_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    print(f"a round of the demo (3,000 samples, 8 epochs, int8): {round_s:.1f} s, {cpu_s:.1f} s of CPU")
    return round_s


if __name__ == "__main__":
    main()
