"""How does the server talk to its devices?

One MQTT connection of a process, for everything. It comes back by itself after any loss. It promises nothing: its
session is a clean one, so what was published while it was away is gone, or with another worker, and devices send it
again.

    server   says that the server is there, and the broker, by the will, that it is not
    worker   is one of several
    silent   leaves that to others

The first two contradict whoever says that nobody is there: it may be the will of a server that died a while ago.
"""

from __future__ import annotations

import logging
import secrets
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.contract.broker import (
    NO_FILES,
    TlsFiles,
    broker_url,
    in_the_clear,
    parse_broker,
    send_at_once,
    tls_context,
)
from edge_agent.contract.errors import ConfigError, MessageError
from edge_agent.contract.wire import ServerState, decode, encode, server_state_topic
from server.collect.reader import Published, Reader
from server.errors import ServerConfigError

KEEPALIVE_S = 30
RECONNECT_MAX_S = 15
INFLIGHT = 100  # unacknowledged messages: fewer, and blocks to many devices wait for each other's round trips
GOODBYE_S = 2.0

Voice = Literal["server", "worker", "silent"]

_log = logging.getLogger(__name__)


class BrokerAddress(NamedTuple):
    """Where the broker is, and as whom."""

    host: str
    port: int
    username: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        """As devices name it.

        >>> BrokerAddress("broker.lan", 1883).url
        'mqtt://broker.lan:1883'
        """
        return broker_url(self.host, self.port, tls=self.tls is not None)

    @classmethod
    def parse(cls, url: str, *, username: str = "", password: str = "", files: TlsFiles = NO_FILES) -> BrokerAddress:
        """Read `mqtt://host:port` or `mqtts://host:port`; ServerConfigError when it is neither, or a file is no good.

        >>> BrokerAddress.parse("mqtt://broker.lan").port
        1883
        """
        try:
            host, port, tls = parse_broker(url, key="[broker] url")
            made = cls(host, port, username, password, tls_context(files) if tls else None)
        except ConfigError as error:
            raise ServerConfigError(str(error)) from error
        if wrong := in_the_clear(host, tls=tls, password=password):
            _log.warning("[broker] url: %s", wrong)
        return made


class Gateway:
    """The connection to the broker."""

    def __init__(
        self,
        address: BrokerAddress,
        *,
        fleet: str,
        filters: Sequence[str],
        voice: Voice,
        now_ms: Callable[[], int],
        deliver: Callable[[Sequence[Published]], bool],
    ) -> None:
        """Listen to `filters`: `deliver` is given, in the network thread, all that comes by them, some at once.

        It may block: the broker is held back then. It says whether nobody waits for an answer to any of it.
        """
        self.ready = threading.Event()
        """Set while connected and subscribed."""
        self._address = address
        self._filters = list(filters)
        self._state_topic = server_state_topic(fleet)
        self._voice = voice
        self._now_ms = now_ms
        self._deliver = deliver
        self._client = self._make_client()
        self._complained = self._leaving = False
        self._watch: int | None = 0  # number of the server's request to hear what is said of it

    def start(self) -> None:
        """Connect, in the background, and again whenever the connection is lost."""
        self._client.connect_async(self._address.host, self._address.port, keepalive=KEEPALIVE_S)
        self._client.loop_start()

    def stop(self) -> None:
        """Go; whoever speaks for the server says that it is going."""
        self._leaving = True
        if self._client.is_connected() and self._voice == "server":
            goodbye = self._say(online=False)
            try:
                goodbye.wait_for_publish(GOODBYE_S)
            except (RuntimeError, ValueError):  # lost in this very moment: the broker then speaks our will
                _log.debug("the broker did not hear the goodbye")
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Send; what cannot be sent now is sent on the next connection, unless `qos` is 0."""
        self._client.publish(topic, payload, qos, retain)

    def publish_all(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """The same of many, in QoS 1: (topic, payload)."""
        self._client.publish_all(messages)

    def _make_client(self) -> Reader:
        client = Reader(
            CallbackAPIVersion.VERSION2,
            client_id=f"winnow-server-{secrets.token_hex(6)}",
            protocol=mqtt.MQTTv311,
            heard=self._on_messages,
        )
        if self._address.username:
            client.username_pw_set(self._address.username, self._address.password or None)
        if self._address.tls is not None:
            client.tls_set_context(self._address.tls)
        if self._voice == "server":
            client.will_set(self._state_topic, self._state(online=False), qos=1, retain=True)
        client.max_inflight_messages_set(INFLIGHT)
        client.reconnect_delay_set(min_delay=1, max_delay=RECONNECT_MAX_S)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_socket_open = send_at_once
        return client

    def _say(self, *, online: bool) -> mqtt.MQTTMessageInfo:
        return self._client.publish(self._state_topic, self._state(online=online), 1, retain=True)

    def _state(self, *, online: bool) -> bytes:
        return encode(ServerState(online=online, at_ms=self._now_ms()))

    def _complain(self, what: str) -> None:
        if not self._complained:
            _log.warning("broker %s:%d: %s; trying again", self._address.host, self._address.port, what)
        self._complained = True

    # Called by paho, in its own thread.

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._complain(f"refuses us: {reason}")
            return
        told = [self._state_topic] if self._voice == "worker" else []
        client.subscribe([(topic, 1) for topic in (*self._filters, *told)])
        if self._voice == "server":
            self._say(online=True)
            _, self._watch = client.subscribe(self._state_topic, 1)  # now, or we hear our own will of the last time

    def _on_subscribe(self, _client: mqtt.Client, _data: Any, mid: int, reasons: list[Any], _properties: Any) -> None:
        for topic, reason in zip([self._state_topic] if mid == self._watch else self._filters, reasons, strict=False):
            if reason.is_failure:
                self._complain(f"does not let us listen to {topic}: {reason}")
                return
        if mid == self._watch:
            return
        _log.info("listening at %s:%d", self._address.host, self._address.port)
        self._complained = False
        self.ready.set()

    def _on_connect_fail(self, _client: mqtt.Client, _data: Any) -> None:
        self._complain("cannot be reached")

    def _on_disconnect(self, _client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.ready.clear()
        if reason.is_failure:
            self._complain(f"connection lost: {reason}")

    def _contradict(self, said: bytes) -> None:
        try:
            online = decode(ServerState, said).online
        except MessageError:
            return
        if not online and not self._leaving:  # an older word, or of one that went: devices would keep samples back
            self._say(online=True)

    def _on_messages(self, found: Sequence[Published]) -> bool:
        said = [one.payload for one in found if one.topic == self._state_topic]  # the silent do not listen to it
        if said:
            found = [one for one in found if one.topic != self._state_topic]
            for word in said:
                self._contradict(word)
        return self._deliver(found)
