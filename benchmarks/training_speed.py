"""Is the training loop as fast as a bare torch loop over the same tensors, and what memory does it take?

The same net, batches, optimiser and precision on the device that torch finds; the bare loop has nothing but forward,
loss, backward and step. Pairs are run in turn, and the median of their ratios counts. Then what each thing costs that
[teach] can switch on, and a whole round of the demo's size: fit, export, int8, description.

    python benchmarks/training_speed.py [--quick]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch.nn import functional

from models import samples
from models.data import default_cache, load_fashion
from models.learn import LABEL_SMOOTHING, WEIGHT_DECAY
from models.package import package
from models.recipes.catalogue import build
from models.train import Beside, Settings, fit

TARGET = 0.9
ROUND_S = 60.0
EXTRAS = {
    "shift": {"augment": ("shift",)},
    "average": {"ema": 0.99},
    "distil": {"distil": 2.0},
    "four heads": {"heads": 4},
    "pseudo-labels": {"pseudo_labels": 0.95},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer samples and pairs")
    quick = parser.parse_args().quick
    on_gpu = torch.cuda.is_available()
    count, epochs, pairs = (2_000, 2, 3) if quick else (60_000, 8, 5) if on_gpu else (6_000, 3, 5)
    size = 1024 if on_gpu else 64
    train, test = load_fashion(default_cache())
    x, y = train.x[:count], train.y[:count]
    told = {"epochs": epochs, "batch_size": size, "threads": 1}
    print(f"{torch.cuda.get_device_name() if on_gpu else 'CPU, 1 thread'}; {count} images, batches of {size}")

    def ours(**more: object) -> Callable[[], None]:
        parent = fit(x[:200], y[:200], classes=10, settings=Settings(epochs=1)).weights()
        beside = Beside(unlabelled=train.x[-1000:])
        return lambda: fit(x, y, classes=10, settings=Settings(**told, **more), parent=parent, beside=beside)

    plain, bare = ours(), lambda: bare_loop(x, y, epochs=epochs, size=size)
    bare()  # kernels are chosen, memory is taken
    rates = [(count * epochs / seconds(plain), count * epochs / seconds(bare)) for _ in range(pairs)]
    ratio = statistics.median(one / other for one, other in rates)
    print(f"{'images/s':16}{'ours':>12}{'bare':>12}{'ratio':>8}")
    own, other = (statistics.median(column) for column in zip(*rates, strict=True))
    print(f"{'':16}{own:12.0f}{other:12.0f}{ratio:8.3f}")
    print(f"peak memory: {peak()}")
    for name, more in EXTRAS.items():
        print(f"{name:16}{count * epochs / seconds(ours(**more)) / own:8.2f} of its speed", flush=True)

    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    net = fit(train.x[:3000], train.y[:3000], classes=10, settings=Settings())
    package(net, name="r", names=train.names, version=1, calibration=x[:512], holdout=(test.x[:1500], test.y[:1500]))
    round_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    print(f"a round of the demo (3,000 samples, 8 epochs, int8): {round_s:.1f} s, {cpu_s:.1f} s of CPU\n")
    told_ratio = (("training_speed_over_bare_loop", ratio, ">=", TARGET), ("training_round_s", round_s, "<=", ROUND_S))
    for name, value, sign, target in told_ratio:
        met = value >= target if sign == ">=" else value <= target
        print(f"RATIO {name} {value:.3f} target {sign} {target:g} {'ok' if met else 'short'}")


def bare_loop(x: np.ndarray, y: np.ndarray, *, epochs: int, size: int) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    net = build("cnn", x.shape[1:], classes=10, seed=0).to(device=device, memory_format=torch.channels_last)
    data, truth = torch.tensor(x, device=device), torch.tensor(y, device=device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=WEIGHT_DECAY)
    wanted = samples.shares(torch.tensor(y))
    bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    for epoch in range(epochs):
        order = samples.batches(wanted, size, torch.Generator().manual_seed(epoch))
        for rows in [part.to(device) for part in order]:
            with torch.autocast("cuda", torch.bfloat16) if bf16 else nullcontext():
                loss = functional.cross_entropy(net(data[rows])[0], truth[rows], label_smoothing=LABEL_SMOOTHING)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], None]) -> float:
    """Wall time on a GPU; on a CPU the thread's own, for the machine may be busy with others."""
    clock = time.perf_counter if torch.cuda.is_available() else time.thread_time
    began_s = clock()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - began_s


def peak() -> str:
    process = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB of the process"
    return process + (
        f", {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB on the GPU" if torch.cuda.is_available() else ""
    )


if __name__ == "__main__":
    main()
