"""What does an agent cost that has nothing to do, or next to nothing?

A whole agent in a process of its own, with its outbox, connected to a real broker, on an empty folder, then on a stream
of one sample a second: its share of a core (time of all its threads on a processor) and how often the processor is
woken for it (voluntary context switches of its threads, each a wait that ended). What wakes it is told by thread. The
limits are of this project: 1 % of a core, which on a board that sips 2 W is not seen on the meter.

    python benchmarks/idle.py [--quick]
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edge_agent.contract.artifact import write_artifact
from models.package import package
from models.train import Settings, fit
from server.collect.broker import HOST, BrokerChild

CORE_SHARE = 0.01
WARM_S = 6.0  # the start, the first heartbeat and status.json
SHAPE = (32, 32, 3)
TOML = """
[device]
name = "idle"
data_dir = "data"
[source]
{source}
[model]
artifact = "model"
[uplink]
broker = "mqtt://{host}:{port}"
"""
SOURCES = {
    "empty folder": 'kind = "folder"\npath = "empty"',
    "one a second": 'kind = "replay"\npath = "stream.npz"\nrate_per_s = 1.0',
}


class Spent(NamedTuple):
    """Of a process since its start."""

    cpu_s: dict[str, float]  # by thread
    waits: dict[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="15 s each instead of 60")
    seconds = 15.0 if parser.parse_args().quick else 60.0
    claims = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        broker = BrokerChild(folder / "broker")
        broker.start()
        try:
            for kind, source in SOURCES.items():
                config = folder / "agent.toml"
                config.write_text(TOML.format(source=source, host=HOST, port=broker.port))
                shares, waits = measure(config, seconds)
                share = sum(shares.values())
                print(f"{kind}: {share:.2%} of a core, {sum(waits.values()):.1f} wakeups/s; its busiest threads:")
                for thread, each in sorted(shares.items(), key=lambda item: -item[1])[:6]:
                    print(f"    {each:7.3%}  {waits[thread]:5.1f} wakeups/s")
                claims.append((f"idle_{kind.replace(' ', '_')}_core_share", share))
        finally:
            broker.stop()
    for claim, share in claims:
        print(f"RATIO {claim} {share:.4f} target <= {CORE_SHARE} {'ok' if share <= CORE_SHARE else 'short'}")


def prepare(folder: Path) -> None:
    """A model, an empty folder, a recording."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (256, *SHAPE), dtype=np.uint8)
    y = rng.integers(0, 10, len(x))
    net = fit(x, y, classes=10, settings=Settings(epochs=1))
    names = [str(index) for index in range(10)]
    made = package(net, name="idle", names=names, version=1, calibration=x, holdout=(x, y))
    write_artifact(folder / "model", made.manifest, made.onnx)
    (folder / "empty").mkdir()
    np.savez(folder / "stream.npz", x=x)


def measure(config: Path, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """Share of a core and waits a second, by thread, of an agent that has come to rest."""
    agent = subprocess.Popen([sys.executable, "-m", "edge_agent", "run", str(config)], stderr=subprocess.DEVNULL)
    try:
        time.sleep(WARM_S)
        before, began_s = spent(agent.pid), time.monotonic()
        time.sleep(seconds)
        after, took_s = spent(agent.pid), time.monotonic() - began_s
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait(timeout=30.0)
    shares = {thread: (cpu_s - before.cpu_s.get(thread, 0.0)) / took_s for thread, cpu_s in after.cpu_s.items()}
    waits = {thread: (count - before.waits.get(thread, 0)) / took_s for thread, count in after.waits.items()}
    return shares, waits


def spent(pid: int) -> Spent:
    """By /proc/PID/task/*/schedstat and status: proc(5), Documentation/scheduler/sched-stats of the kernel."""
    found = Spent({}, {})
    for thread in Path(f"/proc/{pid}/task").iterdir():
        said = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines() if ":\t" in line)
        found.waits[thread.name] = int(said["voluntary_ctxt_switches"])
        found.cpu_s[thread.name] = int((thread / "schedstat").read_text().split()[0]) / 1e9
    return found


if __name__ == "__main__":
    main()
