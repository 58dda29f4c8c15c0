"""What does it take to take in what devices send?

A real broker, and `winnow-server ingest` as a process of its own, with an SQLite store; against it a bare consumer:
paho, subscribed with QoS 1, which acknowledges and counts, and nothing else. Both get the same messages from one
broker: they are stopped (SIGSTOP) while its queue is filled, so that no publisher is waited for, and what is measured
begins when they go on. For the ingest it ends when the last sample has its receipt: checked, de-duplicated, on disk,
answered. A third says how much of that is the price of being durable at all: `_durable.py` decodes, hashes, writes a
row and a body to a group commit and answers, by the same paho and SQLite, and checks nothing.

    samples/s        by the clock, of one process over the bare consumer; medians of interleaved rounds
    over the floor   samples/s and CPU of one process, against what is durable and no more
    CPU a sample     of the process, and of two that share, where there are too few cores for two to be faster than one
    CPU a heartbeat  of devices with a stream of ten classes, as fast as they are taken in; what 10,000 at rest cost the
                     whole server, who say 333 a second, fleet.py measures

    python benchmarks/ingest.py [--quick]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from broker import Broker  # noqa: E402

from edge_agent.contract.types import Prediction, Sample, SampleId, Selection  # noqa: E402
from edge_agent.contract.wire import (  # noqa: E402
    Heartbeat,
    ModelState,
    OutboxState,
    Receipt,
    StreamCounts,
    decode,
    down_topic,
    encode,
    encode_sample,
    sample_frames,
    up_topic,
)
from server.store.schema import device as device_table  # noqa: E402
from server.store.store import Store  # noqa: E402

FLEET, DEVICES = "bench", 200
SIZES = {"1KB": 1_024, "20KB": 20_480}  # of a body; header and topic come on top
ENOUGH_S = 120.0
CORES_FOR_TWO = 4  # two workers, the broker, and what else runs
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SELECTION = Selection(
    reason="informative", probability=0.5, utility=0.5, novelty=1.0, threshold=0.5, tokens=1.0, strategy="margin"
)

CONFIG = """
[server]
data_dir = "server"
fleet = "bench"
[broker]
url = "mqtt://127.0.0.1:{port}"
[collect]
backlog_bytes = 512000000
"""

BARE = """
import sys
import paho.mqtt.client as mqtt
port, wanted, seen = int(sys.argv[1]), int(sys.argv[2]), 0
def heard(_client, _data, _message):
    global seen
    seen += 1
    if seen == wanted:
        print("done", flush=True)
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
client.on_message = heard
client.on_subscribe = lambda *_: print("ready", flush=True)
client.connect("127.0.0.1", port)
client.subscribe("winnow/1/bench/+/up/+", 1)
client.loop_forever()
"""


class Taken(NamedTuple):
    """How so many messages were taken."""

    per_s: float
    cpu_us: float  # a message, of all processes that took them


# --- what is sent --------------------------------------------------------------------------------------------------


def samples(count: int, body_bytes: int) -> bytes:
    """The packets of so many samples, every one with bytes of its own."""
    rng, packets = np.random.default_rng(0), []
    data = rng.integers(0, 256, body_bytes, np.uint8)
    header, body = encode_sample(Sample(SampleId("x", "main", 1, 0), "", 0, data, Prediction(0, 0.5), SELECTION, 1))
    for seq in range(count):
        name = f"cam-{seq % DEVICES}"
        body = seq.to_bytes(8, "big") + body[8:]
        told = {"id": f"{name}.main.1.{seq}", "body_sha256": hashlib.sha256(body).hexdigest()}
        frame = sample_frames(msgspec.structs.replace(header, **told), body)[0]
        packets.append(packet(up_topic(FLEET, name, "sample"), frame, seq))
    return b"".join(packets)


def heartbeats(beats: int) -> bytes:
    """The packets of so many heartbeats of every device."""
    packets = []
    for beat in range(1, beats + 1):
        for number in range(DEVICES):
            name = f"cam-{number}"
            packets.append(packet(up_topic(FLEET, name, "heartbeat"), encode(heartbeat(beat)), len(packets)))
    return b"".join(packets)


def heartbeat(beat: int) -> Heartbeat:
    """Of a device that scores ten samples a second."""
    n = 300 * beat
    counts = StreamCounts(
        read=n, scored=n, invalid=0, selected={"informative": beat, "random": beat}, stream="main", through_seq=n,
        model_version=1, epoch=1, utility_histogram=(beat * 30,) * 10, confidence_sums=(beat * 20.0,) * 10,
        classes=(beat * 30,) * 10, signals=(n, *[beat] * 8),
    )  # fmt: skip
    outbox = OutboxState(rows=0, bytes=0, evicted={}, put_total=beat, acked_total=beat, since_boot=1)
    return Heartbeat(
        session="s", boot=1, at_ms=beat, uptime_s=30.0 * beat, counts=counts, outbox=outbox, samples_per_s=10.0,
        model=ModelState(version=1, sha256="0" * 64, slot="steady"),
    )  # fmt: skip


def packet(topic: str, payload: bytes, number: int) -> bytes:
    """PUBLISH with QoS 1 (MQTT 3.1.1, section 3.3)."""
    name, rest = topic.encode(), bytearray()
    length = 2 + len(name) + 2 + len(payload)
    while True:
        length, digit = divmod(length, 128)
        rest.append(digit | (128 if length else 0))
        if not length:
            break
    head = b"\x32" + bytes(rest) + len(name).to_bytes(2, "big") + name
    return head + (number % 65_535 + 1).to_bytes(2, "big") + payload


def publish(port: int, packets: bytes, count: int) -> None:
    """Hand them to the broker; returns when it has acknowledged them all."""
    with socket.create_connection(("127.0.0.1", port)) as wire:
        wire.sendall(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03pub")
        assert wire.recv(4) == b"\x20\x02\x00\x00"
        sender = threading.Thread(target=wire.sendall, args=(packets,))
        sender.start()
        left = 4 * count
        while left:
            left -= len(wire.recv(1 << 16))
        sender.join()


# --- who takes it --------------------------------------------------------------------------------------------------


@contextmanager
def stopped(*processes: subprocess.Popen[bytes]) -> Iterator[None]:
    """They stand still meanwhile."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    yield
    for process in processes:
        process.send_signal(signal.SIGCONT)


def cpu_s(processes: Sequence[subprocess.Popen[bytes]]) -> float:
    """Processor time of them so far, user and system."""
    fields = [Path(f"/proc/{one.pid}/stat").read_text().rsplit(")", 1)[1].split() for one in processes]
    return sum(int(row[11]) + int(row[12]) for row in fields) / TICKS_PER_S


def start(*words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def bare(port: int, packets: bytes, count: int) -> Taken:
    """A consumer that only counts."""
    process = start("-c", BARE, str(port), str(count))
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"ready"
    with stopped(process):
        publish(port, packets, count)
        before_s = cpu_s([process])
    began_s = time.monotonic()
    assert process.stdout.readline().strip() == b"done"
    took_s = time.monotonic() - began_s
    used_s = cpu_s([process]) - before_s
    process.kill()
    process.communicate()
    return Taken(count / took_s, 1e6 * used_s / count)


class Receipts:
    """Counts what devices would be told."""

    def __init__(self, port: int, wanted: int) -> None:
        self._left = wanted
        self._subscribed, self.all = threading.Event(), threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._heard
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(down_topic(FLEET, "+", "receipt"), 1)
        self._client.loop_start()
        assert self._subscribed.wait(10.0)

    def close(self) -> None:
        """Go."""
        self._client.disconnect()
        self._client.loop_stop()

    def _heard(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        self._left -= len(decode(Receipt, message.payload).accepted)
        if self._left <= 0:
            self.all.set()


def ingest(port: int, packets: bytes, count: int, *, workers: int = 1) -> Taken:
    """The real command, as one process or as several that share."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), port, workers) as processes:
        return answered(processes, port, packets, count)


def answered(processes: Sequence[subprocess.Popen[bytes]], port: int, packets: bytes, count: int) -> Taken:
    """From when they go on until the last sample has its receipt."""
    receipts = Receipts(port, count)
    with stopped(*processes):
        publish(port, packets, count)
        before_s = cpu_s(processes)
    began_s = time.monotonic()
    assert receipts.all.wait(ENOUGH_S)
    took_s = time.monotonic() - began_s
    used_s = cpu_s(processes) - before_s
    receipts.close()
    return Taken(count / took_s, 1e6 * used_s / count)


def durable(port: int, packets: bytes, count: int) -> Taken:
    """What is durable and no more (_durable.py)."""
    with tempfile.TemporaryDirectory() as folder:
        process = start(str(ROOT / "benchmarks" / "_durable.py"), str(port), str(Path(folder) / "all.db"), FLEET)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"ready"
        taken = answered([process], port, packets, count)
        process.kill()
        process.communicate()
    return taken


def beating(port: int, packets: bytes, count: int) -> Taken:
    """The same of heartbeats: the last ones are known to be stored when they can be read."""
    beats = count // DEVICES
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), port, 1) as processes:
        store = Store.open(Path(folder) / "server")
        with stopped(*processes):
            publish(port, packets, count)
            before_s = cpu_s(processes)
        began_s = time.monotonic()
        while (last := said(store)) < [30.0 * beats] * DEVICES:
            assert time.monotonic() - began_s < ENOUGH_S, last[:5]
            time.sleep(0.05)
        took_s = time.monotonic() - began_s
        used_s = cpu_s(processes) - before_s
        store.close()
    return Taken(count / took_s, 1e6 * used_s / count)


def said(store: Store) -> list[float]:
    """Up to when each device has said what it counted."""
    with store.database.read() as connection:
        words = connection.scalars(device_table.select().with_only_columns(device_table.c.heartbeat)).all()
    return [0.0] if len(words) < DEVICES else sorted(word["uptime_s"] if word else 0.0 for word in words)


@contextmanager
def serving(folder: Path, port: int, workers: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many workers on one store, ready."""
    (folder / "server.toml").write_text(CONFIG.format(port=port))
    Store.open(folder / "server").close()
    words = [("--worker", f"{number + 1}/{workers}") for number in range(workers)]
    processes = [start("-m", "server", "ingest", *option, str(folder / "server.toml")) for option in words]
    for process in processes:
        assert process.stderr is not None
        while b": takes " not in (line := process.stderr.readline()):
            assert line, "it ended"
    yield processes
    for process in processes:
        process.terminate()
        process.communicate()


# --- what comes out ------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer messages and rounds")
    quick = parser.parse_args().quick
    rounds = 3 if quick else 7
    counts = {"1KB": 4_000, "20KB": 2_000} if quick else {"1KB": 20_000, "20KB": 6_000}
    found: dict[str, list[Taken]] = {}
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder), options="max_inflight_messages 100\n")
        broker.start()
        for size, count in counts.items():
            packets = samples(count, SIZES[size])
            for _ in range(rounds):
                for name, taken in (
                    (f"bare {size}", bare(broker.port, packets, count)),
                    (f"floor {size}", durable(broker.port, packets, count)),
                    (f"one {size}", ingest(broker.port, packets, count)),
                    (f"two {size}", ingest(broker.port, packets, count, workers=2)),
                ):
                    found.setdefault(name, []).append(taken)
        beats = 5 if quick else 20
        packets = heartbeats(beats)
        found["heartbeat"] = [beating(broker.port, packets, beats * DEVICES) for _ in range(rounds)]
        broker.kill()
    show(found)


def show(found: dict[str, list[Taken]]) -> None:
    middle = {name: Taken(*map(statistics.median, zip(*taken, strict=True))) for name, taken in found.items()}
    print(f"{os.cpu_count()} cores; medians of {len(found['heartbeat'])} interleaved rounds")
    for name, taken in middle.items():
        print(f"  {name:<12} {taken.per_s:8.0f} /s   {taken.cpu_us:7.0f} us of a processor each")
    for size in SIZES:
        pairs = zip(found[f"one {size}"], found[f"bare {size}"], strict=True)
        ratio("ingest_over_bare_" + size, statistics.median(one.per_s / two.per_s for one, two in pairs), ">=", 0.7)
    for size in SIZES:
        one, floor = middle[f"one {size}"], middle[f"floor {size}"]
        pairs = zip(found[f"one {size}"], found[f"floor {size}"], strict=True)
        over = statistics.median(mine.per_s / least.per_s for mine, least in pairs)
        print(
            f"  {size}: {over:.2f} of the floor's samples/s, {one.cpu_us / floor.cpu_us:.2f} times its processor time"
        )
    for size in SIZES:
        two, one = middle[f"two {size}"], middle[f"one {size}"]
        if (os.cpu_count() or 1) >= CORES_FOR_TWO:
            ratio("two_workers_over_one_" + size, two.per_s / one.per_s, ">=", 1.6)
        else:  # two that cost 1.25 times as much a sample take in 1.6 times as many, given a core each
            ratio("two_workers_cpu_over_one_" + size, two.cpu_us / one.cpu_us, "<=", 2 / 1.6)
    share = middle["heartbeat"].cpu_us / 1e6 * 10_000 / 30.0
    ratio("core_for_heartbeats_of_10000", share, "<=", 0.1)


def ratio(name: str, value: float, which: str, target: float) -> None:
    ok = value >= target if which == ">=" else value <= target
    print(f"RATIO {name} {value:.2f} target {which} {target} {'ok' if ok else 'short'}")


if __name__ == "__main__":
    main()
