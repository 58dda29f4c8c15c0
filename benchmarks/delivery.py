"""How fast do samples get from the outbox on a device into the store of the server?

    ours   outbox (SQLite, synchronous=FULL), uplink, broker, collector, ingest, store, receipts; until it is empty
    bare   a paho publisher (QoS 1, as many in flight as ours) and a paho subscriber that counts
    kept   the same, and the subscriber inserts what comes into one SQLite table, in groups as large, each flushed

Through one mosquitto, turn by turn, each client in a process of its own; medians of the rounds. What is bare keeps
nothing anywhere: it shows what the broker and MQTT in Python can do, and no disk. What is kept is the least that a
subscriber has to do for durability: no outbox, no receipts, no checks, no second copy of anything. A sample of 200 KB
goes in three parts with us, and whole there. The outbox is filled before the clock runs: how fast it takes samples in
is the subject of another benchmark.

A reconnect storm: 500 clients come in one moment, each says its birth and one sample, and waits for its first receipt.

What ingest costs: CPU of checking, storing and answering samples, one process, no network.

    python benchmarks/delivery.py [--quick]
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import pwd
import queue
import re
import selectors
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import paho.mqtt.client as mqtt

from edge_agent.contract.types import Prediction, Sample, SampleId, Selection
from edge_agent.contract.wire import (
    Birth,
    ModelState,
    OutboxState,
    SampleHeader,
    down_topic,
    encode,
    encode_sample,
    sample_frames,
    up_topic,
)
from edge_agent.send.outbox import Outbox, Put
from edge_agent.send.uplink import Uplink
from server.collect.broker import HOST, configuration, find_mosquitto
from server.collect.collector import Collector
from server.collect.gateway import BrokerAddress
from server.collect.inbound import Message
from server.collect.ingest import Ingest
from server.store.store import Store

FLEET, DEVICE = "bench", "bench"
WINDOW = 512  # samples in flight at most: the default of [uplink] window, and of the bare publisher
GROUP = 250  # samples to a commit at most: winnow-server's own
SIZES = {1_000: 3_000, 20_000: 1_000, 200_000: 150}  # bytes of a body: samples to a round
QUICK_SIZES = {1_000: 1_500, 20_000: 400, 200_000: 60}
ROUNDS, QUICK_ROUNDS = 5, 3
TARGET = 0.7
STORM, STORM_P99_S = 500, 5.0
INGEST_US = 1_000.0
PATIENCE_S = 60.0


class Claim(NamedTuple):
    """A line at the end."""

    name: str
    value: float
    sign: str
    target: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer samples and rounds, under a minute")
    quick = parser.parse_args().quick
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as folder:
        claims += compare(Path(folder), QUICK_SIZES if quick else SIZES, QUICK_ROUNDS if quick else ROUNDS)
        claims += storm(Path(folder) / "storm", 100 if quick else STORM)
        claims += ingest_cost(Path(folder) / "ingest", 300 if quick else 2_000)
    print()
    for name, value, sign, target in claims:
        met = value >= target if sign == ">=" else value <= target
        print(f"RATIO {name} {value:.3f} target {sign} {target} {'ok' if met else 'short'}")


class Mosquitto:
    """As winnow-server runs it, but for the bare publisher: 200 KB whole, and nothing dropped when it is the faster."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        with socket.create_server((HOST, 0)) as probe:
            self.port = probe.getsockname()[1]
        conf = folder / "broker.conf"
        configured = configuration(self.port, user=pwd.getpwuid(os.geteuid()).pw_name)
        for key, value in {"max_packet_size": 1_000_000, "max_queued_messages": 0, "max_queued_bytes": 0}.items():
            configured = re.sub(rf"(?m)^{key} .*$", f"{key} {value}", configured)
        conf.write_text(configured)
        command = [str(find_mosquitto().binary), "-c", str(conf)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._accepts)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    def _accepts(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), timeout=1.0).close()
        except OSError:
            return False
        return True


# --- end to end ---


def compare(folder: Path, sizes: dict[int, int], rounds: int) -> list[Claim]:
    """Ours against bare, size by size."""
    broker = Mosquitto(folder / "broker")
    context = mp.get_context("spawn")
    kinds = {"ours": (our_device, our_server), "bare": (bare_device, bare_server), "kept": (bare_device, kept_server)}
    ends: dict[str, list[Connection]] = {}
    running: list[Any] = []
    for kind, programs in kinds.items():
        ends[kind] = []
        for program in reversed(programs):  # the server first
            here, there = context.Pipe()
            process = context.Process(target=program, args=(there, str(folder / kind), broker.port), daemon=True)
            process.start()
            assert here.recv() == "ready"
            ends[kind].append(here)
            running.append(process)
    claims: list[Claim] = []
    rng = np.random.default_rng(0)
    print(f"{'body':>8} {'':6}{'samples/s':>10} {'MB/s':>7} {'ours over it':>13} {'CPU us: device':>15} {'server':>8}")
    try:
        for size, count in sizes.items():
            found: dict[str, list[Turn]] = {kind: [] for kind in kinds}
            for number in range(rounds + 1):
                for kind in rng.permutation(list(kinds)).tolist():
                    turn = one_round(ends[kind], size, count, number)
                    if number:  # the first one warms up
                        found[kind].append(turn)
            claims += show(size, count, found)
    finally:
        for process in running:
            process.terminate()
            process.join()
        broker.stop()
    return claims


class Turn(NamedTuple):
    """A round: seconds, and CPU microseconds a sample on either side."""

    wall_s: float
    device_us: float
    server_us: float


def one_round(ends: list[Connection], size: int, count: int, number: int) -> Turn:
    server, device = ends
    server.send((size, count))
    device.send((size, count, number))
    assert device.recv() == "filled"
    assert server.recv() == "listening"
    began_s = time.perf_counter()
    device.send("go")
    device_s = server_s = wall_s = 0.0
    device_s = device.recv()
    server_s = server.recv()
    wall_s = time.perf_counter() - began_s
    return Turn(wall_s, device_s / count * 1e6, server_s / count * 1e6)


def show(size: int, count: int, found: dict[str, list[Turn]]) -> list[Claim]:
    claims = []
    for kind, turns in found.items():
        middle = Turn(*(statistics.median(column) for column in zip(*turns, strict=True)))
        ratio = statistics.median(it.wall_s / ours.wall_s for it, ours in zip(turns, found["ours"], strict=True))
        per_s = count / middle.wall_s
        print(
            f"{size:8} {kind:6}{per_s:10.0f} {size * per_s / 1e6:7.1f} {ratio:13.3f} {middle.device_us:15.0f} "
            f"{middle.server_us:8.0f}"
        )
        if kind != "ours":
            claims.append(Claim(f"delivery_{size // 1000}kb_over_{kind}", ratio, ">=", TARGET))
    return claims


def samples(size: int, count: int, boot: int) -> list[tuple[SampleHeader, bytes]]:
    """Incompressible, each unlike the others."""
    rng = np.random.default_rng((size, boot))
    why = Selection(
        reason="informative", probability=0.5, utility=0.5, novelty=1.0, threshold=0.4, tokens=3.0, strategy="margin"
    )
    return [
        encode_sample(
            Sample(
                SampleId(DEVICE, "main", boot, seq),
                "",
                0,
                rng.integers(0, 256, size, np.uint8),
                Prediction(1, 0.5),
                why,
                1,
            )
        )
        for seq in range(count)
    ]


def our_device(end: Connection, folder: str, port: int) -> None:
    """An outbox and an uplink; empties the outbox whenever told."""
    Path(folder).mkdir(exist_ok=True)
    outbox = Outbox(Path(folder) / "outbox.db", max_bytes=10**10, max_rows=10**6, min_free_disk_bytes=0)
    ready = threading.Event()
    ready.set()
    uplink = an_uplink(outbox, port)
    uplink.start()
    until(lambda: uplink.connected)
    end.send("ready")
    boot = 0
    while True:
        size, count, _ = end.recv()
        boot += 1
        puts = [Put(header, body) for header, body in samples(size, count, boot)]
        for first in range(0, count, 100):
            outbox.put(puts[first : first + 100])
        end.send("filled")
        assert end.recv() == "go"
        cpu_s = time.process_time()
        uplink.kick()
        while outbox.status().rows:
            time.sleep(0.002)
        end.send(time.process_time() - cpu_s)


def an_uplink(outbox: Outbox, port: int) -> Uplink:
    return Uplink(
        host=HOST, port=port, tls=None, username="", password="", fleet=FLEET, device=DEVICE, session="bench",
        outbox=outbox, window=WINDOW, retry_first_s=10.0, retry_max_s=60.0, keepalive_s=60, heartbeat_s=3600.0,
        birth=lambda: a_birth("bench"), heartbeat=lambda: None, on_desired=lambda _: None, on_block=lambda *_: None,
        uniform=np.random.default_rng(0).random,
    )  # fmt: skip


def a_birth(session: str) -> Birth:
    return Birth(
        session=session, boot=1, at_ms=0, agent="", runtime="", machine="", stream="main",
        model=ModelState(version=1, sha256="", slot="steady"), outbox=OutboxState(rows=0, bytes=0),
    )  # fmt: skip


def our_server(end: Connection, folder: str, port: int) -> None:
    """A collector as winnow-server runs it, configured by default."""
    stored = Arrivals()
    collector = a_collector(Path(folder) / "store", port, stored.add)
    collector.start()
    assert collector.wait_ready(PATIENCE_S)
    serve(end, stored)


def a_collector(folder: Path, port: int, on_samples: Callable[[int], None]) -> Collector:
    folder.parent.mkdir(exist_ok=True)
    return Collector(
        Ingest(Store.open(folder), fleet=FLEET, offline_after_s=90.0),
        BrokerAddress(HOST, port),
        fleet=FLEET,
        now_ms=lambda: time.time_ns() // 1_000_000,
        commit_rows=GROUP,
        on_samples=on_samples,
    )


def bare_device(end: Connection, folder: str, port: int) -> None:
    """Publishes bytes, QoS 1."""
    topic = f"{Path(folder).name}/sample"
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(WINDOW)
    room, taken = threading.Semaphore(WINDOW), Arrivals()

    def on_publish(*_: object) -> None:
        room.release()
        taken.add(1)

    client.on_publish = on_publish
    client.connect(HOST, port)
    client.loop_start()
    end.send("ready")
    while True:
        size, count, _ = end.recv()
        rng = np.random.default_rng(size)
        bodies = [rng.bytes(size) for _ in range(count)]
        end.send("filled")
        assert end.recv() == "go"
        cpu_s = time.process_time()
        for body in bodies:
            room.acquire()
            client.publish(topic, body, 1)
        taken.wait(count)
        end.send(time.process_time() - cpu_s)


def bare_server(end: Connection, folder: str, port: int) -> None:
    """Counts what comes."""
    came = Arrivals()
    subscribe(folder, port, lambda _: came.add(1))
    serve(end, came)


def kept_server(end: Connection, folder: str, port: int) -> None:
    """Counts what is on the disk."""
    kept = Arrivals()
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    subscribe(folder, port, waiting.put)
    threading.Thread(target=keep, args=(Path(folder), waiting, kept), daemon=True).start()
    serve(end, kept)


def keep(folder: Path, waiting: queue.SimpleQueue[bytes], kept: Arrivals) -> None:
    folder.mkdir(exist_ok=True)
    db = sqlite3.connect(folder / "kept.db", isolation_level=None)
    for setting in ("page_size = 16384", "journal_mode = WAL", "synchronous = FULL"):
        db.execute(f"PRAGMA {setting}")
    db.execute("CREATE TABLE body (id INTEGER PRIMARY KEY, data BLOB)")
    while True:
        group = [waiting.get()]
        while len(group) < GROUP and not waiting.empty():
            group.append(waiting.get())
        db.execute("BEGIN")
        db.executemany("INSERT INTO body (data) VALUES (?)", [(body,) for body in group])
        db.execute("COMMIT")
        kept.add(len(group))


def subscribe(folder: str, port: int, came: Callable[[bytes], None]) -> None:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    subscribed = threading.Event()
    client.on_message = lambda _client, _data, message: came(message.payload)
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect(HOST, port)
    client.subscribe(f"{Path(folder).name}/#", 1)
    client.loop_start()
    assert subscribed.wait(PATIENCE_S)


class Arrivals:
    """Counts, and waits for a count."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def add(self, n: int) -> None:
        """So many more have come."""
        with self._changed:
            self._count += n
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        """Until so many have come; begins anew."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._count >= count, PATIENCE_S)
            self._count -= count


def serve(end: Connection, arrivals: Arrivals) -> None:
    end.send("ready")
    while True:
        _, count = end.recv()
        cpu_s = time.process_time()
        end.send("listening")
        arrivals.wait(count)
        end.send(time.process_time() - cpu_s)


def until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


# --- a storm ---


def storm(folder: Path, clients: int) -> list[Claim]:
    """Seconds from a client's connect to its first receipt."""
    folder.mkdir()
    broker = Mosquitto(folder / "broker")
    context = mp.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=our_server, args=(there, str(folder / "server"), broker.port), daemon=True)
    server.start()
    try:
        assert here.recv() == "ready"
        waits_s = sorted(waits_of(clients, broker.port))
    finally:
        server.terminate()
        server.join()
        broker.stop()
    p50, p99 = waits_s[len(waits_s) // 2], waits_s[min(len(waits_s) - 1, int(0.99 * len(waits_s)))]
    print(
        f"\n{clients} clients at once, connect to first receipt: "
        f"median {p50:.2f} s, p99 {p99:.2f} s, all {waits_s[-1]:.2f} s"
    )
    return [Claim(f"storm_{clients}_p99_s", p99, "<=", STORM_P99_S)]


def waits_of(clients: int, port: int) -> list[float]:
    """One loop drives all clients, as the machine has few cores and Python one lock."""
    waits: list[float] = []
    selector = selectors.DefaultSelector()
    began_s = time.perf_counter()

    def come(number: int) -> mqtt.Client:
        name = f"storm-{number}"
        (frame,) = sample_frames(*one_sample(name))
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name)

        def on_connect(*_: object) -> None:
            client.subscribe(down_topic(FLEET, name, "receipt"), 1)

        def on_subscribe(*_: object) -> None:
            client.publish(up_topic(FLEET, name, "birth"), encode(a_birth(name)), 1)
            client.publish(up_topic(FLEET, name, "sample"), frame, 1)

        client.on_connect, client.on_subscribe = on_connect, on_subscribe
        client.on_message = lambda *_: waits.append(time.perf_counter() - began_s)
        client.connect(HOST, port)
        selector.register(client.socket(), selectors.EVENT_READ, client)
        return client

    fleet = [come(number) for number in range(clients)]
    deadline_s = time.monotonic() + PATIENCE_S
    while len(waits) < clients:
        assert time.monotonic() < deadline_s, f"{len(waits)} of {clients}"
        for key, _ in selector.select(0.01):
            key.data.loop_read()
        for client in fleet:
            if client.want_write():
                client.loop_write()
    for client in fleet:
        client.disconnect()
    return waits


def one_sample(device: str) -> tuple[SampleHeader, bytes]:
    why = Selection(
        reason="informative", probability=0.5, utility=0.5, novelty=1.0, threshold=0.4, tokens=3.0, strategy="margin"
    )
    data = np.frombuffer(os.urandom(1000), np.uint8)
    return encode_sample(Sample(SampleId(device, "main", 1, 1), "", 0, data, Prediction(1, 0.5), why, 1))


# --- ingest ---


def ingest_cost(folder: Path, count: int) -> list[Claim]:
    """CPU of `Ingest.take` in groups of 100."""
    claims = []
    print()
    for size in (1_000, 20_000):
        ingest = Ingest(Store.open(folder / str(size)), fleet=FLEET, offline_after_s=90.0)
        topic = up_topic(FLEET, DEVICE, "sample")
        messages = [Message(topic, frame, 0) for sample in samples(size, count, 1) for frame in sample_frames(*sample)]
        ingest.take(messages[:100])
        cpu_s = time.process_time()
        for first in range(100, count, 100):
            ingest.take(messages[first : first + 100])
        spent_us = (time.process_time() - cpu_s) / (count - 100) * 1e6
        print(f"ingest of {size} bytes: {spent_us:.0f} us CPU a sample")
        claims.append(Claim(f"ingest_{size // 1000}kb_us", spent_us, "<=", INGEST_US))
    return claims


if __name__ == "__main__":
    main()
