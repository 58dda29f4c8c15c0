"""How do sensors that publish on a broker become a source?

On a broker of their own, or the fleet's: what is read here has nothing to do with the uplink. A message holds one step
or several, as text (numbers.py) or as bytes. Each topic has windows of its own, so that two sensors are never mixed in
one; the sample's reference is the topic. Retained messages are of another time and passed over.

The client is driven by hand, in the thread that reads: while the feed has no room nothing is read from the broker.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.broker import TlsFiles, parse_broker, tls_context
from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.contract.settings import read_secret
from edge_agent.mqtt import CallbackAPIVersion
from edge_agent.mqtt import client as paho
from edge_agent.source import IDLE_S, Counts, Fit, Start
from edge_agent.source import options as told
from edge_agent.source.live import Taken
from edge_agent.source.numbers import Numbers
from edge_agent.source.window import Windows, plan

log = logging.getLogger(__name__)

CONNECT_S = 10.0  # longest wait for the broker's word
KEEPALIVE_S = 60
TOPICS_MAX = 1_000  # that windows are held for; what comes on others is unreadable
REF_MAX = 200


class Message(NamedTuple):
    """What came. at_s: of a clock that stands still while nobody listens, so that a slow model makes no pauses."""

    topic: str
    payload: bytes
    at_s: float


class Sensor(NamedTuple):
    """What is known of one topic."""

    numbers: Numbers
    windows: Windows


class Mqtt:
    """The capture of a subscription."""

    def __init__(self, options: told.Mqtt, *, fit: Fit, lines: told.Lines, window: told.Window, counts: Counts) -> None:
        """ConfigError when the broker, the topic or the format cannot be."""
        if not options.topic:
            raise ConfigError("[source.mqtt] topic: expected a topic or a filter such as 'sensors/+/imu'")
        self._options = options
        self._address = parse_broker(options.broker, key="[source.mqtt] broker")
        self._cut = plan(window, fit)
        self._lines = lines
        self._counts = counts
        self._raw = _dtype(options.raw) if options.raw else None
        self._sensors: dict[str, Sensor] = {}
        self._last_s: dict[str, float] = {}
        self._came: deque[Message] = deque()
        self._listened_s = self._since_s = 0.0
        self._refusal = ""
        self._subscribed = False

    def samples(self, _start: Start) -> Iterator[Taken | None]:
        """Windows of what is published from now on."""
        client = self._connect()
        try:
            while True:
                self._listen(client)
                if not self._came:
                    yield None
                while self._came:
                    yield from self._samples_of(self._came.popleft())
        finally:
            client.disconnect()

    def _listen(self, client: paho.Client) -> None:
        self._since_s = time.monotonic()
        code = client.loop(timeout=IDLE_S)
        self._listened_s += time.monotonic() - self._since_s
        if code != paho.MQTT_ERR_SUCCESS or self._refusal:
            raise SourceError(f"{self._options.broker}: {self._refusal or paho.error_string(code)}")

    def _samples_of(self, message: Message) -> Iterator[Taken | None]:
        try:
            sensor = self._sensor(message.topic)
            steps = self._steps(sensor, message.payload)
        except ValueError as error:
            self._counts.unreadable += 1
            if self._counts.unreadable == 1:
                log.warning("%s: %s: such messages are counted as unreadable and passed over", message.topic, error)
            return
        waited_s = message.at_s - self._last_s.get(message.topic, message.at_s)
        self._last_s[message.topic] = message.at_s
        for window in sensor.windows.add(steps, waited_s=waited_s):
            yield Taken(window, message.topic[:REF_MAX])

    def _sensor(self, topic: str) -> Sensor:
        found = self._sensors.get(topic)
        if found is None:
            if len(self._sensors) >= TOPICS_MAX:
                raise ValueError(f"more than {TOPICS_MAX} topics: subscribe to fewer")
            numbers = Numbers(self._lines, channels=self._cut.channels, dtype=self._cut.fit.dtype)
            found = self._sensors[topic] = Sensor(numbers, Windows(self._cut, self._counts))
        return found

    def _steps(self, sensor: Sensor, payload: bytes) -> NDArray[np.generic]:
        """(n, channels); ValueError when the payload is none of that."""
        if self._raw is not None:
            found = np.frombuffer(payload, self._raw).reshape(-1, self._cut.channels)
            sensor.numbers.check_held(found, f"{len(payload)} bytes")
            return found
        lines = [sensor.numbers.steps(line) for line in payload.decode("utf-8", "replace").splitlines()]
        return np.concatenate(lines) if lines else np.empty((0, self._cut.channels))

    def _connect(self) -> paho.Client:
        options = self._options
        client = paho.Client(CallbackAPIVersion.VERSION2, f"winnow-{uuid.uuid4().hex[:12]}")
        if options.username:
            client.username_pw_set(options.username, read_secret(options.password_file) or None)
        if self._address.tls:
            client.tls_set_context(tls_context(TlsFiles(options.ca_file, options.cert_file, options.key_file)))
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        try:
            client.connect(self._address.host, self._address.port, keepalive=KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise SourceError(f"{options.broker}: {error}") from error
        until = time.monotonic() + CONNECT_S
        while not self._subscribed:
            self._listen(client)
            if time.monotonic() > until:
                raise SourceError(f"{options.broker}: no answer within {CONNECT_S:.0f} s")
        return client

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            self._refusal = f"refused: {code}"
        else:
            client.subscribe(self._options.topic, self._options.qos)

    def _on_subscribe(self, _client: paho.Client, _data: Any, _number: int, codes: Any, _properties: Any) -> None:
        if codes[0].is_failure:
            self._refusal = f"may not subscribe to {self._options.topic!r}: {codes[0]}"
        self._subscribed = True

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        if not message.retain:
            at_s = self._listened_s + time.monotonic() - self._since_s
            self._came.append(Message(message.topic, bytes(message.payload), at_s))

    def _on_disconnect(self, _client: paho.Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        self._refusal = self._refusal or f"connection lost: {code}"


def _dtype(name: str) -> np.dtype[Any]:
    try:
        found = np.dtype(name)
    except TypeError as error:
        raise ConfigError(f"[source.mqtt] raw = {name!r}: expected a number type of numpy such as '<f4'") from error
    if found.kind not in "iuf":
        raise ConfigError(f"[source.mqtt] raw = {name!r}: expected whole numbers or floats, such as '<i2' or '<f4'")
    return found
