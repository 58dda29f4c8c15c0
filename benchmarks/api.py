"""What does `agent.process(x)` cost over the caller's own `session.run`?

The whole agent (drift watch, selection, outbox, housekeeping; no broker) inside a loop of one's own, against what that
loop did before: `session.run(["logits"], {name: x})` and the label's arg max, plainly and through pre-bound memory
(IOBinding, the input copied into it). In one process, turn by turn in random order; 1 % is selected. Two models: one of
about 0.4 ms a sample, one of about 20 us, each sample alone, as whoever waits for an answer runs it. Medians of paired
rounds: of wall time, which other programs disturb; of the caller's own CPU time, which is what a call costs the caller,
and is claimed; and of the whole process's, which counts the scores of a block, selection, drift watch, and the packing
and storing of what was selected as well, all of which other threads do meanwhile. And the latest 1 % of single calls:
of a caller who never pauses some wait for the block before.

    python benchmarks/api.py [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from agent_loop import SAMPLES, SHARE, make_artifact

from edge_agent import Agent
from edge_agent.contract.artifact import MODEL
from edge_agent.session import Session

OVER_US = 8.0  # a few microseconds: a block is scored and chosen from by a thread beside the caller's
WARM_ROUNDS = 2

TOML = f"""
[device]
name = "bench"
data_dir = "data"
[source]
stream = "main"
[model]
artifact = "artifact"
[budget]
label_share = {SHARE}
"""


class Turn(NamedTuple):
    """What a round cost, in microseconds a sample: wall, CPU of the caller's thread, CPU of all."""

    wall: float
    cpu: float
    whole: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 10 if parser.parse_args().quick else 60
    claims = []
    with tempfile.TemporaryDirectory() as folder:
        for name in SAMPLES:
            found, late = compare(Path(folder) / name.replace(" ", ""), name, rounds)
            claims += show(name, found, late)
    print()
    for claim, value, target in claims:
        print(f"RATIO {claim} {value:.3f} target <= {target} {'ok' if value <= target else 'short'}")


def show(name: str, found: dict[str, list[Turn]], late: dict[str, float]) -> list[tuple[str, float, float]]:
    """The table of a model, and what is claimed of it."""
    print(
        f"{name:10} {'wall us':>9} {'CPU us':>8} {'of all':>8} {'over run':>9} {'it / run':>9} {'last 1 %, wall':>15}"
    )
    for kind, turns in found.items():
        wall, cpu, whole = (statistics.median(column) for column in zip(*turns, strict=True))
        times = statistics.median(a.cpu / b.cpu for a, b in zip(turns, found["run"], strict=True))
        print(f"{kind:10} {wall:9.1f} {cpu:8.1f} {whole:8.1f} {over(found, kind):9.1f} {times:9.3f} {late[kind]:15.1f}")
    return [(f"api_over_run_us_{name.replace(' ', '')}", over(found, "process"), OVER_US)]


def over(found: dict[str, list[Turn]], kind: str) -> float:
    """Microseconds of the caller's CPU a sample more than a plain run: the median of the rounds."""
    return statistics.median(a.cpu - b.cpu for a, b in zip(found[kind], found["run"], strict=True))


def compare(folder: Path, name: str, rounds: int) -> tuple[dict[str, list[Turn]], dict[str, float]]:
    """What each round cost, by kind, and the 99th percentile of single calls."""
    shape, dtype, count = SAMPLES[name]
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (count, *shape)).astype(dtype)
    folder.mkdir()
    artifact = make_artifact(folder / "artifact", x[:256], rng)
    (folder / "agent.toml").write_text(TOML)
    with Agent.open(folder / "agent.toml") as agent:
        calls = {"run": plain(artifact), "IOBinding": bound(artifact, x[0])}
        calls["process"] = answers(agent)
        found: dict[str, list[Turn]] = {kind: [] for kind in calls}
        single: dict[str, list[float]] = {kind: [] for kind in calls}
        for _ in range(rounds + WARM_ROUNDS):
            for kind in rng.permutation(list(calls)).tolist():
                call, began = calls[kind], clocks()
                for sample in x:
                    call(sample)
                found[kind].append(Turn(*(clocks() - began) / count * 1e6))
        for kind, call in calls.items():
            for sample in x:
                began_s = time.perf_counter()
                call(sample)
                single[kind].append((time.perf_counter() - began_s) * 1e6)
    late = {kind: float(np.percentile(took, 99)) for kind, took in single.items()}
    return {kind: turns[WARM_ROUNDS:] for kind, turns in found.items()}, late


def clocks() -> np.ndarray:
    """(3,) seconds, as Turn has them."""
    return np.array([time.perf_counter(), time.thread_time(), time.process_time()])


def open_session(artifact: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession((artifact / MODEL).read_bytes(), options, providers=["CPUExecutionProvider"])


def plain(artifact: Path) -> Callable[[np.ndarray], int]:
    session = open_session(artifact)
    names, name = ["logits"], session.get_inputs()[0].name

    def call(sample: np.ndarray) -> int:
        return int(session.run(names, {name: sample[None]})[0].argmax())

    return call


def bound(artifact: Path, like: np.ndarray) -> Callable[[np.ndarray], int]:
    session = open_session(artifact)
    place, logits = np.zeros((1, *like.shape), like.dtype), np.zeros((1, 10), np.float32)
    binding = session.io_binding()
    binding.bind_input(session.get_inputs()[0].name, "cpu", 0, like.dtype.type, place.shape, place.ctypes.data)
    binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)

    def call(sample: np.ndarray) -> int:
        place[0] = sample
        session.run_with_iobinding(binding)
        return int(logits.argmax())

    return call


def answers(agent: Session) -> Callable[[np.ndarray], int]:
    def call(sample: np.ndarray) -> int:
        return agent.process(sample).label

    return call


if __name__ == "__main__":
    main()
