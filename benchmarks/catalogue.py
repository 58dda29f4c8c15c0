"""What does a sample cost where the catalogue is in PostgreSQL?

The same groups of 250 samples of 1 KB, from 50 devices, through `Ingest.take` into SQLite and into a PostgreSQL of its
own on this machine (started as the tests start theirs, with every write on the disk). CPU of our process and of the
server's sessions a sample, and samples a second. Then two processes take in at the same time.

    python benchmarks/catalogue.py [--quick]
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import postgres  # the tests' way to a real server

from edge_agent.contract.types import Prediction, Sample, SampleId, Selection
from edge_agent.contract.wire import encode_sample, sample_frames, up_topic
from server import config
from server.collect.inbound import Message
from server.collect.ingest import Ingest
from server.store.store import Store

FLEET = "bench"
DEVICES = 50
GROUP = 250
BYTES = 1024
CPU_TARGET = 2.0  # of our process, over SQLite: more, and a second worker would only pay for the engine
TOGETHER_TARGET = 1.6  # two processes over one, where there are cores for two and for what they write to
SELECTION = Selection(
    reason="random", probability=0.5, utility=0.5, novelty=1.0, threshold=0.5, tokens=1.0, strategy="margin"
)
TICKS_PER_S = 100  # of /proc


class Cost(NamedTuple):
    """A sample's: CPU of our process, of the database's, and how many came in a second."""

    own_us: float
    server_us: float
    per_s: float


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the groups")
    groups = 20 if parser.parse_args().quick else 100
    with tempfile.TemporaryDirectory() as place, postgres.running(durable=True) as server:
        here, there = Path(place, "file"), Path(place, "server")
        server.create("bench")
        file = measure(here, config.Store(), groups, lambda: 0.0)
        one = measure(there, server.settings("bench"), groups, lambda: cpu_s(server.folder))
        both = together(there, server.settings("bench"), groups)
    print(f"{'':12}{'own CPU us':>12}{'server CPU us':>15}{'samples/s':>12}")
    for name, cost in (("sqlite", file), ("postgresql", one)):
        print(f"{name:12}{cost.own_us:12.0f}{cost.server_us:15.0f}{cost.per_s:12.0f}")
    print(f"two processes into postgresql: {both:.0f} samples/s on {multiprocessing.cpu_count()} cores")
    claim("postgresql_own_cpu_over_sqlite", one.own_us / file.own_us, "<=", CPU_TARGET)
    claim("postgresql_two_over_one_process", both / one.per_s, ">=", TOGETHER_TARGET)


def measure(folder: Path, settings: config.Store, groups: int, server_cpu_s: object) -> Cost:
    """One process; the first group, which opens connections and plans, does not count."""
    store = Store.open(folder, settings)
    ingest, made = Ingest(store, fleet=FLEET, offline_after_s=90.0), [messages(n, "one") for n in range(groups + 1)]
    ingest.take(made[0])
    began_s, own_s, server_s = time.perf_counter(), time.process_time(), server_cpu_s()  # type: ignore[operator]
    for group in made[1:]:
        ingest.take(group)
    count = groups * GROUP
    spent = time.process_time() - own_s, server_cpu_s() - server_s  # type: ignore[operator]
    took_s = time.perf_counter() - began_s
    store.close()
    return Cost(spent[0] / count * 1e6, spent[1] / count * 1e6, count / took_s)


def together(folder: Path, settings: config.Store, groups: int) -> float:
    """Samples a second by two processes, each with devices of its own."""
    context = multiprocessing.get_context("spawn")
    begin, ready = context.Event(), context.Semaphore(0)
    workers = [
        context.Process(target=work, args=(folder / str(n), settings, groups, f"two{n}", begin, ready))
        for n in range(2)
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        ready.acquire()
    began_s = time.perf_counter()
    begin.set()
    for worker in workers:
        worker.join()
    return 2 * groups * GROUP / (time.perf_counter() - began_s)


def work(folder: Path, settings: config.Store, groups: int, name: str, begin: object, ready: object) -> None:
    """One of them."""
    store = Store.open(folder, settings)
    ingest, made = Ingest(store, fleet=FLEET, offline_after_s=90.0), [messages(n, name) for n in range(groups + 1)]
    ingest.take(made[0])
    ready.release()  # type: ignore[attr-defined]
    begin.wait()  # type: ignore[attr-defined]
    for group in made[1:]:
        ingest.take(group)
    store.close()


def messages(group: int, name: str) -> list[Message]:
    """A group of samples of several devices."""
    rng, found = np.random.default_rng([group, len(name), ord(name[-1])]), []
    for n in range(GROUP):
        device = f"{name}-{n % DEVICES}"
        data = rng.integers(0, 256, (BYTES,), np.uint8)
        key = SampleId(device, "main", 1, group * GROUP + n)
        frames = sample_frames(*encode_sample(Sample(key, "", 0, data, Prediction(1, 0.5), SELECTION, 1)))
        found += [Message(up_topic(FLEET, device, "sample"), frame, 0) for frame in frames]
    return found


def cpu_s(folder: Path) -> float:
    """Of every process of a server, those that ended and were waited for included."""
    first = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(stat.parent.name) == first:
            total += sum(map(int, fields[11:15]))  # its own, and its children's that have ended
        elif int(fields[1]) == first:
            total += sum(map(int, fields[11:13]))
    return total / TICKS_PER_S


def claim(name: str, value: float, op: str, target: float) -> None:
    """Say whether it holds."""
    held = value <= target if op == "<=" else value >= target
    print(f"RATIO {name} {value:.3g} target {op} {target:g} {'ok' if held else 'short'}")


if __name__ == "__main__":
    main()
