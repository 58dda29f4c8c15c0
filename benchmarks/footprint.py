"""What does the agent cost a small machine, over Python, numpy and onnxruntime running the same model?

    memory     resident, of the running agent: its model, outbox, drift watch, and an uplink to a real broker; against
               a bare process that runs the same model on the same samples at the same rate
    start      seconds of CPU from the start of the process to its first prediction, against the same
    installed  bytes of the packages that `pip install` brings, and of our own

The two start turn by turn, from bytecode, as pip leaves it, in an environment that has what a device has and no more:
what else is installed here would be found, and some of it loaded (msgspec takes typing_extensions where it is). The
wheels for aarch64 are listed by `python scripts/arm.py --wheels`.

    python benchmarks/footprint.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _paced import SPENT
from packaging.requirements import Requirement

import edge_agent

ROOT = Path(edge_agent.__file__).parent.parent
OURS = "winnow-edge"
RATE_PER_S = 50.0
MEMORY_MB, START_RATIO = 80.0, 1.5
LONGEST_S = 120.0  # to a first prediction, on a machine that others load
AGENT = """
[device]
name = "bench"
data_dir = "{folder}/data"
[source]
kind = "_paced:Paced"
path = "{folder}/x.npy"
rate_per_s = {rate}
[model]
artifact = "{folder}/artifact"
flush_ms = 5
[budget]
label_share = 0.05
[uplink]
broker = "{broker}"
heartbeat_s = 5
"""
BARE = """
import sys, time
import numpy as np, onnxruntime as ort
folder, rate = sys.argv[1], float(sys.argv[2])
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(folder + "/artifact/model.onnx", options, providers=["CPUExecutionProvider"])
x, name, names = np.load(folder + "/x.npy"), session.get_inputs()[0].name, ["logits", "embedding"]
session.run(names, {name: x[:1]})
open(folder + "/first.txt", "w").write(str(time.process_time()))
for row in range(10**9):
    time.sleep(1.0 / rate)
    session.run(names, {name: x[row % len(x)][None]})
"""


class Cost(NamedTuple):
    """Of one process."""

    resident_mb: float
    start_s: float  # of CPU


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer starts, shorter runs")
    quick = parser.parse_args().quick
    starts, run_s = (3, 5.0) if quick else (9, 20.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        with broker(folder) as url:
            (folder / "agent.toml").write_text(AGENT.format(folder=folder, rate=RATE_PER_S, broker=url))
            python = environment(folder / "venv")
            commands = {
                "bare": ["-c", BARE, str(folder), str(RATE_PER_S)],
                "agent": ["-m", "edge_agent", "run", str(folder / "agent.toml")],
            }
            found: dict[str, list[Cost]] = {kind: [] for kind in commands}
            for _ in range(starts + 1):
                for kind, words in commands.items():
                    found[kind].append(cost(folder, [python, *words], run_s))
    bare, agent = (middle(found[kind][1:]) for kind in ("bare", "agent"))  # the first ones write bytecode
    print(f"{'':8} {'resident MB':>12} {'CPU to first prediction, s':>28}")
    for kind, one in (("bare", bare), ("agent", agent)):
        print(f"{kind:8} {one.resident_mb:12.1f} {one.start_s:28.3f}")
    sizes = installed()
    print(f"\ninstalled, MB: {sum(sizes.values()):.0f}")
    for package, size in sorted(sizes.items(), key=lambda item: -item[1]):
        if size >= 1.0:
            print(f"  {package:20} {size:6.1f}")
    print()
    claims = (
        ("footprint_resident_mb", agent.resident_mb, MEMORY_MB),
        ("footprint_start_over_bare", agent.start_s / bare.start_s, START_RATIO),
    )
    for claim, value, most in claims:
        print(f"RATIO {claim} {value:.3f} target <= {most} {'ok' if value <= most else 'short'}")


def middle(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))


def prepare(folder: Path) -> None:
    """The demo's model, int8, hardly trained, and pictures."""
    from edge_agent.contract.artifact import write_artifact
    from models.data import default_cache, load_fashion
    from models.package import package
    from models.train import Settings, fit

    known, unseen = load_fashion(default_cache())
    x, y = known.x[:1500], known.y[:1500]
    net = fit(x, y, classes=10, settings=Settings(epochs=1))
    made = package(net, name="bench", names=known.names, version=1, calibration=x[:256], holdout=(x[:500], y[:500]))
    write_artifact(folder / "artifact", made.manifest, made.onnx)
    np.save(folder / "x.npy", unseen.x[:2000])


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """A real one, and somebody who receipts."""
    from server.collect.broker import HOST, BrokerChild

    child = BrokerChild(folder / "broker")
    child.start()
    receipts = subprocess.Popen([sys.executable, str(Path(__file__).with_name("_receipts.py")), str(child.port)])
    try:
        yield f"mqtt://{HOST}:{child.port}"
    finally:
        receipts.kill()
        receipts.wait()
        child.stop()


def cost(folder: Path, words: list[str], run_s: float) -> Cost:
    """Of a process that runs for so long."""
    (folder / SPENT).unlink(missing_ok=True)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OPENBLAS_NUM_THREADS": "1"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    with open(folder / "log.txt", "wb") as log:
        process = subprocess.Popen(words, env=env, stdout=log, stderr=log)
    try:
        until = time.monotonic() + LONGEST_S
        while not (folder / SPENT).exists():
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{words[1:3]} predicts nothing: {(folder / 'log.txt').read_text()[-2000:]}")
            time.sleep(0.1)
        time.sleep(run_s)
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return Cost(resident_kb / 1000.0 * 1.024, float((folder / SPENT).read_text()))
    finally:
        process.kill()
        process.wait()


def environment(folder: Path) -> str:
    """Python of an environment with the base install alone, by links to what is installed here."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "edge_agent").symlink_to(ROOT / "edge_agent")
    for package in packages():
        for name in {file.parts[0] for file in package.files or []} - {"..", "__pycache__", "__editable__"}:
            place = Path(str(package.locate_file(name)))
            ours = package.name == OURS and not name.endswith("dist-info")
            if not ours and place.exists() and not (site / name).exists():
                (site / name).symlink_to(place)
    return str(folder / "bin" / "python")


def packages() -> list[metadata.Distribution]:
    """Ours, and what `pip install` brings with it."""
    found, waiting = dict[str, metadata.Distribution](), [OURS]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = metadata.distribution(name)
            needs = map(Requirement, found[name].requires or [])
            waiting += [need.name.lower() for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
    return list(found.values())


def installed() -> dict[str, float]:
    """Package -> MB of its files, of the base install; ours without the server."""
    sizes = {"winnow-agent": sum(file.stat().st_size for file in (ROOT / "edge_agent").rglob("*.py")) / 1e6}
    for package in packages():
        if package.name != OURS:
            places = [Path(str(file.locate())) for file in package.files or []]
            sizes[package.name] = sum(place.stat().st_size for place in places if place.is_file()) / 1e6
    return sizes


if __name__ == "__main__":
    main()
