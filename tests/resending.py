"""A device that sends its samples until they are receipted, as an agent's outbox does, and knows nothing of models."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import paho.mqtt.client as mqtt
from device_words import FLEET, frames
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.contract.wire import Receipt, decode, down_topic, up_topic
from server.collect.broker import HOST

WAIT_S = 20.0


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.01)


class Device:
    """Sends what waits again every 0.3 s; `waiting`: id -> its messages."""

    def __init__(self, name, port, count=0):
        self.name = name
        self.waiting = {f"{name}.main.1.{seq}": frames(name, seq) for seq in range(count)}
        self.told = []  # of receipts: (kind, id)
        self.heard = []
        self.sent_bytes = 0  # of samples, as the broker has acknowledged
        self._sizes = {}
        self._stop = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async(HOST, port)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def say(self, kind, payload):
        wait_for(self._client.is_connected)
        self._client.publish(up_topic(FLEET, self.name, kind), payload, 1).wait_for_publish(WAIT_S)

    def tell(self, kind, payload):
        """The same, without waiting for the broker."""
        self._client.publish(up_topic(FLEET, self.name, kind), payload, 1)

    def close(self):
        self._stop.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()

    def _send(self):
        while not self._stop.wait(0.3):
            for sent in list(self.waiting.values()) if self._client.is_connected() else []:
                for frame in sent:
                    going = self._client.publish(up_topic(FLEET, self.name, "sample"), frame, 1)
                    self._sizes[going.mid] = len(frame)

    def _on_connect(self, client, *_):
        client.subscribe([(down_topic(FLEET, self.name, kind), 1) for kind in ("receipt", "desired")])

    def _on_publish(self, _client, _data, mid, *_):
        self.sent_bytes += self._sizes.pop(mid, 0)

    def _on_message(self, _client, _data, message):
        self.heard.append((message.topic, message.payload))
        if message.topic.endswith("/receipt"):
            receipt = decode(Receipt, message.payload)
            self.told += [("accepted", id_) for id_ in receipt.accepted]
            self.told += [("refused", id_) for id_ in receipt.refused]
            for id_ in (*receipt.accepted, *receipt.duplicate, *receipt.refused):
                self.waiting.pop(id_, None)
