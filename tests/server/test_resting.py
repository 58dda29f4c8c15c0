"""Where few came that nobody waits for, the next ones gather before they are read; what is sent does not wait."""

import time

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from resending import WAIT_S, wait_for

from server.collect import reader
from server.collect.broker import HOST, BrokerChild
from server.collect.gateway import BrokerAddress, Gateway

SAID, PAUSE_S = 60, 0.004  # fewer than REST_MESSAGES, if all come at once


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    broker = BrokerChild(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def other(broker):
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect(HOST, broker.port)
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()


@pytest.fixture
def listen(broker):
    opened = []

    def start(deliver):
        gateway = Gateway(
            BrokerAddress(HOST, broker.port), fleet="test", filters=["said"], voice="silent", now_ms=lambda: 0,
            deliver=deliver,
        )  # fmt: skip
        opened.append(gateway)
        gateway.start()
        assert gateway.ready.wait(WAIT_S)
        return gateway

    yield start
    for gateway in opened:
        gateway.stop()


def test_few_that_nobody_waits_for_are_read_together(listen, other):
    times = []

    def deliver(found):
        times.extend([time.monotonic()] * bool(found))
        got.extend(int(one.payload) for one in found)
        return True

    got = []
    listen(deliver)
    for number in range(SAID):
        other.publish("said", b"%d" % number, 0)
        time.sleep(PAUSE_S)
    wait_for(lambda: len(got) == SAID)
    assert got == list(range(SAID))
    assert len(times) <= 1 + (times[-1] - times[0]) / reader.REST_S


def test_what_is_sent_does_not_wait_for_the_end_of_a_rest(listen, other, monkeypatch):
    monkeypatch.setattr(reader, "REST_S", 2 * WAIT_S)
    heard, got = [], []
    other.on_message = lambda *_: heard.append(time.monotonic())
    other.subscribe("answer")
    gateway = listen(lambda found: got.extend(found) or True)
    other.publish("said", b"a", 0)
    wait_for(lambda: got)
    time.sleep(0.1)  # it rests now
    gateway.publish("answer", b"b", qos=0)
    wait_for(lambda: heard)
