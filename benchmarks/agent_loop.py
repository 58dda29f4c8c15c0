"""What does the agent cost over a bare onnxruntime loop?

The loop of the agent as it is configured by default, drift watch included, with its outbox, its writer and its uplink
to a real broker at work, against `for sample in samples: session.run(["logits"], {name: sample})`, and against the same
through pre-bound memory (IOBinding): in one process, turn by turn in random order. 1 % is selected. Two models: one of
about 0.4 ms a sample, one of about 20 us. The agent infers on several samples of a small model in one run, where
nobody waits for a single one; a bare loop that answers sample by sample cannot. What is left without is shown too
("one by one"), and what it is without the watch.

Ratios are medians of paired rounds: of wall time, which other programs disturb, and of the process's CPU time, which
counts the writer's and the uplink's threads as well. The rounds are of several processes: where in memory things came
to lie makes one agent up to a tenth slower than its twin for as long as both live. And what importing the agent costs
over importing numpy and onnxruntime, in processes of their own, turn by turn: from bytecode, as `pip install` leaves
it. How much of that is our own code, and how much paho-mqtt, msgspec and what else of Python they and we load, is told
apart; so is a first start without bytecode, which compiles all of ours.

    python benchmarks/agent_loop.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort

import edge_agent
from edge_agent.choose.drift import Watch
from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.contract.artifact import MODEL, write_artifact
from edge_agent.contract.types import Reading
from edge_agent.contract.wire import Birth, ModelState
from edge_agent.intake import Intake
from edge_agent.loop import Cursor, Loop
from edge_agent.model import TOGETHER, Model
from edge_agent.outgoing import Identity
from edge_agent.send.outbox import Outbox
from edge_agent.send.uplink import Uplink
from edge_agent.send.writer import Writer
from models.package import package
from models.train import Settings, fit
from server.collect.broker import HOST, BrokerChild

SHARE = 0.01
CLASSES = 10
SAMPLES = {"0.4 ms": ((160, 160, 3), np.uint8, 324), "20 us": ((40, 6), np.float32, 8192)}  # shape, dtype, a turn
TARGETS = {"0.4 ms": 0.95, "20 us": 0.90}
IMPORT_CPU_S, IMPORT_BYTES = 0.15, 30_000_000
BASE, AGENT = "import numpy, onnxruntime", "import numpy, onnxruntime, edge_agent.agent"
WARM_ROUNDS = 2  # the watch learns what is usual, the selector its quantile
AGENTS = {"agent": {}, "one by one": {"together": 1}, "no watch": {"watch": False}}


class Turn(NamedTuple):
    """What a round cost, in microseconds a sample."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    quick = parser.parse_args().quick
    processes, rounds = (3, 4) if quick else (9, 8)
    claims: list[tuple[str, float, str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in SAMPLES:
            found = apart(Path(folder) / name.replace(" ", ""), name, processes, rounds)
            show(name, found)
            slug = f"agent_loop_{name.replace(' ', '')}"
            claims.append((slug, ratio(found, "agent", "bare", 0), ">=", TARGETS[name]))
            print(f"  over pre-bound memory: {ratio(found, 'agent', 'pre-bound', 0):.3f}\n")
    cost = import_cost(5 if quick else 15)
    print("import over numpy and onnxruntime, ms CPU, MB:")
    for name, (cpu_s, resident) in cost.items():
        print(f"  {name:20} {cpu_s * 1000:6.0f} {resident / 1e6:6.1f}")
    cpu_s, resident = cost["agent"]
    claims += [
        ("agent_import_cpu_s", cpu_s, "<=", IMPORT_CPU_S),
        ("agent_import_mb", resident / 1e6, "<=", IMPORT_BYTES / 1e6),
    ]
    print()
    for claim, value, sign, target in claims:
        met = value >= target if sign == ">=" else value <= target
        print(f"RATIO {claim} {value:.3f} target {sign} {target} {'ok' if met else 'short'}")


def show(name: str, found: dict[str, list[Turn]]) -> None:
    print(f"{name:12} {'wall us':>9} {'CPU us':>9} {'bare / it, wall':>16} {'CPU':>7}")
    for kind, turns in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*turns, strict=True))
        by_wall, by_cpu = (ratio(found, kind, "bare", column) for column in (0, 1))
        print(f"{kind:12} {wall:9.1f} {cpu:9.1f} {by_wall:16.3f} {by_cpu:7.3f}")


def ratio(found: dict[str, list[Turn]], kind: str, over: str, column: int) -> float:
    """How much faster `kind` is than `over`: the median of the rounds."""
    return statistics.median(b[column] / a[column] for a, b in zip(found[kind], found[over], strict=True))


def apart(folder: Path, name: str, processes: int, rounds: int) -> dict[str, list[Turn]]:
    """What `compare` finds in processes of its own, one after the other."""
    found: dict[str, list[Turn]] = {}
    for number in range(processes):
        # A pool each: the next process is not to inherit the memory of the last.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            turns = pool.submit(compare, folder / str(number), name, rounds, number).result()
        for kind, more in turns.items():
            found.setdefault(kind, []).extend(more)
    return found


def compare(folder: Path, name: str, rounds: int, seed: int) -> dict[str, list[Turn]]:
    """Per round, of a bare loop, of one over pre-bound memory, and of the agents."""
    shape, dtype, count = SAMPLES[name]
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 255, (count, *shape)).astype(dtype)
    artifact = make_artifact(folder / "artifact", x[:256], rng)
    kinds: dict[str, Callable[[], None]] = {"bare": bare_loop(artifact, x), "pre-bound": ring_loop(artifact, x)}
    with ExitStack() as running:
        agents = {
            kind: running.enter_context(Running(folder / kind.replace(" ", ""), artifact, x, **changes))
            for kind, changes in AGENTS.items()
        }
        kinds |= {kind: agent.play for kind, agent in agents.items()}
        found: dict[str, list[Turn]] = {kind: [] for kind in kinds}
        for _ in range(rounds + WARM_ROUNDS):
            for kind in rng.permutation(list(kinds)).tolist():
                began_s, cpu_s = time.perf_counter(), time.process_time()
                kinds[kind]()
                wall_s = time.perf_counter() - began_s
                looked_s = time.thread_time()
                for agent in agents.values():
                    agent.settle()
                time.sleep(0.05)
                cpu_s = time.process_time() - cpu_s - (time.thread_time() - looked_s)
                found[kind].append(Turn(wall_s / count * 1e6, cpu_s / count * 1e6))
    return {kind: turns[WARM_ROUNDS:] for kind, turns in found.items()}


def make_artifact(folder: Path, x: np.ndarray, rng: np.random.Generator) -> Path:
    """An int8 model of that input, hardly trained: what it says does not matter here."""
    y = rng.integers(0, CLASSES, len(x))
    net = fit(x, y, classes=CLASSES, settings=Settings(epochs=1))
    names = [str(index) for index in range(CLASSES)]
    made = package(net, name="bench", names=names, version=1, calibration=x, holdout=(x, y))
    write_artifact(folder, made.manifest, made.onnx)
    return folder


def bare_loop(artifact: Path, x: np.ndarray) -> Callable[[], None]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession((artifact / MODEL).read_bytes(), options, providers=["CPUExecutionProvider"])
    names, name = ["logits"], session.get_inputs()[0].name
    samples = list(x[:, None])

    def run() -> None:
        for sample in samples:
            session.run(names, {name: sample})

    return run


def ring_loop(artifact: Path, x: np.ndarray) -> Callable[[], None]:
    """Pre-bound rows and nothing else: the ceiling of sample by sample."""
    model = Model(artifact, together=1)
    rounds = [model.steps[row % model.rows] for row in range(len(x))]

    def run(_model: Model = model) -> None:  # kept: its memory is what the steps write to
        for sample, (place, infer) in zip(x, rounds, strict=True):
            place[...] = sample
            infer()

    return run


class Running:
    """The agent's parts at work: loop, writer, outbox, uplink, a broker, and a server that receipts."""

    def __init__(
        self, folder: Path, artifact: Path, x: np.ndarray, *, together: int = TOGETHER, watch: bool = True
    ) -> None:
        folder.mkdir(parents=True)
        self._x, self._seq = x, 0
        self._broker = BrokerChild(folder / "broker")
        self._broker.start()
        receipts = Path(__file__).with_name("_receipts.py")
        self._server = subprocess.Popen([sys.executable, str(receipts), str(self._broker.port)])
        self._outbox = Outbox(folder / "outbox.db", max_bytes=10**8, max_rows=10**5, min_free_disk_bytes=0)
        boot = self._outbox.next_boot()
        state = ModelState(version=1, sha256="", slot="steady")
        self._uplink = Uplink(
            host=HOST, port=self._broker.port, tls=None, username="", password="", fleet="bench", device="bench",
            session="bench", outbox=self._outbox, window=32, retry_first_s=2.0, retry_max_s=10.0, keepalive_s=30,
            heartbeat_s=3600.0, heartbeat=lambda: None, on_desired=lambda _: None, on_block=lambda *_: None,
            uniform=np.random.default_rng(0).random,
            birth=lambda: Birth(
                session="bench", boot=boot, at_ms=0, agent="", runtime="", machine="", stream="main", model=state,
                outbox=self._outbox.status(),
            ),
        )  # fmt: skip
        self._writer = Writer(
            self._outbox, commit_rows=10, commit_ms=200.0, stored=self._uplink.kick, stopping=threading.Event()
        )
        model = Model(artifact, together=together)
        self._loop = Loop(
            model,
            NoveltyQuantile(Rules(label_share=SHARE), SplitMix64(0)),
            identity=Identity("bench", "main", boot),
            acquisition="margin",
            cursor=Cursor(),
            flush_s=0.2,
            hand_over=self._writer.hand_over,
            watch=Watch(model.manifest, false_alarms_per_month=1.0, embedding=True) if watch else None,
        )

    def __enter__(self) -> Running:
        self._writer.start()
        self._uplink.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.stop()
        self._uplink.stop()
        self._server.terminate()
        self._server.wait()
        self._broker.stop()
        self._outbox.close()

    def play(self) -> None:
        """All samples, as fast as they are taken."""
        readings = (Reading(sample, self._seq + row) for row, sample in enumerate(self._x))
        Intake(self._loop).run(readings, threading.Event())
        self._seq += len(self._x)

    def settle(self) -> None:
        """Let everything on its way arrive, so that it is not held against the next."""
        deadline = time.monotonic() + 10.0
        while self._outbox.status().rows and time.monotonic() < deadline:
            time.sleep(0.01)


def import_cost(rounds: int) -> dict[str, tuple[float, float]]:
    """CPU seconds and bytes of resident memory that the agent adds, and the parts of it: medians of paired rounds."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = said("import json, sys; print(json.dumps(sorted(sys.modules)))", AGENT, folder)
        others = ", ".join(name for name in json.loads(loaded) if importable(name))
        programs = {"base": BASE, "others": f"{BASE}, {others}", "agent": AGENT}
        found: dict[str, list[np.ndarray]] = {name: [] for name in (*programs, "uncompiled")}
        for code in programs.values():
            used(code, folder)  # leaves the bytecode
        for _ in range(rounds):
            for name, code in programs.items():
                found[name].append(used(code, folder))
            shutil.rmtree(Path(folder, *Path(edge_agent.__file__).parent.parts[1:]))
            found["uncompiled"].append(used(AGENT, folder))
    base, loading, agent, uncompiled = (np.array(each) for each in found.values())
    over = {
        "agent": agent - base,
        "  what it loads": loading - base,
        "  our own code": agent - loading,
        "agent, first start": uncompiled - base,
    }
    return {name: tuple(np.median(rows, axis=0).tolist()) for name, rows in over.items()}


def importable(name: str) -> bool:
    """Whether a loaded module is not ours, and can be had by `import` in a process of its own."""
    top = name.split(".")[0]
    return top not in ("edge_agent", "__main__") and not top.startswith("__editable__") and name.isascii()


def used(code: str, bytecode: str) -> np.ndarray:
    """(2,) CPU seconds and resident bytes of a fresh process that has run `code`."""
    # Not ru_maxrss: a child starts with its parent's.
    tell = "from edge_agent.send.health import rss_bytes; print(json.dumps([used, rss_bytes()]))"
    return np.array(json.loads(said(f"import json, time; used = time.process_time(); {tell}", code, bytecode)))


def said(tell: str, code: str, bytecode: str) -> str:
    """What a fresh process prints by `tell` once it has run `code`; `bytecode`: the folder where it looks for that."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    argv = [sys.executable, "-c", f"{code}\n{tell}"]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
