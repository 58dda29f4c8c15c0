"""How are thousands of messages a second read?

paho reads a packet in four calls to the system, waits for the next one by a fifth, makes some twenty objects of it, and
sends each acknowledgement by two more. Here what has come is read at once into memory that stays, the messages that lie
whole in it are taken out of it and handed on together, and their acknowledgements go together once all is taken: each
still after its message was delivered. The broker's own acknowledgements are taken together as well. The beginning of a
message waits there for its rest. Where only few came, and nobody waits for them, the next ones gather for a moment
before they are read: one alone takes as long as ten together. All else of the protocol is paho's, and so is a message
that is larger than the buffer. Where a later paho does not ask these methods any more, all is as it was, and slower.
"""

from __future__ import annotations

import select
import ssl
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MessageState, MQTTErrorCode

READ_BYTES = 1 << 18  # less is more calls, more does not fit the processor's cache
REST_S = 0.05
"""Shorter, and the heartbeats of 10,000 devices still come one by one; longer, and so much later comes a sample among
them. What is sent does not wait."""
REST_MESSAGES = 64  # beyond so many at once there is no rest: they would come faster than they are read
_PUBLISH, _PUBACK, _QOS_1 = 0x30, 0x40, 0x02
_OTHERWISE = 0xF4  # of a first byte, what is _PUBLISH in a message of QoS 0 or 1


class Published(NamedTuple):
    """A message. topic: "" where it is no text."""

    topic: str
    payload: bytes


class Reader(mqtt.Client):
    """paho's client, with a buffer."""

    def __init__(self, *args: Any, heard: Callable[[Sequence[Published]], bool], **options: Any) -> None:
        """As paho's. heard: is given what came, in its order, in the network thread; it may block.

        It says whether nobody waits for an answer to any of it.
        """
        super().__init__(*args, **options)
        self._heard = heard
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._at = self._end = 0  # between them it holds what was not taken
        self._begun = False  # that is the beginning of a message
        self._acks = bytearray()
        self._rests = False  # before it reads again
        self.on_message = self._heard_one

    def reconnect(self) -> MQTTErrorCode:
        """As paho's; what was left of the last connection is of no use."""
        self._at, self._end, self._begun = 0, 0, False
        self._acks.clear()
        return super().reconnect()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """As paho's, until nothing whole is left in the buffer: nobody is told that there is more in it."""
        done = super().loop_read(max_packets)
        while not done and self._at < self._end and not self._begun and self.socket() is not None:
            done = super().loop_read(max_packets)
        if self._acks and not done:
            self._packet_queue(_PUBACK, bytes(self._acks), 0, 0)
            self._acks.clear()
        return done

    def _loop(self, timeout: float = 1.0) -> MQTTErrorCode:
        if self._rests and not self.want_write() and self._sockpairR is not None:
            select.select([self._sockpairR], [], [], REST_S)  # readable where somebody has something to be sent
        self._rests = False
        return super()._loop(timeout)

    def publish_all(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """As paho's `publish` of each, QoS 1; what the window has room for goes in one piece."""
        with self._out_message_mutex:
            for topic, payload in messages:
                number = self._mid_generate()
                message = self._out_messages[number] = mqtt.MQTTMessage(number, topic.encode())
                message.payload, message.qos, message.state = payload, 1, MessageState.MQTT_MS_QUEUED
                if self.socket() is None:
                    message.state = MessageState.MQTT_MS_PUBLISH  # paho sends it with the next connection
            self._send_queued()

    def _acknowledged(self, numbers: Iterable[int]) -> None:
        """The broker has these: as paho's, but the window is looked through once for all of them."""
        with self._out_message_mutex:
            for number in numbers:
                if (message := self._out_messages.pop(number, None)) is not None:
                    message.info._set_as_published()
                    self._inflight_messages -= 1
            self._send_queued()

    def _send_queued(self) -> None:
        """What the window has room for, in one piece; with the messages locked."""
        packets = bytearray()
        for number, message in self._out_messages.items():
            if self._inflight_messages >= self._max_inflight_messages:
                break
            if message.state == MessageState.MQTT_MS_QUEUED and message.qos == 1:
                self._inflight_messages += 1
                message.state = MessageState.MQTT_MS_WAIT_FOR_PUBACK
                packets += packed(message.topic.encode(), number, message.payload, retain=message.retain)
        if packets:
            self._packet_queue(_PUBLISH, bytes(packets), 0, 1)

    def _packet_read(self) -> MQTTErrorCode:
        if self._in_packet["command"]:  # the rest of one
            return super()._packet_read()
        try:
            if self._begun or self._at == self._end:
                self._receive()
        except BlockingIOError:
            return MQTTErrorCode.MQTT_ERR_AGAIN
        except OSError:
            return super()._packet_read()  # finds the same, and says so
        taken = published(self._buffer, self._at, self._end)
        self._at = taken.until
        self._begun = 0 < taken.begun <= READ_BYTES
        if not (taken.found or taken.acked or self._begun):
            return super()._packet_read()
        if taken.acked:
            self._acknowledged(taken.acked)
        if taken.found:
            self._rests = self._heard(taken.found) and len(taken.found) < REST_MESSAGES
            self._acks += taken.acks
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._at == self._end:
            self._receive()
        until = min(self._at + bufsize, self._end)
        taken = bytes(self._buffer[self._at : until])
        self._at = until
        return taken

    def _receive(self) -> None:
        """More, behind what is there; OSError as from paho's `_sock_recv`."""
        left = self._end - self._at
        sock: Any = self.socket()
        self._buffer[:left] = self._buffer[self._at : self._end]
        self._at, self._end = 0, left
        if sock is None:
            raise ConnectionError
        try:
            came = sock.recv_into(self._buffer[left:])
        except ssl.SSLWantReadError as error:
            raise BlockingIOError from error
        except ssl.SSLWantWriteError as error:
            self._call_socket_register_write()
            raise BlockingIOError from error
        if not came and left:
            raise ConnectionError  # it ends in the middle of a message
        self._end += came

    def _send_puback(self, mid: int) -> MQTTErrorCode:
        self._acks += _ack(mid.to_bytes(2, "big"))
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _heard_one(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        """Of a message that paho put together."""
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        self._heard([Published(topic, bytes(message.payload))])


class _Taken(NamedTuple):
    found: list[Published]
    acks: bytes
    acked: list[int]
    until: int
    begun: int  # bytes of the message that begins there, as far as is known; 0: what is there is none


def published(data: memoryview, at: int, end: int) -> _Taken:
    """The messages of QoS 0 or 1 that lie whole in the buffer from `at` to `end`, up to whatever else is there.

    Between them may be acknowledgements of ours. MQTT 3.1.1, sections 2.2, 3.3 and 3.4: first byte, length in one to
    four digits of 7 bits, topic, number (QoS 1), body.
    """
    found, acks, acked, begun = list[Published](), bytearray(), list[int](), 0
    while at < end:
        if data[at] & _OTHERWISE != _PUBLISH:
            if data[at] != _PUBACK or at + 4 > end or data[at + 1] != 2:
                break
            acked.append(data[at + 2] << 8 | data[at + 3])
            at += 4
            continue
        number = data[at] & _QOS_1  # of QoS 1 there is a number, of 2 bytes
        length, start = _length(data, at + 1, end)
        until, topic = start + length, start + 2
        if until > end:
            begun = until - at
            break
        if length < 4:  # too short for one
            break
        body = topic + (data[start] << 8 | data[start + 1])
        if body + number > until:
            break
        found.append(Published(_text(bytes(data[topic:body])), bytes(data[body + number : until])))
        if number:
            acks += _ack(data[body : body + 2])
        at = until
    return _Taken(found, bytes(acks), acked, at, begun)


def _length(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """A length, and where what it is of begins: beyond `end` where its digits are not all here; 0 where too many."""
    length = shift = 0
    while shift < 28:
        if at >= end:
            return 0, end + 1
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return length, at
        shift += 7
    return 0, at


def packed(topic: bytes, number: int, payload: bytes | bytearray, *, retain: bool = False) -> bytes:
    """PUBLISH of QoS 1."""
    left = 4 + len(topic) + len(payload)
    digits = bytearray()
    while left > 0x7F:
        digits.append(left & 0x7F | 0x80)
        left >>= 7
    digits.append(left)
    head = (
        bytes((_PUBLISH | _QOS_1 | retain,)),
        digits,
        len(topic).to_bytes(2, "big"),
        topic,
        number.to_bytes(2, "big"),
    )
    return b"".join((*head, payload))


@lru_cache(maxsize=32_768)  # as parse_topic's
def _text(topic: bytes) -> str:
    try:
        return topic.decode()
    except UnicodeDecodeError:  # no topic of ours; it will be set aside as such
        return ""


def _ack(number: memoryview | bytes) -> bytes:
    return b"\x40\x02" + bytes(number)
