"""How do thousands of MQTT clients live in one thread?

Each is paho's client, which has a mode for it: no thread and no socket pair of its own, but four callbacks by which
somebody else's selector watches its socket. So what speaks is the client that real agents speak with, at 4 KB of memory
and 15 us of making each (measured; asyncio wrappers around it, as aiomqtt, add tasks and futures to the same, and
gmqtt keeps a task and a protocol for each). MQTT 3.1.1, QoS 1, a clean session, as the agent's.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.contract.broker import send_at_once

KEEPALIVE_S = 30  # as an agent's by default
CONNECT_S = 10.0  # for the network's part of a connection


class Wire(NamedTuple):
    """Where the broker is, and the address of ours that is spoken from; empty: any."""

    host: str
    port: int
    source: str = ""


class Listener(Protocol):
    """Whoever speaks through a session."""

    def opened(self) -> None:
        """The broker has let us in, and knows what we listen to."""

    def closed(self) -> None:
        """The connection is gone, or could not be made."""

    def heard(self, topic: str, payload: bytes, retained: bool) -> None:
        """Something came."""


class Session:
    """One device's connection; made anew by each `open`."""

    def __init__(
        self,
        wire: Wire,
        *,
        name: str,
        will: tuple[str, bytes],
        topics: Sequence[str],
        listener: Listener,
        selector: selectors.BaseSelector,
    ) -> None:
        """Nothing happens yet. `will`: topic and payload; the data of the selector's events is called with the mask."""
        self._wire, self._name, self._will = wire, name, will
        self._topics = [(topic, 1) for topic in topics]
        self._listener, self._selector = listener, selector
        self._client: mqtt.Client | None = None
        self._alive = False

    @property
    def alive(self) -> bool:
        """Whether the broker has let us in."""
        return self._alive

    def open(self) -> None:
        """Begin to connect; the listener is told how that ends. OSError when the broker is not there."""
        self._client = client = self._make()
        wire = self._wire
        client.connect(wire.host, wire.port, keepalive=KEEPALIVE_S, bind_address=wire.source)

    def publish(self, topic: str, payload: bytes, *, qos: int) -> Callable[[], bool]:
        """Send; returns a function that tells whether the broker has it. Nothing goes without a connection."""
        if self._client is None or not self._alive:
            return lambda: False
        return self._client.publish(topic, payload, qos).is_published

    def tend(self) -> None:
        """Keep the connection alive; to be called every few seconds."""
        if self._client is not None:
            self._client.loop_misc()

    def close(self) -> None:
        """Say goodbye, and go."""
        client, self._client, self._alive = self._client, None, False
        if client is not None:
            client.on_disconnect = None
            client.disconnect()
            client.loop_write()
            _cut(client)

    def cut(self) -> None:
        """Go without a word: the broker tells our death."""
        client, self._client, self._alive = self._client, None, False
        if client is not None:
            client.on_disconnect = None
            _cut(client)

    def _make(self) -> mqtt.Client:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, self._name, clean_session=True, reconnect_on_failure=False)
        client.connect_timeout = CONNECT_S
        client.max_inflight_messages_set(0)  # the window decides how much is on its way
        client.will_set(*self._will, qos=1)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_wants_to_write
        client.on_socket_unregister_write = self._on_wrote
        return client

    # --- called by paho, in our own thread ---

    def _on_socket_open(self, client: mqtt.Client, data: Any, wire: Any) -> None:
        send_at_once(client, data, wire)
        self._selector.register(wire, selectors.EVENT_READ, lambda mask: _go_on(client, mask))

    def _on_socket_close(self, _client: mqtt.Client, _data: Any, wire: Any) -> None:
        self._selector.unregister(wire)

    def _on_wants_to_write(self, _client: mqtt.Client, _data: Any, wire: Any) -> None:
        self._selector.modify(wire, selectors.EVENT_READ | selectors.EVENT_WRITE, self._selector.get_key(wire).data)

    def _on_wrote(self, _client: mqtt.Client, _data: Any, wire: Any) -> None:
        if wire.fileno() >= 0:
            self._selector.modify(wire, selectors.EVENT_READ, self._selector.get_key(wire).data)

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            return  # the broker closes it
        self._alive = True
        client.subscribe(self._topics)
        self._listener.opened()

    def _on_disconnect(self, client: mqtt.Client, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        if client is self._client:
            self._client, self._alive = None, False
            self._listener.closed()

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self._listener.heard(message.topic, bytes(message.payload), message.retain)


def _go_on(client: mqtt.Client, mask: int) -> None:
    if mask & selectors.EVENT_WRITE:
        client.loop_write()
    if mask & selectors.EVENT_READ:
        client.loop_read()


def _cut(client: mqtt.Client) -> None:
    wire = client.socket()
    if isinstance(wire, socket.socket):
        wire.shutdown(socket.SHUT_RDWR)
        client.loop_read()  # reads the end, closes the socket and lets go of it
