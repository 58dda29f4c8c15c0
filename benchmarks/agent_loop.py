"""What does the agent cost over a bare onnxruntime loop?

The loop of the agent, with its outbox, its writer and its uplink to a real broker at work, against
`for sample in x: session.run(names, {name: sample})`, in one process, block by block in random order. 1 % is selected.
Two models: one of about 0.4 ms a sample, one of about 20 us. And what importing the agent costs over importing numpy
and onnxruntime, in processes of their own.

    python benchmarks/agent_loop.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edge_agent.choose.selector import Rules, Selector
from edge_agent.contract.artifact import MODEL, write_artifact
from edge_agent.contract.types import Reading
from edge_agent.contract.wire import Birth, ModelState
from edge_agent.loop import Cursor, Identity, Loop
from edge_agent.model import Model
from edge_agent.send.outbox import Outbox
from edge_agent.send.uplink import Uplink
from edge_agent.send.writer import Writer
from models.package import package
from models.train import Settings, fit
from server.collect.broker import HOST, BrokerChild

SHARE = 0.01
CLASSES = 10
SAMPLES = {"0.4 ms": ((160, 160, 3), np.uint8, 150), "20 us": ((40, 6), np.float32, 4000)}  # shape, dtype, per block
TARGETS = {"0.4 ms": 0.95, "20 us": 0.90}
IMPORT_CPU_S, IMPORT_BYTES = 0.15, 30_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 8 if parser.parse_args().quick else 40
    claims: list[tuple[str, float, str, float]] = []
    print(f"{'model':8} {'bare us':>8} {'ring us':>8} {'agent us':>9} {'agent/bare':>11} {'agent/ring':>11}")
    with tempfile.TemporaryDirectory() as folder:
        for name in SAMPLES:
            found = compare(Path(folder) / name.replace(" ", ""), name, rounds)
            bare, ring, agent = (statistics.median(found[kind]) for kind in ("bare", "ring", "agent"))
            to_bare = statistics.median(b / a for b, a in zip(found["bare"], found["agent"], strict=True))
            to_ring = statistics.median(r / a for r, a in zip(found["ring"], found["agent"], strict=True))
            print(f"{name:8} {bare:8.1f} {ring:8.1f} {agent:9.1f} {to_bare:11.3f} {to_ring:11.3f}")
            claims.append((f"agent_loop_{name.replace(' ', '')}", to_bare, ">=", TARGETS[name]))
    cpu_s, resident = import_cost(3 if rounds < 10 else 9)
    print(f"\nimport of the agent over numpy and onnxruntime: {cpu_s * 1000:.0f} ms CPU, {resident / 1e6:.1f} MB")
    claims += [("agent_import_cpu_s", cpu_s, "<=", IMPORT_CPU_S), ("agent_import_mb", resident / 1e6, "<=", 30.0)]
    print()
    for claim, value, sign, target in claims:
        met = value >= target if sign == ">=" else value <= target
        print(f"RATIO {claim} {value:.3f} target {sign} {target} {'ok' if met else 'short'}")


def compare(folder: Path, name: str, rounds: int) -> dict[str, list[float]]:
    """Microseconds a sample, per round, of a bare loop, of the bare ring, and of the agent."""
    shape, dtype, count = SAMPLES[name]
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (count, *shape)).astype(dtype)
    artifact = make_artifact(folder / "artifact", x[:256], rng)
    kinds: dict[str, Callable[[], None]] = {"bare": bare_loop(artifact, x), "ring": ring_loop(artifact, x)}
    with Running(folder, artifact, x) as agent:
        kinds["agent"] = agent.play
        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(rounds + 1):
            for kind in rng.permutation(list(kinds)).tolist():
                began = time.perf_counter()
                kinds[kind]()
                found[kind].append((time.perf_counter() - began) / count * 1e6)
                agent.settle()
    return {kind: values[1:] for kind, values in found.items()}  # the first warms up


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
    names, name = [output.name for output in session.get_outputs()], session.get_inputs()[0].name

    def run() -> None:
        for row in range(len(x)):
            session.run(names, {name: x[row : row + 1]})

    return run


def ring_loop(artifact: Path, x: np.ndarray) -> Callable[[], None]:
    """Pre-bound rows and nothing else: the ceiling."""
    model = Model(artifact, together=1)
    rounds = [model.steps[row % model.rows] for row in range(len(x))]

    def run(_model: Model = model) -> None:  # kept: its memory is what the steps write to
        for sample, (place, infer) in zip(x, rounds, strict=True):
            place[...] = sample
            infer()

    return run


class Running:
    """The agent's parts at work: loop, writer, outbox, uplink, a broker, and a server that receipts."""

    def __init__(self, folder: Path, artifact: Path, x: np.ndarray) -> None:
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
            rng=np.random.default_rng(0),
            birth=lambda: Birth(
                session="bench", boot=boot, at_ms=0, agent="", runtime="", machine="", stream="main", model=state,
                outbox=self._outbox.status(),
            ),
        )  # fmt: skip
        self._writer = Writer(
            self._outbox, commit_rows=10, commit_ms=200.0, stored=self._uplink.kick, stopping=threading.Event()
        )
        self._loop = Loop(
            Model(artifact),
            Selector(Rules(label_share=SHARE), np.random.default_rng(0)),
            identity=Identity("bench", "main", boot),
            acquisition="margin",
            cursor=Cursor(),
            flush_s=0.2,
            hand_over=self._writer.hand_over,
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
        self._loop.run(readings, threading.Event())
        self._seq += len(self._x)

    def settle(self) -> None:
        """Let everything on its way arrive, so that it is not held against the next."""
        deadline = time.monotonic() + 10.0
        while self._outbox.status().rows and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)


def import_cost(repeats: int) -> tuple[float, float]:
    """CPU seconds and bytes of resident memory that the agent's own code adds."""
    base = [used("import numpy, onnxruntime") for _ in range(repeats)]
    agent = [used("import numpy, onnxruntime, edge_agent.agent") for _ in range(repeats)]
    cpu_s = statistics.median(a[0] for a in agent) - statistics.median(b[0] for b in base)
    return cpu_s, statistics.median(a[1] for a in agent) - statistics.median(b[1] for b in base)


def used(code: str) -> tuple[float, float]:
    """CPU seconds and resident bytes of a fresh process that has run `code`."""
    program = f"""
{code}
import json, time
used = time.process_time()
from edge_agent.send.health import rss_bytes  # not ru_maxrss: a child starts with its parent's
print(json.dumps([used, rss_bytes()]))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    cpu_s, resident = json.loads(said)
    return cpu_s, resident


if __name__ == "__main__":
    main()
