"""A week without a network, under clocks that are years off; then everything that found room arrives, in its order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from broker import Broker
from processes import query
from sending import a_put, ids

from edge_agent.contract.wire import (
    Birth,
    Heartbeat,
    ModelState,
    SampleHeader,
    StreamCounts,
    decode_frame,
    up_topic,
)
from edge_agent.send.outbox import Outbox
from edge_agent.send.uplink import Uplink
from server.collect.collector import Collector
from server.collect.gateway import BrokerAddress
from server.collect.ingest import Ingest
from server.store import devices, gaps
from server.store.store import Store

FLEET = "test"
NOW_MS = 1_790_000_000_000  # the end of the week, in September 2026
DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS
WRONG_BY_MS = (0, -NOW_MS, 10 * YEAR_MS, -10 * YEAR_MS, 0, 25 * YEAR_MS, -YEAR_MS * 56 // 2)  # of each day's boot
PUTS_A_DAY, ROWS_A_PUT = 30, 10
ROOM = 1500  # of 2,100 samples


class Clock:
    """The wall clock of a device that starts once a day, and is wrong by something else each time."""

    def __init__(self) -> None:
        self.days, self.wrong_by_ms = 0.0, 0

    def __call__(self) -> int:
        return NOW_MS - 7 * DAY_MS + int(self.days * DAY_MS) + self.wrong_by_ms


class Device:
    """An outbox, and the uplink that it gets at last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.clock = Clock()
        self.boots: list[int] = []
        self.boot()

    def boot(self) -> None:
        self.outbox = Outbox(self._path, max_bytes=1 << 30, max_rows=ROOM, min_free_disk_bytes=0, now_ms=self.clock)
        self.boots.append(self.outbox.next_boot())

    def live(self, day: int, rng: np.random.Generator) -> None:
        """A day, and the night after it."""
        self.clock.wrong_by_ms = WRONG_BY_MS[day]
        for put in range(PUTS_A_DAY):
            self.clock.days = day + put / PUTS_A_DAY
            numbers = range(put * ROWS_A_PUT, (put + 1) * ROWS_A_PUT)
            sizes, utilities = rng.integers(100, 3000, ROWS_A_PUT).tolist(), rng.random(ROWS_A_PUT).tolist()
            self.outbox.put(
                [
                    a_put(seq, boot=self.boots[-1], size=size, utility=utility, label=seq % 5)
                    for seq, size, utility in zip(numbers, sizes, utilities, strict=True)
                ]
            )
        self.outbox.close()

    def uplink(self, broker: Broker) -> Uplink:
        said = {"session": "s", "boot": self.boots[-1], "model": ModelState(version=1, sha256="00", slot="steady")}
        counts = StreamCounts(read=0, scored=0, invalid=0, selected={})
        return Uplink(
            host=broker.host,
            port=broker.port,
            tls=None,
            username="",
            password="",
            fleet=FLEET,
            device="dev",
            session="s",
            outbox=self.outbox,
            window=32,
            retry_first_s=60.0,  # nothing is sent a second time here: what comes out of order was sent so
            retry_max_s=300.0,
            keepalive_s=30,
            heartbeat_s=0.2,
            birth=lambda: Birth(
                at_ms=self.clock(),
                agent="0",
                runtime="",
                machine="",
                stream="main",
                outbox=self.outbox.status(),
                **said,
            ),
            heartbeat=lambda: Heartbeat(
                at_ms=self.clock(), uptime_s=0, counts=counts, outbox=self.outbox.status(), samples_per_s=0, **said
            ),
            on_desired=lambda _desired: None,
            on_block=lambda _header, _body: None,
            uniform=np.random.default_rng(0).random,
        )


class Witness:
    """Hears every sample that passes the broker."""

    def __init__(self, broker: Broker) -> None:
        self.heard: list[str] = []
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="witness")
        self._client.on_message = self._on_message
        self._client.connect(broker.host, broker.port)
        self._client.subscribe(up_topic(FLEET, "dev", "sample"), 1)
        self._client.loop_start()

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self.heard.append(decode_frame(SampleHeader, message.payload)[0].id)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def store(tmp_path: Path, broker: Broker) -> Iterator[Store]:
    """Of a server that listens."""
    store = Store.open(tmp_path / "server")
    collector = Collector(
        Ingest(store, fleet=FLEET, offline_after_s=90.0),
        BrokerAddress(broker.host, broker.port),
        fleet=FLEET,
        now_ms=lambda: NOW_MS,
        commit_rows=100,
    )
    collector.start()
    assert collector.wait_ready(20.0)
    yield store
    collector.stop()
    store.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_after_a_week_everything_that_found_room_arrives_in_its_order(
    tmp_path: Path, broker: Broker, store: Store
) -> None:
    device = Device(tmp_path / "outbox.db")
    rng = np.random.default_rng(0)
    for day in range(7):
        device.live(day, rng)
        device.boot()
        assert device.outbox.status().oldest_age_s >= 0.0
    assert device.boots == sorted(set(device.boots))
    device.clock.days, device.clock.wrong_by_ms = 7.0, 0
    assert device.outbox.status().oldest_age_s == 7 * 86_400

    before, waiting = device.outbox.status(), ids(device.outbox.peek(10_000))
    assert (before.rows, before.put_total, before.evicted) == (ROOM, 2100, {"full_rows": 600})
    witness, uplink = Witness(broker), device.uplink(broker)
    uplink.start()
    wait_for(lambda: device.outbox.status().rows == 0)
    uplink.stop()
    witness.stop()

    assert witness.heard == waiting  # each once, in the order of (boot, seq)
    assert waiting == sorted(waiting, key=lambda id_: [int(part) for part in id_.split(".")[2:]])
    stored = query(tmp_path / "server" / "catalogue.db", "select id from sample order by boot, seq")
    assert [id_ for (id_,) in stored] == waiting
    assert device.outbox.status().acked_total == ROOM
    with store.database.read() as connection:
        assert gaps.missing(connection, devices.devices(connection)) == {"dev": 0}
    device.outbox.close()
