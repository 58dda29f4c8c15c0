"""Does this broker share a subscription among several?

Three that were tried acknowledge `$share` and deliver nothing, so what a broker says of it is no proof. Two clients
subscribe as one group to a topic that nobody else uses, and one of them publishes: proven is what came exactly once,
all of it. Anything else, a broker that does not let us try it too, is no.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import Counter
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.contract.wire import probe_topic
from server.collect.gateway import BrokerAddress

MESSAGES = 16  # fewer, and a broker that sends all to both may look as if it shared; more proves no more
WAIT_S = 3.0  # for each step; a broker that takes longer than this for 16 small messages is not one to share
SETTLE_S = 0.2  # in which a second copy would come

_log = logging.getLogger(__name__)


def shares(one: BrokerAddress, other: BrokerAddress, *, fleet: str, wait_s: float = WAIT_S) -> bool:
    """Whether it does, by trying. The addresses are of one broker, as two clients that may be connected at once."""
    probe = _Probe(probe_topic(fleet, secrets.token_hex(6)))
    clients = [probe.client(address) for address in (one, other)]
    try:
        for client, address in zip(clients, (one, other), strict=True):
            client.connect(address.host, address.port, keepalive=10)
            client.loop_start()
        return probe.run(clients[0], wait_s)
    except OSError as error:
        _log.warning("the broker could not be asked whether it shares subscriptions: %s", error)
        return False
    finally:
        for client in clients:
            client.disconnect()
            client.loop_stop()


class _Probe:
    """Two clients, and what they hear."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._heard: Counter[bytes] = Counter()
        self._subscribed = threading.Semaphore(0)
        self._all = threading.Event()

    def client(self, address: BrokerAddress) -> mqtt.Client:
        name = f"winnow-server-probe-{secrets.token_hex(6)}"
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv311, reconnect_on_failure=False
        )
        if address.username:
            client.username_pw_set(address.username, address.password or None)
        if address.tls is not None:
            client.tls_set_context(address.tls)
        client.on_connect = self._on_connect
        client.on_subscribe = lambda *_: self._subscribed.release()
        client.on_message = self._on_message
        return client

    def run(self, publisher: mqtt.Client, wait_s: float) -> bool:
        if not all(self._subscribed.acquire(timeout=wait_s) for _ in range(2)):
            return False
        for number in range(MESSAGES):
            publisher.publish(self._topic, b"%d" % number, 1)
        self._all.wait(wait_s)
        threading.Event().wait(SETTLE_S)
        return sorted(self._heard.values()) == [1] * MESSAGES

    # Called by paho, in the threads of the clients.

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not reason.is_failure:
            client.subscribe(f"$share/winnow-probe/{self._topic}", 1)

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self._heard[bytes(message.payload)] += 1
        if len(self._heard) == MESSAGES:
            self._all.set()
