"""Does a stream feel that a new model comes?

Housekeeping, loop, slots and models are the agent's own. While the stream goes on, a new version is loaded and warmed
up, sees a share of the samples in the shadow, takes over, runs on probation and is committed; then the next one. A gap
is the time between two answers: between two moments at which the loop was ready for another sample. At a steady rate,
and as fast as samples are taken; for a model of about 0.4 ms and one of about 20 us.

The longest gap while a new version came is held against gaps at rest just before it, for as long as the version took:
so that the longest of as many is compared, and what the machine does by itself shows. "load", "shadow" and "swap, live"
say in which phase the gap was. Each figure is the median over the versions; the longest of all beside it.

Targets. No sample is missed: as many are scored as were given. At 200/s a gap is 5 ms: below twice the p99 no sample is
late by a whole period. As fast as it goes the p99 is a run of the model, and one sample in 256 waits for the pass over
its block, with and without a new version; for a model of 20 us that alone is tens of runs. There the measure is the
pass: the sample that waits longest while a version comes waits at most one pass longer than the one that waits longest
without, and at most twice as long. (What that is over the p99 is shown.) A shadow may slow the stream by its share and
a tenth.

    python benchmarks/swap.py [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from edge_agent.choose.drift import Watch
from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.config import Update
from edge_agent.contract.artifact import encode_manifest, write_artifact
from edge_agent.contract.types import Reading
from edge_agent.housekeeping import Housekeeping
from edge_agent.intake import Intake
from edge_agent.loop import Cursor, Loop
from edge_agent.model import Model
from edge_agent.outgoing import Identity
from edge_agent.update.slots import Staged, Steady
from edge_agent.update.updater import Updater
from models.package import Packaged, package
from models.train import Settings, fit

CLASSES = 10
SHAPES = {"0.4 ms": ((160, 160, 3), np.uint8), "20 us": ((40, 6), np.float32)}
RATES = {"200/s": 200.0, "at full speed": 0.0}
SHARE = 0.2
SLOWED = 1.0 + SHARE + 0.1
REST_S = 3.0  # at rest, before each version; more than one takes
BLOCK = 256  # samples to a pass


class Phase(NamedTuple):
    """A stretch of time, and what went on."""

    name: str
    begin_s: float
    end_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer versions")
    versions = 3 if parser.parse_args().quick else 12
    claims = []
    print(f"{'':24} {'at rest, ms':>33}   {'a new version, ms':>40}")
    heads = ("p99", "pass", "longest", "load", "shadow", "swap, live", "longest", "of all", "over p99")
    print(f"{'':24} " + "".join(f"{head:>{11 if at < 3 else 12}}" for at, head in enumerate(heads)))
    for name in SHAPES:
        for rate in RATES:
            with tempfile.TemporaryDirectory() as folder:
                found = play(Path(folder), name, RATES[rate], versions)
            claims += show(f"{name}, {rate}", found, full_speed=RATES[rate] == 0.0)
    print()
    for claim, value, target in claims:
        print(f"RATIO {claim} {value:.3f} target <= {target:.2f} {'ok' if value <= target else 'short'}")


def show(name: str, found: Found, *, full_speed: bool) -> list[tuple[str, float, float]]:
    p99, one_pass, rest = found.p99(), found.one_pass(), found.longest("rest")
    longest = {phase: found.longest(phase) for phase in ("load", "shadow", "live")}
    each = [max(gaps) for gaps in zip(*longest.values(), strict=True)]
    middle = statistics.median(each)
    figures = (p99, one_pass, *map(statistics.median, (rest, *longest.values())), middle, max(each))
    cells = "".join(f"{1000 * figure:{11 if at < 3 else 12}.2f}" for at, figure in enumerate(figures))
    print(f"{name:25}{cells}{middle / p99:12.1f}")
    slug = name.replace(" ", "").replace(",", "_").replace("/s", "_per_s").replace(".", "")
    claims = [
        (f"swap_missed_{slug}", float(found.missed), 0.0),
        (f"swap_gap_over_longest_{slug}", middle / statistics.median(rest), 2.0),
    ]
    if not full_speed:
        return [*claims, (f"swap_gap_over_p99_{slug}", middle / p99, 2.0)]
    added = statistics.median(gap - before for gap, before in zip(each, rest, strict=True))
    return [
        *claims,
        (f"swap_delay_in_passes_{slug}", added / one_pass, 1.0),
        (f"shadow_slows_{slug}", found.mean("shadow") / found.mean("rest"), SLOWED),
    ]


class Found:
    """When the loop was ready for each sample, how many it never answered, and which phases there were."""

    def __init__(self, ready_s: list[float], missed: int, phases: list[Phase]) -> None:
        self._ready_s, self.missed, self.phases = np.array(ready_s), missed, phases

    def gaps(self, phase: Phase) -> np.ndarray:
        """Seconds between two moments of being ready; the one that reaches into the phase is counted in."""
        first, last = np.searchsorted(self._ready_s, (phase.begin_s, phase.end_s))
        return np.diff(self._ready_s[max(0, first - 1) : last + 1])

    def longest(self, name: str) -> list[float]:
        """Gap of each such phase, seconds."""
        return [float(self.gaps(phase).max()) for phase in self.phases if phase.name == name]

    def p99(self) -> float:
        """Of all gaps at rest, seconds."""
        return float(np.percentile(np.concatenate([self.gaps(one) for one in self.phases if one.name == "rest"]), 99))

    def one_pass(self) -> float:
        """Of a block at rest, seconds: the median of the longest gaps, of which there is one to a block."""
        gaps = np.concatenate([self.gaps(one) for one in self.phases if one.name == "rest"])
        return float(np.median(np.sort(gaps)[-max(1, len(gaps) // BLOCK) :]))

    def mean(self, name: str) -> float:
        """Seconds a sample: the median over the phases of that name."""
        return statistics.median(float(self.gaps(phase).mean()) for phase in self.phases if phase.name == name)


def play(folder: Path, name: str, rate_per_s: float, versions: int) -> Found:
    """A stream over which so many versions come."""
    shape, dtype = SHAPES[name]
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (512, *shape)).astype(dtype)
    made = make(x[:256], rng)
    updater = Updater(
        folder / "models", variant="cpu-int8", check=lambda _: None, needs=None, max_starts=3, keep_versions=3,
        request=lambda _: False, report=lambda *_: None,
    )  # fmt: skip
    write_artifact(folder / "first", made.manifest, made.onnx)
    updater.install_first(folder / "first")
    model = Model(folder / "models" / "1")
    loop = Loop(
        model,
        NoveltyQuantile(Rules(label_share=0.01), SplitMix64(0)),
        identity=Identity("bench", "main", 1),
        acquisition="margin",
        cursor=Cursor(),
        flush_s=0.2,
        hand_over=lambda _: None,
        watch=Watch(model.manifest, false_alarms_per_month=1.0, embedding=True),
    )
    # Whether it is kept is not the question: noise that reads differently must not cut a trial short.
    update = Update(
        shadow_samples=120, shadow_share=SHARE, shadow_s=60.0, probation_samples=200, probation_s=1.0,
        max_latency_ratio=1000.0, max_confidence_shift=0.0, max_memory_ratio=0.0, max_invalid_share=1.0,
    )  # fmt: skip
    house = Housekeeping(
        loop, updater, update=update, load=Model, write_status=lambda _: None, status_s=30.0,
        rng=SplitMix64(1),
    )  # fmt: skip
    stopping, stream = threading.Event(), Stream(x, rate_per_s)
    phases: list[Phase] = []
    threads = [
        threading.Thread(target=house.run, args=(stopping,)),
        threading.Thread(target=bring, args=(updater, loop, made, versions, phases, stopping)),
    ]
    for thread in threads:
        thread.start()
    Intake(loop).run(stream.readings(stopping), stopping)
    for thread in threads:
        thread.join()
    return Found(stream.ready_s, stream.given - loop.record.counts().scored, phases)


def make(x: np.ndarray, rng: np.random.Generator) -> Packaged:
    """An int8 model of that input, hardly trained: what it says does not matter here."""
    y = rng.integers(0, CLASSES, len(x))
    net = fit(x, y, classes=CLASSES, settings=Settings(epochs=1))
    names = [str(index) for index in range(CLASSES)]
    return package(net, name="bench", names=names, version=1, calibration=x, holdout=(x, y))


class Stream:
    """Samples at a rate, 0: as fast as they are taken. Notes how many were given, and when the next could be."""

    def __init__(self, x: np.ndarray, rate_per_s: float) -> None:
        self._x, self._rate_per_s = x, rate_per_s
        self.given = 0
        self.ready_s: list[float] = []

    def readings(self, stopping: threading.Event) -> Iterator[Reading | None]:
        """Until `stopping`."""
        clock, begun_s, rate_per_s, x = time.perf_counter, time.perf_counter(), self._rate_per_s, self._x
        while not stopping.is_set():
            seq = self.given
            if rate_per_s and (wait_s := begun_s + seq / rate_per_s - clock()) > 0:
                time.sleep(wait_s)
            self.given += 1
            yield Reading(x[seq % len(x)], seq)
            self.ready_s.append(clock())


def bring(
    updater: Updater, loop: Loop, made: Packaged, versions: int, phases: list[Phase], stopping: threading.Event
) -> None:
    """Stage one version after the other, and note what goes on when."""
    try:
        time.sleep(2.0)
        for version in range(2, versions + 2):
            time.sleep(REST_S)
            manifest = msgspec.structs.replace(made.manifest, version=version)
            arrival = updater.shelf.arrival(version)
            unpacked = updater.shelf.unpack(arrival, encode_manifest(manifest), made.onnx)
            staged = time.perf_counter()
            updater.stage(unpacked, version)
            looks = wait(
                lambda version=version: (seen := loop.extras.shadowed()) is not None and seen.version == version
            )
            swaps = wait(lambda: not isinstance(updater.slot_state(), Staged))
            done = wait(lambda version=version: updater.slot_state() == Steady(committed=version))
            phases.append(Phase("rest", staged - min(REST_S, done - staged), staged))
            phases += [Phase("load", staged, looks), Phase("shadow", looks, swaps), Phase("live", swaps, done)]
    finally:
        stopping.set()


def wait(true: object) -> float:
    """When it became so."""
    deadline = time.monotonic() + 120.0
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("a trial did not go on")
        time.sleep(0.002)
    return time.perf_counter()


if __name__ == "__main__":
    main()
