"""What is one MQTT connection?

CONNECT to DISCONNECT, made anew each time: nothing that paho keeps in memory outlives it, so nothing is repeated behind
our back, and what waits here is bounded by what the uplink hands over. What must survive is in the outbox.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from edge_agent.contract.broker import send_at_once
from edge_agent.contract.errors import ConfigError, UplinkError
from edge_agent.mqtt import CallbackAPIVersion, ReasonCode
from edge_agent.mqtt import client as mqtt
from edge_agent.send.access import Access

log = logging.getLogger(__name__)

CONNECT_S = 10.0  # longest wait for the broker's answer to CONNECT
CLOSE_S = 2.0  # longest wait for what was published last to leave, before the connection is cut


class Connection:
    """One connection. `open`, `publish`, `close` from the uplink's thread; the callbacks run in paho's."""

    def __init__(
        self,
        access: Access,
        *,
        will: tuple[str, bytes],
        received: Callable[[str, bytes, bool], None],
        ended: Callable[[], None],
    ) -> None:
        """`will`: topic and payload that the broker publishes when the connection breaks.

        `received` is called with topic, payload, and whether the broker had it in store; `ended` when it is over.
        """
        self._access = access
        self._received = received
        self._ended = ended
        self._answered = threading.Event()
        self._over = threading.Event()
        self._why = ""
        self._client = self._make_client(will)

    def open(self, topics: Sequence[str]) -> None:
        """Connect, and subscribe to `topics` with QoS 1. UplinkError when the broker is not there or says no."""
        try:
            if (context := self._access.context()) is not None:
                self._client.tls_set_context(context)
            self._client.connect(self._access.host, self._access.port, keepalive=self._access.keepalive_s)
        except (OSError, ValueError, ConfigError) as error:
            raise UplinkError(str(error) or type(error).__name__) from error
        self._client.loop_start()
        if not self._answered.wait(CONNECT_S):
            raise UplinkError(f"no answer within {CONNECT_S:.0f} s")
        if not self.alive:
            raise UplinkError(self._why)
        self._client.subscribe([(topic, 1) for topic in topics])

    @property
    def alive(self) -> bool:
        """Whether the broker let us in and the connection was not seen to end."""
        return self._answered.is_set() and not self._over.is_set()

    @property
    def why(self) -> str:
        """What ended it."""
        return self._why

    def publish(self, topic: str, payload: bytes, *, qos: int) -> Callable[[], bool]:
        """Send; returns a function that tells whether the broker has it. UplinkError when the connection is gone."""
        sent = self._client.publish(topic, payload, qos=qos)
        if sent.rc != mqtt.MQTT_ERR_SUCCESS:
            raise UplinkError(self._why or mqtt.error_string(sent.rc))
        return sent.is_published

    def close(self, *, cleanly: bool) -> None:
        """End it. Cleanly: what was published leaves first, and the broker drops the will; else it publishes it."""
        if cleanly:
            self._client.disconnect()
            self._over.wait(CLOSE_S)
        wire = self._client.socket()
        if isinstance(wire, socket.socket):  # paho's thread would wait for a broker that no longer reads
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()

    def _make_client(self, will: tuple[str, bytes]) -> mqtt.Client:
        access = self._access
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, access.client_id, clean_session=True, reconnect_on_failure=False
        )
        client.suppress_exceptions = True  # whatever a callback raises, the network thread goes on
        client.on_log = _log_mistakes
        client.max_inflight_messages_set(0)  # the window decides how much is on its way
        client.will_set(will[0], will[1], qos=1, retain=False)
        if access.username:
            client.username_pw_set(access.username, access.password or None)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_socket_open = send_at_once
        return client

    def _on_connect(
        self, _client: mqtt.Client, _userdata: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        if code.is_failure:
            self._end(f"refused: {code}")
        self._answered.set()

    def _on_disconnect(
        self, _client: mqtt.Client, _userdata: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        self._end(f"connection lost: {code}")
        self._answered.set()

    def _on_message(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        self._received(message.topic, bytes(message.payload), message.retain)

    def _end(self, why: str) -> None:
        self._why = self._why or why
        self._over.set()
        self._ended()


def _log_mistakes(_client: mqtt.Client, _userdata: Any, _level: int, text: str) -> None:
    """Of what paho has to say, only what a callback raised: the uplink says once that the broker is away."""
    if text.startswith("Caught exception"):
        log.error("uplink: %s", text)
