"""Do sensors that publish on a real broker become samples?"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import numpy as np
import paho.mqtt.client as paho
import pytest
from broker import Broker
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.contract.types import Reading
from edge_agent.source import Counts, Fit, Source, Start
from edge_agent.source import options as told
from edge_agent.source.kinds import open_source
from edge_agent.testing import check_source

FIT = Fit((4, 2), "float32")
WAIT_S = 10.0


class Sensors:
    """Publishes, once somebody listens."""

    def __init__(self, broker: Broker) -> None:
        self.client = paho.Client(CallbackAPIVersion.VERSION2, "sensors")
        self.client.connect(broker.host, broker.port)
        self.client.loop_start()

    def publish(self, topic: str, payload: bytes | str, *, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(WAIT_S)


@pytest.fixture
def sensors(broker: Broker) -> Iterator[Sensors]:
    sensors = Sensors(broker)
    yield sensors
    sensors.client.disconnect()
    sensors.client.loop_stop()


def subscribe(
    broker: Broker, counts: Counts | None = None, *, window: told.Window | None = None, fit: Fit = FIT, **changes
) -> Source:
    mqtt = told.Mqtt(**{"broker": f"mqtt://{broker.host}:{broker.port}", "topic": "s/+", "qos": 1, **changes})
    return open_source(told.Source(kind="mqtt", mqtt=mqtt, window=window), fit=fit, counts=counts)


def listening(source: Source) -> Iterator[Reading | None]:
    """Its readings, once it has subscribed: it is silent then for the first time."""
    readings = source.readings(Start())
    deadline = time.monotonic() + WAIT_S
    while not source._capture._subscribed:
        assert time.monotonic() < deadline
        next(readings)
    return readings


def present(readings: Iterator[Reading | None], count: int) -> list[Reading]:
    found: list[Reading] = []
    deadline = time.monotonic() + WAIT_S
    for reading in readings:
        found += [reading] if reading is not None else []
        assert time.monotonic() < deadline, f"{len(found)} of {count} came"
        if len(found) == count:
            break
    return found


def test_each_topic_has_windows_of_its_own(broker: Broker, sensors: Sensors) -> None:
    sensors.publish("s/old", json.dumps([[9, 9]] * 4), retain=True)
    counts = Counts()
    readings = listening(subscribe(broker, counts))
    for step in range(4):
        sensors.publish("s/a", json.dumps([step, step]))
        sensors.publish("s/b", f"{step + 10},{step + 10}\n")
        sensors.publish("elsewhere", "[0, 0]")
        sensors.publish("s/a", "no numbers") if step == 1 else None
    found = present(readings, 2)
    next(readings)
    assert sorted((reading.ref, reading.data[:, 0].tolist()) for reading in found) == [
        ("s/a", [0, 1, 2, 3]),
        ("s/b", [10, 11, 12, 13]),
    ]
    readings.close()
    assert (counts.unreadable, counts.gaps) == (1, 0)


@pytest.mark.parametrize(("raw", "dtype"), [("<f4", np.float32), ("<i2", np.int16), (">i2", ">i2")])
def test_a_message_may_be_bytes_of_numbers(broker: Broker, sensors: Sensors, raw: str, dtype: object) -> None:
    counts = Counts()
    readings = listening(subscribe(broker, counts, raw=raw))
    values = np.arange(24).reshape(12, 2)
    sensors.publish("s/a", values[:6].astype(dtype).tobytes())
    sensors.publish("s/a", b"odd")
    sensors.publish("s/a", values[6:].astype(dtype).tobytes())
    found = present(readings, 3)
    assert [reading.data.tolist() for reading in found] == values.reshape(3, 4, 2).tolist()
    assert counts.unreadable == 1
    readings.close()


def test_bytes_of_numbers_that_the_model_cannot_hold_are_unreadable(broker: Broker, sensors: Sensors) -> None:
    counts = Counts()
    readings = listening(subscribe(broker, counts, raw="<i2", fit=Fit((4, 2), "uint8")))
    for values in (np.full(8, 256), np.full(8, -1), np.arange(8)):
        sensors.publish("s/a", values.astype("<i2").tobytes())
    assert present(readings, 1)[0].data.tolist() == np.arange(8).reshape(4, 2).tolist()
    assert counts.unreadable == 2
    readings.close()


def test_a_slow_loop_keeps_the_broker_waiting_and_makes_no_gaps(broker: Broker, sensors: Sensors) -> None:
    counts = Counts()
    # A pause is a second: on a busy machine, broker and sender alone are kept from a core for a tenth of one.
    source = subscribe(broker, counts, window=told.Window(rate_per_s=1000.0, gap_steps=1000.0))
    readings = listening(source)
    for step in range(600):
        sensors.client.publish("s/a", f"{step},{step}", qos=1)
    assert present(readings, 1)[0].data[0, 0] == 0
    time.sleep(1.5)
    found = present(readings, 149)
    assert [reading.data[0, 0] for reading in found] == list(range(4, 600, 4))
    assert (counts.skipped, counts.gaps) == (0, 0)
    readings.close()


def test_mqtt_keeps_the_contract_of_a_source(broker: Broker, sensors: Sensors) -> None:
    def make() -> Source:
        source = subscribe(broker)

        def publish() -> None:
            deadline = time.monotonic() + WAIT_S
            while not source._capture._subscribed and time.monotonic() < deadline:
                time.sleep(0.005)
            for step in range(40):
                sensors.client.publish("s/a", f"{step},{step}", qos=1)

        threading.Thread(target=publish, daemon=True).start()
        return source

    check_source(make, live=True)


def test_a_broker_that_goes_is_a_source_error(broker: Broker) -> None:
    readings = listening(subscribe(broker))
    broker.kill()
    with pytest.raises(SourceError, match=f"mqtt://{broker.host}:{broker.port}: "):
        present(readings, 1)
    with pytest.raises(SourceError, match="refused"):
        present(subscribe(broker).readings(Start()), 1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"topic": ""}, r"\[source.mqtt\] topic: expected"),
        ({"raw": "text"}, r"\[source.mqtt\] raw = 'text'"),
        ({"raw": "U4"}, r"\[source.mqtt\] raw = 'U4'"),
        ({"broker": "http://x"}, r"\[source.mqtt\] broker: got 'http://x'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_opened(changes: dict[str, str], why: str) -> None:
    mqtt = told.Mqtt(**{"topic": "s/+", **changes})
    with pytest.raises(ConfigError, match=why):
        open_source(told.Source(kind="mqtt", mqtt=mqtt), fit=FIT)
