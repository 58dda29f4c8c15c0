"""Does one device that floods the server make the others wait?

A real broker, as the server starts it, a real collector and store in a process of their own, and devices that send
samples at a steady rate. In turns of a few seconds one device sends at a hundred times its rate, takes no notice of
receipts, and then falls silent again. What is measured is how long the others wait for their receipts, from the publish
to the arrival, 99th percentile, with the flood over that without; what got no receipt by the end of its turn has waited
for ever. Beside it stands what comes out where all devices wait in one line, as in most brokers' and servers' queues
(the same collector, told that all messages are of one device).

    python benchmarks/fairness.py [--quick]
"""

from __future__ import annotations

import argparse
import math
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.contract.types import Prediction, Sample, SampleId, Selection
from edge_agent.contract.wire import Receipt, decode, down_topic, encode_sample, sample_frames, up_topic
from server.collect.broker import HOST, BrokerChild

FLEET = "bench"
DEVICES = 20
PER_S = 5.0  # samples of each of them
TIMES = 100  # that the flood sends
BODY = (64, 64)  # uint8 noise: 4 KB
SELECTION = Selection(
    reason="random", probability=0.5, utility=0.5, novelty=1.0, threshold=0.5, tokens=1.0, strategy="margin"
)
TARGET = 2.0
WARM_S = 2.0
SETTLE_S = 3.0  # after a turn: what is late comes in
APART = 1_000_000  # between the sequence numbers of turns


class Turn(NamedTuple):
    """How long the others waited for their receipts, how many never got one, and what the flood sent."""

    p50_ms: float
    p99_ms: float
    unanswered: int
    flood_per_s: float


SERVER = """
import sys, time
from pathlib import Path
from server.collect.collector import Collector
from server.collect.gateway import BrokerAddress
from server.collect.ingest import Ingest
from server.collect.inbound import Message
from server.roles import interpreter
from server.store.store import Store
interpreter.settle()
folder, port, fleet, line = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
class OneLine(Collector):
    def _deliver(self, found):
        for topic, payload in found:
            self._backlog.put("", Message(topic, payload, self._now_ms()), len(payload))
ingest = Ingest(Store.open(folder), fleet=fleet, offline_after_s=90.0)
collector = {"turns": Collector, "one line": OneLine}[line](
    ingest, BrokerAddress("127.0.0.1", port), fleet=fleet, now_ms=lambda: time.time_ns() // 1_000_000,
    commit_rows=100)
collector.start()
print(collector.wait_ready(20.0), flush=True)
sys.stdin.read()
collector.stop()
"""

FLOOD = """
import sys, time
from benchmarks.fairness import Senders, frame_of
port, rate, seconds, first = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
senders = Senders(port)
began, sent = time.monotonic(), 0
while (now := time.monotonic() - began) < seconds:
    while sent < now * rate:
        senders.send("flood", first + sent)
        sent += 1
    time.sleep(0.002)
senders.close()
print(sent)
"""


class Senders:
    """Publishes for any device, and notes when its receipts come."""

    def __init__(self, port: int, *, listen: bool = False) -> None:
        self.sent: dict[str, float] = {}
        self.waited: dict[str, float] = {}
        self._subscribed = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.max_inflight_messages_set(1000)
        self._client.on_message = self._told
        self._client.on_socket_open = lambda _client, _data, sock: sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect(HOST, port)
        self._client.loop_start()
        if listen:
            self._client.subscribe(down_topic(FLEET, "+", "receipt"), 1)
            self._subscribed.wait(10.0)

    def send(self, device: str, seq: int) -> None:
        """Publish one."""
        self.sent[f"{device}.main.1.{seq}"] = time.monotonic()
        self._client.publish(up_topic(FLEET, device, "sample"), frame_of(device, seq), 1)

    def close(self) -> None:
        """Go."""
        self._client.disconnect()
        self._client.loop_stop()

    def _told(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        now = time.monotonic()
        for id_ in decode(Receipt, message.payload).accepted:
            if id_ in self.sent:
                self.waited[id_] = now - self.sent[id_]


_header, _body = encode_sample(
    Sample(
        SampleId("x", "main", 1, 0),
        "",
        0,
        np.random.default_rng(0).integers(0, 256, BODY, np.uint8),
        Prediction(0, 0.5),
        SELECTION,
        1,
    )
)


def frame_of(device: str, seq: int) -> bytes:
    """A sample's message; all have the same pixels, which cost the blobs less and the rest the same."""
    return sample_frames(msgspec.structs.replace(_header, id=f"{device}.main.1.{seq}"), _body)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")
    turns, seconds = (5, 4.0) if parser.parse_args().quick else (15, 5.0)
    ratios = {}
    print(f"{DEVICES} devices at {PER_S:g}/s, and one at {TIMES} times that; {turns} turns of {seconds:g} s")
    for line in ("one line", "turns"):
        with tempfile.TemporaryDirectory() as folder:
            ratios[line] = compare(Path(folder), line, turns, seconds)
    print(f"RATIO fairness_p99_one_line {ratios['one line']:.2f} (for comparison)")
    value = ratios["turns"]
    print(f"RATIO fairness_p99_others {value:.2f} target <= {TARGET} {'ok' if value <= TARGET else 'short'}")


def compare(folder: Path, line: str, turns: int, seconds: float) -> float:
    """p99 of the others with the flood over that without: median of the paired turns."""
    broker = BrokerChild(folder / "broker")
    broker.start()
    words = [sys.executable, "-c", SERVER, str(folder / "store"), str(broker.port), FLEET, line]
    server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline().strip() == b"True"
    senders = Senders(broker.port, listen=True)
    played: dict[bool, list[Turn]] = {False: [], True: []}
    play(senders, WARM_S, 0)
    for number in range(1, 2 * turns + 1):
        flood = number % 2 == 0
        child = start_flood(broker.port, seconds, number * APART) if flood else None
        ids = play(senders, seconds, number * APART)
        flooded = int(child.communicate()[0]) if child is not None else 0
        time.sleep(SETTLE_S)
        waits = [1000 * senders.waited.get(id_, math.inf) for id_ in ids]
        p50, p99 = np.quantile(waits, [0.5, 0.99], method="higher")
        played[flood].append(Turn(p50, p99, waits.count(math.inf), flooded / seconds))
    senders.close()
    server.communicate()
    broker.stop()
    return show(line, played)


def start_flood(port: int, seconds: float, first: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", FLOOD, str(port), str(TIMES * PER_S), str(seconds), str(first)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent)


def play(senders: Senders, seconds: float, first: int) -> list[str]:
    """The others, evenly; returns the ids of what they sent."""
    ids, began, n = [], time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        while n < now * DEVICES * PER_S:
            device, seq = f"cam-{n % DEVICES}", first + n
            senders.send(device, seq)
            ids.append(f"{device}.main.1.{seq}")
            n += 1
        time.sleep(0.002)
    return ids


def show(line: str, played: dict[bool, list[Turn]]) -> float:
    for flood, turns in played.items():
        p50, p99, unanswered, flood_per_s = (statistics.median(column) for column in zip(*turns, strict=True))
        print(
            f"  {line:<9} {f'flood of {flood_per_s:.0f}/s' if flood else 'calm':<16}  p50 {p50:6.1f} ms  "
            f"p99 {p99:6.1f} ms  to be sent again {unanswered:g}"
        )
    return statistics.median(b.p99_ms / a.p99_ms for a, b in zip(played[False], played[True], strict=True))


if __name__ == "__main__":
    main()
