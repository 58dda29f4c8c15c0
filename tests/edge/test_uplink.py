from __future__ import annotations

import datetime
import ipaddress
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from broker import HOST, Broker
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from link import Link
from sending import a_put

from edge_agent.contract.broker import BrokerAddress, TlsFiles, parse_broker
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.wire import (
    BODY_MAX_BYTES,
    Birth,
    BlockHeader,
    Death,
    Desired,
    Event,
    Fetch,
    Heartbeat,
    ModelState,
    Receipt,
    SampleHeader,
    ServerState,
    StreamCounts,
    decode,
    decode_frame,
    down_topic,
    encode,
    encode_frame,
    parse_topic,
    server_state_topic,
    up_filter,
)
from edge_agent.send.allowance import Allowance
from edge_agent.send.outbox import Outbox
from edge_agent.send.uplink import Uplink

PATIENCE_S = 30.0
MODEL = ModelState(version=3, sha256="ab", slot="steady")


def wait_for(condition: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"did not come about: {what}"
        time.sleep(0.005)


def accept(header: SampleHeader, times: int) -> Receipt | None:
    return Receipt(accepted=(header.id,)) if times == 1 else Receipt(duplicate=(header.id,))


class Server:
    """Receives all that the fleet says, puts parts together, and answers each whole sample by `answer`."""

    def __init__(self, broker: Broker, answer: Callable[[SampleHeader, int], Receipt | None] = accept) -> None:
        self.answer = answer
        self.said: list[tuple[str, bytes]] = []  # kind, payload, in order of arrival
        self.bodies: dict[str, bytes] = {}
        self.times: Counter[str] = Counter()
        self._parts: dict[str, dict[int, bytes]] = {}
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="server")
        self._client.reconnect_delay_set(0.02, 0.1)
        self._subscribed = threading.Event()
        self._client.on_connect = lambda *_: self._begin()
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _data, message: self._receive(message)
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        wait_for(lambda: self._subscribed.is_set() and self._state_said.is_published(), "the server")

    def _begin(self) -> None:
        self._client.subscribe(up_filter("demo"), 1)
        self.state(True)

    def _receive(self, message: mqtt.MQTTMessage) -> None:
        kind = parse_topic(message.topic).kind
        self.said.append((kind, message.payload))
        if kind == "sample":
            header, body = decode_frame(SampleHeader, message.payload)
            parts = self._parts.setdefault(header.id, {})
            parts[header.part] = bytes(body)
            if len(parts) == header.parts:
                self.bodies[header.id] = b"".join(parts[n] for n in range(header.parts))
                self.times[header.id] += 1
                del self._parts[header.id]
                if (receipt := self.answer(header, self.times[header.id])) is not None:
                    self.tell("receipt", encode(receipt))

    def tell(self, kind, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(down_topic("demo", "dev", kind), payload, qos=1, retain=retain)

    def state(self, online: bool) -> None:
        message = encode(ServerState(online=online, at_ms=0))
        self._state_said = self._client.publish(server_state_topic("demo"), message, qos=1, retain=True)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.said]

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def outbox(tmp_path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "outbox.db", max_bytes=1 << 30, max_rows=10_000, min_free_disk_bytes=0)
    yield outbox
    outbox.close()


@pytest.fixture
def server(broker) -> Iterator[Server]:
    server = Server(broker)
    yield server
    server.stop()


@pytest.fixture
def make(outbox) -> Iterator[Callable[..., Uplink]]:
    made: list[Uplink] = []

    def make(at: Broker | Link | BrokerAddress, **over) -> Uplink:
        options = {
            "host": at.host,
            "port": at.port,
            "tls": None,
            "username": "",
            "password": "",
            "fleet": "demo",
            "device": "dev",
            "session": "s1",
            "outbox": outbox,
            "window": 32,
            "retry_first_s": 0.1,
            "retry_max_s": 0.4,
            "keepalive_s": 5,
            "heartbeat_s": 0.1,
            "birth": lambda: a_birth(outbox),
            "heartbeat": lambda: a_heartbeat(outbox),
            "on_desired": lambda desired: None,
            "on_block": lambda header, body: None,
            "uniform": np.random.default_rng(0).random,
        }
        made.append(Uplink(**{**options, **over}))
        made[-1].start()
        return made[-1]

    yield make
    for uplink in made:
        uplink.stop()


def a_birth(outbox: Outbox) -> Birth:
    return Birth(
        session="s1", boot=1, at_ms=0, agent="0", runtime="", machine="", stream="main", model=MODEL,
        outbox=outbox.status(),
    )  # fmt: skip


def a_heartbeat(outbox: Outbox) -> Heartbeat:
    counts = StreamCounts(read=0, scored=0, invalid=0, selected={})
    return Heartbeat(
        session="s1", boot=1, at_ms=0, uptime_s=0, model=MODEL, counts=counts, outbox=outbox.status(), samples_per_s=0
    )


def an_event(n: int) -> Event:
    return Event(session="s1", boot=1, n=n, at_ms=0, kind="alarm", text=f"number {n}")


def names(count: int, *, boot: int = 1, first: int = 0) -> list[str]:
    return [f"dev.main.{boot}.{seq}" for seq in range(first, first + count)]


def pass_heartbeats(server: Server, n: int = 3) -> None:
    """Let the uplink's thread go round some more times."""
    enough = server.kinds().count("heartbeat") + n
    wait_for(lambda: server.kinds().count("heartbeat") >= enough, "heartbeats")


# --- samples ---------------------------------------------------------------------------------------------------------


def test_everything_arrives_in_order_after_the_birth_and_the_outbox_empties(broker, server, outbox, make):
    outbox.put([a_put(seq, boot=2) for seq in range(40)])
    outbox.put([a_put(seq, boot=1) for seq in range(40, 60)])
    uplink = make(broker)
    wait_for(lambda: outbox.status().rows == 0, "drained")
    outbox.put([a_put(100, boot=2)])
    uplink.kick()
    wait_for(lambda: outbox.status().rows == 0, "drained again")
    firsts = list(server.times)  # in order of first arrival
    assert firsts == [*names(20, boot=1, first=40), *names(40, boot=2), "dev.main.2.100"]
    assert server.kinds()[0] == "birth"
    assert decode(Birth, server.said[0][1]).model == MODEL
    assert outbox.status().acked_total == 61
    assert {id_: server.bodies[id_] for id_ in names(40, boot=2)} == {
        f"dev.main.2.{seq}": a_put(seq, boot=2).body for seq in range(40)
    }


def test_while_uploads_are_paused_samples_wait_and_all_else_goes_on(broker, server, outbox, make):
    outbox.put([a_put(seq) for seq in range(10)])
    uplink = make(broker, heartbeat=lambda: msgspec.structs.replace(a_heartbeat(outbox), link=uplink.link))
    wait_for(lambda: outbox.status().rows == 0, "drained")
    uplink.pause(1234)
    wait_for(lambda: uplink.link.held == "paused", "the pause")
    outbox.put([a_put(seq) for seq in range(10, 20)])
    uplink.kick()
    uplink.event(an_event(1))
    pass_heartbeats(server)
    wait_for(lambda: "event" in server.kinds(), "the event")
    assert uplink.fetch(Fetch(sha256="ab", blocks=(0,)))
    assert uplink.carries()
    link = decode(Heartbeat, [payload for kind, payload in server.said if kind == "heartbeat"][-1]).link
    assert (link.held, link.paused_ms, link.heartbeat_s) == ("paused", 1234, 0.1)
    assert outbox.status().rows == 10
    assert set(server.times) == set(names(10))
    uplink.pause(0)
    wait_for(lambda: outbox.status().rows == 0, "drained after the pause")
    assert uplink.link.held == ""


def test_news_are_not_kept_until_the_next_heartbeat_is_due(broker, server, outbox, make):
    uplink = make(broker, heartbeat_s=3600.0)
    wait_for(lambda: server.kinds().count("heartbeat") == 1, "the first heartbeat")
    uplink.beat()
    wait_for(lambda: server.kinds().count("heartbeat") == 2, "the news")


def test_lost_receipts_are_made_good_by_sending_again(broker, server, outbox, make):
    server.answer = lambda header, times: None if times < 3 else Receipt(duplicate=(header.id,))
    outbox.put([a_put(seq) for seq in range(10)])
    make(broker)
    wait_for(lambda: outbox.status().rows == 0, "drained")
    assert min(server.times[id_] for id_ in names(10)) == 3


def test_a_refused_sample_is_parked_and_never_sent_again(broker, server, outbox, make):
    def answer(header, times):
        refused = header.id == "dev.main.1.3"
        return Receipt(refused={header.id: "shape (100,)"}) if refused else Receipt(accepted=(header.id,))

    server.answer = answer
    outbox.put([a_put(seq) for seq in range(6)])
    make(broker)
    wait_for(lambda: outbox.status().rows == 0, "drained")
    pass_heartbeats(server, 1)  # whatever was sent again before its receipt came has arrived
    sent = server.times["dev.main.1.3"]
    pass_heartbeats(server, 8)  # longer than the longest retry
    assert outbox.parked() == [("dev.main.1.3", "shape (100,)")]
    assert server.times["dev.main.1.3"] == sent


def test_no_more_than_a_window_is_on_its_way(broker, server, outbox, make):
    server.answer = lambda header, times: None
    outbox.put([a_put(seq) for seq in range(20)])
    make(broker, window=5)
    wait_for(lambda: sum(server.times.values()) >= 15, "sent again")
    assert sorted(server.times) == names(5)
    server.answer = accept
    wait_for(lambda: outbox.status().rows == 0, "drained")
    assert sorted(server.times) == sorted(names(20))


def test_a_broker_that_is_killed_and_comes_back_loses_nothing(broker, server, outbox, make, caplog):
    caplog.set_level(logging.INFO, logger="edge_agent.send")
    outbox.put([a_put(seq) for seq in range(30)])
    uplink = make(broker)
    wait_for(lambda: len(server.times) >= 10, "some arrived")
    broker.kill()
    wait_for(lambda: not uplink.connected, "noticed")
    outbox.put([a_put(seq) for seq in range(30, 60)])
    assert not uplink.fetch(Fetch(sha256="ab", blocks=(0,)))
    time.sleep(0.5)  # some attempts fail meanwhile
    broker.start()
    wait_for(lambda: outbox.status().rows == 0, "drained")
    wait_for(lambda: server.kinds().count("birth") > 1, "the birth")
    assert sorted(server.times) == sorted(names(60))
    assert outbox.status().acked_total == 60
    words = [record.getMessage() for record in caplog.records if record.name.endswith("uplink")]
    assert [("trying again" in word, "connected to" in word) for word in words] == [
        (False, True),
        (True, False),
        (False, True),
    ]


def test_what_was_on_its_way_goes_again_at_once_on_a_new_connection(broker, server, outbox, make):
    server.answer = lambda header, times: accept(header, times) if times > 1 else None
    link = Link(broker.port)
    outbox.put([a_put(seq) for seq in range(5)])
    make(link, retry_first_s=0.3, retry_max_s=3600.0)
    wait_for(lambda: len(server.times) == 5, "arrived once")
    link.cut()
    link.mend()
    wait_for(lambda: outbox.status().rows == 0, "drained")
    link.close()


def test_a_large_sample_goes_in_parts(broker, server, outbox, make):
    big = a_put(1, size=3 * BODY_MAX_BYTES + 17)
    outbox.put([big])
    make(broker)
    wait_for(lambda: outbox.status().rows == 0, "drained")
    assert server.kinds().count("sample") == 4
    assert server.bodies["dev.main.1.1"] == big.body
    assert max(len(payload) for _, payload in server.said) < 128 * 1024


def test_receipts_of_unknown_ids_are_ignored(broker, server, outbox, make):
    outbox.put([a_put(1)])
    server.answer = lambda header, times: Receipt(
        accepted=("other.main.1.1", "x", header.id), duplicate=("dev.main.9.9",), refused={"dev.main.8.8": "no"}
    )
    uplink = make(broker)
    wait_for(lambda: outbox.status().rows == 0, "drained")
    assert (outbox.status().acked_total, outbox.status().parked, uplink.messages_bad) == (1, 0, 0)


def test_an_evicted_sample_leaves_the_window(broker, server, tmp_path, make):
    small = Outbox(tmp_path / "small.db", max_bytes=1 << 30, max_rows=4, min_free_disk_bytes=0)
    server.answer = lambda header, times: None
    small.put([a_put(seq, utility=0.1) for seq in range(4)])
    uplink = make(broker, outbox=small, window=4)
    wait_for(lambda: len(server.times) == 4, "the window is full")
    small.put([a_put(seq, utility=0.9) for seq in range(10, 14)])
    uplink.kick()
    wait_for(lambda: len(server.times) == 8, "the useful ones are sent")
    uplink.stop()
    small.close()


def test_nothing_is_sent_to_a_server_that_is_away(broker, server, outbox, make):
    uplink = make(broker)
    wait_for(lambda: uplink.connected, "connected")
    server.state(False)
    pass_heartbeats(server)
    outbox.put([a_put(seq) for seq in range(5)])
    uplink.kick()
    uplink.event(an_event(1))
    pass_heartbeats(server)
    assert set(server.kinds()) == {"birth", "heartbeat"}
    server.state(True)
    wait_for(lambda: outbox.status().rows == 0, "drained")
    assert [kind for kind in server.kinds() if kind != "heartbeat"] == ["birth", "birth", "event"] + ["sample"] * 5


def test_a_server_that_comes_back_between_two_looks_hears_the_birth_first(broker, server, outbox, make):
    comes_back = threading.Event()

    def heartbeat() -> Heartbeat:
        if comes_back.is_set():
            comes_back.clear()
            server.state(True)
            time.sleep(0.3)  # the news arrives while the uplink is here, past its look for them
        return a_heartbeat(outbox)

    uplink = make(broker, heartbeat=heartbeat)
    wait_for(lambda: uplink.connected, "connected")
    server.state(False)
    pass_heartbeats(server)
    outbox.put([a_put(seq) for seq in range(5)])
    uplink.event(an_event(1))
    comes_back.set()
    wait_for(lambda: outbox.status().rows == 0, "drained")
    assert [kind for kind in server.kinds() if kind != "heartbeat"] == ["birth", "birth", "event"] + ["sample"] * 5


def test_a_server_that_comes_after_the_device_hears_a_birth(broker, outbox, make):
    outbox.put([a_put(seq) for seq in range(3)])
    beats = []
    uplink = make(
        broker,
        heartbeat=lambda: beats.append(1) or a_heartbeat(outbox),
        retry_first_s=3600.0,  # what was sent to nobody must not wait for this
        retry_max_s=3600.0,
    )
    wait_for(lambda: len(beats) > 2, "all was sent")
    late = Server(broker)
    wait_for(lambda: outbox.status().rows == 0, "drained")
    assert next(kind for kind in late.kinds() if kind != "heartbeat") == "birth"
    uplink.stop()
    late.stop()


# --- what the link may carry -----------------------------------------------------------------------------------------


def test_the_wire_itself_never_carries_more_than_five_percent_above_the_rate(broker, server, outbox, make):
    """200 KB/s for some 4 s: bytes counted where they pass, in every window of 1 s (the bound is rate * w + depth)."""
    rate = 200_000.0
    link = Link(broker.port)
    outbox.put([a_put(1, size=500_000), *(a_put(seq, size=20_000) for seq in range(2, 16))])
    make(link, allowance=Allowance(bytes_per_s=rate, now_s=time.monotonic()), heartbeat_s=0.5)
    wait_for(lambda: outbox.status().rows == 0, "drained")
    began_s, ended_s = link.went[0][0], link.went[-1][0]
    total = sum(size for _, size in link.went)
    for at, _ in link.went:
        assert sum(size for when, size in link.went if at <= when < at + 1.0) <= 1.5 * rate + 2_000  # acks, pings
    assert total <= rate * (ended_s - began_s) + 0.5 * rate + 2_000
    assert total / (ended_s - began_s) >= 0.8 * rate  # and it is used
    assert server.times == dict.fromkeys(names(15, first=1), 1)  # nothing was sent again meanwhile
    link.close()


def test_what_is_counted_is_what_travels(broker, server, outbox, make):
    link = Link(broker.port)
    allowance = Allowance()
    outbox.put([a_put(seq, size=20_000) for seq in range(20)])
    uplink = make(link, allowance=allowance)
    wait_for(lambda: outbox.status().rows == 0, "drained")
    uplink.stop()
    assert allowance.sent_bytes == pytest.approx(sum(size for _, size in link.went), rel=0.01)
    assert uplink.link.sent_bytes == allowance.sent_bytes
    link.close()


def test_a_large_sample_does_not_hold_up_events_and_heartbeats(broker, server, outbox, make):
    outbox.put([a_put(1, size=60_000)])
    uplink = make(broker, allowance=Allowance(bytes_per_s=20_000.0, now_s=time.monotonic()))
    wait_for(lambda: "sample" in server.kinds(), "its first part")
    uplink.event(an_event(1))
    wait_for(lambda: outbox.status().rows == 0, "drained")
    between = server.kinds()[
        server.kinds().index("sample") : len(server.kinds()) - server.kinds()[::-1].index("sample")
    ]
    assert "event" in between
    assert between.count("heartbeat") > 5
    assert between.count("sample") >= 6
    assert server.bodies["dev.main.1.1"] == a_put(1, size=60_000).body


def test_a_link_that_breaks_in_mid_sample_continues_where_it_was(broker, server, outbox, make):
    """No connection lasts for more than a part or two: begun anew each time, it would never get across."""
    link = Link(broker.port)
    outbox.put([a_put(1, size=90_000)])
    make(link, allowance=Allowance(bytes_per_s=30_000.0, now_s=time.monotonic()), retry_max_s=0.1)

    def arrived() -> set[int]:
        return {decode_frame(SampleHeader, payload)[0].part for kind, payload in server.said if kind == "sample"}

    for count in range(1, 6):
        wait_for(lambda count=count: len(arrived()) >= count or outbox.status().rows == 0, "a further part")
        link.cut()
        link.mend()
    wait_for(lambda: outbox.status().rows == 0, "drained")
    parts = decode_frame(SampleHeader, next(payload for kind, payload in server.said if kind == "sample"))[0].parts
    assert parts >= 6
    assert server.kinds().count("sample") <= parts + 2 * 5  # what the broker had not taken by a cut goes again
    assert server.bodies["dev.main.1.1"] == a_put(1, size=90_000).body
    link.close()


def test_in_a_lull_only_heartbeats_and_events_go_and_models_are_not_fetched(broker, server, outbox, make):
    lull = ["metered"]
    outbox.put([a_put(seq) for seq in range(5)])
    uplink = make(broker, lull=lambda: lull[0])
    wait_for(lambda: "heartbeat" in server.kinds(), "connected")
    uplink.event(an_event(1))
    wait_for(lambda: "event" in server.kinds(), "the event")
    time.sleep(0.5)  # five heartbeats, were it not for the lull
    assert set(server.kinds()) == {"birth", "heartbeat", "event"}
    assert server.kinds().count("heartbeat") == 1
    assert not uplink.fetch(Fetch(sha256="ab", blocks=(0,)))
    assert not uplink.carries()
    assert (uplink.link.held, uplink.link.heartbeat_s) == ("metered", 300.0)
    lull[0] = ""
    wait_for(lambda: outbox.status().rows == 0, "drained")
    pass_heartbeats(server)  # at the old pace
    assert uplink.link.held == ""
    assert uplink.fetch(Fetch(sha256="ab", blocks=(0,)))


def test_a_stop_in_a_lull_does_not_wait_for_the_outbox(broker, server, outbox, make):
    outbox.put([a_put(1)])
    uplink = make(broker, lull=lambda: "quiet")
    wait_for(lambda: "heartbeat" in server.kinds(), "connected")
    began_s = time.monotonic()
    uplink.stop(drain_s=PATIENCE_S)
    assert time.monotonic() - began_s < PATIENCE_S / 2
    assert outbox.status().rows == 1


def test_when_the_bytes_of_the_day_are_spent_samples_wait_and_events_go(broker, server, outbox, make):
    allowance = Allowance(bytes_per_day=1_000_000.0, now_s=time.monotonic())
    outbox.put([a_put(seq, size=30_000) for seq in range(10)])
    uplink = make(broker, allowance=allowance)
    wait_for(lambda: uplink.link.held == "budget", "said so")
    uplink.event(an_event(1))
    wait_for(lambda: "event" in server.kinds(), "the event")
    assert len(server.times) == 3  # a tenth of the day at once
    assert allowance.sent_bytes + allowance.received_bytes <= 100_000
    assert uplink.link.day_tokens < 30_000
    uplink.carried(100_000)
    assert allowance.received_bytes >= 100_000
    assert not uplink.fetch(Fetch(sha256="ab", blocks=(0,)))
    assert not uplink.carries()


# --- the rest --------------------------------------------------------------------------------------------------------


def test_a_broken_connection_publishes_the_will_and_the_birth_comes_again(broker, server, make):
    link = Link(broker.port)
    wanted = []
    server.tell("desired", encode(Desired(revision=4, label_share=0.1)), retain=True)
    make(link, on_desired=wanted.append)
    wait_for(lambda: wanted and "birth" in server.kinds(), "desired on connect, and the birth")
    link.cut()
    link.mend()
    wait_for(lambda: server.kinds().count("birth") == 2 and len(wanted) >= 2, "a second connection")
    wait_for(lambda: "death" in server.kinds(), "the will")
    assert next(decode(Death, payload) for kind, payload in server.said if kind == "death") == Death(session="s1")
    assert [desired.revision for desired in wanted] == [4, 4]
    link.close()


def test_a_stop_drains_and_says_farewell_once(broker, server, outbox, make):
    outbox.put([a_put(seq) for seq in range(10)])
    uplink = make(broker)
    uplink.event(an_event(1))
    uplink.stop(drain_s=PATIENCE_S)
    assert outbox.status().rows == 0
    assert not uplink.connected
    wait_for(lambda: "death" in server.kinds(), "farewell")
    assert server.kinds()[-2:] == ["heartbeat", "death"]  # the last counts are not lost
    assert (server.kinds().count("death"), server.kinds().count("event")) == (1, 1)


def test_a_stop_without_a_broker_returns(outbox, make, caplog):
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    outbox.put([a_put(1)])
    uplink = make(BrokerAddress(HOST, port, False))
    wait_for(lambda: caplog.records, "said so")
    uplink.stop(drain_s=0.1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert outbox.status().rows == 1


def test_events_heartbeats_and_block_requests_arrive(broker, server, make):
    blocks = []
    uplink = make(broker, on_block=lambda header, body: blocks.append((header, body)))
    for n in range(3):
        uplink.event(an_event(n))
    wait_for(lambda: server.kinds().count("event") == 3, "events")
    assert [decode(Event, payload).n for kind, payload in server.said if kind == "event"] == [0, 1, 2]
    pass_heartbeats(server, 2)
    request = Fetch(sha256="ab", blocks=(0, 1))
    assert uplink.fetch(request)
    wait_for(lambda: "fetch" in server.kinds(), "fetch")
    assert next(decode(Fetch, payload) for kind, payload in server.said if kind == "fetch") == request
    header = BlockHeader(sha256="ab", index=1, total_bytes=9)
    server.tell("block", encode_frame(header, b"\0\1\2"))
    wait_for(lambda: blocks, "block")
    assert blocks == [(header, b"\0\1\2")]


def test_a_heartbeat_that_cannot_be_made_does_not_end_the_sending(broker, server, outbox, make, caplog):
    said = iter([ValueError("a mistake of ours"), KeyError("another")])

    def heartbeat():
        if (error := next(said, None)) is not None:
            raise error
        return a_heartbeat(outbox)

    outbox.put([a_put(seq) for seq in range(5)])
    make(broker, heartbeat=heartbeat)
    wait_for(lambda: outbox.status().rows == 0, "drained")
    pass_heartbeats(server)
    assert caplog.text.count("a mistake of ours; connecting again") == 2


def test_rubbish_from_the_server_is_counted_and_harmless(broker, server, outbox, make, caplog):
    wanted = []

    def on_desired(desired):
        wanted.append(desired.revision)
        if desired.revision == 1:
            raise RuntimeError("a mistake of ours")

    uplink = make(broker, on_desired=on_desired)
    wait_for(lambda: "birth" in server.kinds(), "a birth: the broker took what is subscribed to before it")
    for rubbish in (b"", b"\xff\xfe", b"[" * 5000, b"[1]", b"\0" * 100_000):
        for kind in ("desired", "receipt", "block"):
            server.tell(kind, rubbish)
    server.tell("desired", encode(Desired(revision=1)))
    server.tell("desired", encode(Desired(revision=2)))
    wait_for(lambda: wanted == [1, 2], "still listening")
    assert uplink.messages_bad == 15
    words = [record.getMessage() for record in caplog.records if "undecodable" in record.getMessage()]
    assert sorted(word.split("undecodable ")[1].split(",")[0] for word in words) == ["block", "desired", "receipt"]
    assert any("a mistake of ours" in record.getMessage() for record in caplog.records)
    outbox.put([a_put(1)])
    uplink.kick()
    wait_for(lambda: outbox.status().rows == 0, "still sending")


# --- where the broker is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://localhost", BrokerAddress("localhost", 1883, False)),
        ("mqtts://broker.example.com", BrokerAddress("broker.example.com", 8883, True)),
        ("mqtt://10.0.0.1:18830/", BrokerAddress("10.0.0.1", 18830, False)),
        ("mqtts://[::1]:1234", BrokerAddress("::1", 1234, True)),
    ],
)
def test_an_address_has_a_port_by_default(url, expected):
    assert parse_broker(url) == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "expected mqtt://"),
        ("localhost:1883", "expected mqtt://"),
        ("mqt://host", "did you mean 'mqtt'"),
        ("http://host", "expected mqtt://"),
        ("mqtt://", "expected mqtt://"),
        ("mqtt://host:0", "expected mqtt://"),
        ("mqtt://host:99999", "expected mqtt://"),
        ("mqtt://host:x", "expected mqtt://"),
        ("mqtt://host/path", "expected mqtt://"),
        ("mqtt://me:secret@host", "password_file"),
        ("mqtt://[::1", "expected mqtt://"),
    ],
)
def test_an_address_that_is_none_says_what_to_mend(url, said):
    with pytest.raises(ConfigError, match=said) as raised:
        parse_broker(url)
    assert "secret" not in str(raised.value)


def write_certificates(folder) -> TlsFiles:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return TlsFiles(str(folder / "cert.pem"), str(folder / "cert.pem"), str(folder / "key.pem"))


def test_over_tls_only_a_broker_that_can_be_trusted_gets_anything(tmp_path, make, caplog):
    caplog.set_level(logging.INFO, logger="edge_agent.send")
    files = write_certificates(tmp_path)
    broker = Broker(tmp_path, options=f"certfile {files.cert_file}\nkeyfile {files.key_file}\n")
    broker.start()
    try:
        trusting = make(broker, tls=files)
        wait_for(lambda: trusting.connected, "connected")
        trusting.stop()
        caplog.clear()
        wary = make(broker, tls=TlsFiles("", "", ""))  # the system's certificates do not know this broker
        wait_for(lambda: caplog.records, "said so")
        assert "certificate" in caplog.text
        assert not wary.connected
    finally:
        broker.kill()


def test_a_certificate_that_cannot_be_used_is_the_operators_to_mend(tmp_path, make):
    with pytest.raises(ConfigError, match="nowhere"):
        make(BrokerAddress(HOST, 1, True), tls=TlsFiles(str(tmp_path / "nowhere.pem"), "", ""))
    (tmp_path / "bad.pem").write_text("not a certificate")
    with pytest.raises(ConfigError, match=r"bad\.pem"):
        make(BrokerAddress(HOST, 1, True), tls=TlsFiles(str(tmp_path / "bad.pem"), "", ""))
