"""How are thousands of messages a second read?

paho reads a packet in four calls to the system, waits for the next one by a fifth, makes some twenty objects of it, and
sends each acknowledgement by two more. Here what has come is read at once, the messages that lie whole in it are taken
out of it and handed on together, and their acknowledgements go together once the buffer is empty: each still after its
message was delivered. All else of the protocol is paho's, and so is a message of which only a part has come. Where a
later paho does not ask these methods any more, all is as it was, and slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MessageState, MQTTErrorCode

READ_BYTES = 1 << 18  # less is more calls, more is a copy that does not fit the processor's cache
_PUBLISH, _PUBACK, _QOS_1 = 0x30, 0x40, 0x02
_OTHERWISE = 0xF4  # of a first byte, what is _PUBLISH in a message of QoS 0 or 1


class Published(NamedTuple):
    """A message. topic: "" where it is no text."""

    topic: str
    payload: bytes


class Reader(mqtt.Client):
    """paho's client, with a buffer."""

    def __init__(self, *args: Any, heard: Callable[[Sequence[Published]], None], **options: Any) -> None:
        """As paho's. heard: is given what came, in its order, in the network thread; it may block."""
        super().__init__(*args, **options)
        self._heard = heard
        self._buffer, self._at = b"", 0  # `_at`: how much of it was taken
        self._acks = bytearray()
        self.on_message = self._heard_one

    def reconnect(self) -> MQTTErrorCode:
        """As paho's; what was left of the last connection is of no use."""
        self._buffer, self._at = b"", 0
        self._acks.clear()
        return super().reconnect()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """As paho's, until the buffer is empty: nobody is told that there is more in it."""
        done = super().loop_read(max_packets)
        while not done and self._at < len(self._buffer) and self.socket() is not None:
            done = super().loop_read(max_packets)
        if self._acks and not done:
            self._packet_queue(_PUBACK, bytes(self._acks), 0, 0)
            self._acks.clear()
        return done

    def publish_all(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """As paho's `publish` of each, QoS 1; what the window has room for goes in one piece."""
        packets = bytearray()
        with self._out_message_mutex:
            for topic, payload in messages:
                number = self._mid_generate()
                message = self._out_messages[number] = mqtt.MQTTMessage(number, topic.encode())
                message.payload, message.qos, message.state = payload, 1, MessageState.MQTT_MS_QUEUED
                if self.socket() is None:
                    message.state = MessageState.MQTT_MS_PUBLISH  # paho sends it with the next connection
                elif self._inflight_messages < self._max_inflight_messages:
                    self._inflight_messages += 1
                    message.state = MessageState.MQTT_MS_WAIT_FOR_PUBACK
                    packets += packed(topic.encode(), number, payload)
        if packets:
            self._packet_queue(_PUBLISH, bytes(packets), 0, 1)

    def _packet_read(self) -> MQTTErrorCode:
        if self._in_packet["command"]:  # the rest of one
            return super()._packet_read()
        try:
            self._fill(1)
        except BlockingIOError:
            return MQTTErrorCode.MQTT_ERR_AGAIN
        except OSError:
            return super()._packet_read()  # finds the same, and says so
        taken = published(self._buffer, self._at)
        if not taken.found:
            return super()._packet_read()
        self._at = taken.until
        self._heard(taken.found)
        self._acks += taken.acks
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _sock_recv(self, bufsize: int) -> bytes:
        self._fill(bufsize)
        taken = self._buffer[self._at : self._at + bufsize]
        self._at += len(taken)
        return taken

    def _fill(self, wanted: int) -> None:
        if self._at == len(self._buffer):
            self._buffer, self._at = super()._sock_recv(max(READ_BYTES, wanted)), 0

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
    until: int


def published(data: bytes, at: int) -> _Taken:
    """The messages of QoS 0 or 1 that lie whole in the buffer from `at` on, up to whatever else is there.

    MQTT 3.1.1, sections 2.2 and 3.3: first byte, length in one to four digits of 7 bits, topic, number (QoS 1), body.
    """
    found, acks, end = list[Published](), bytearray(), len(data) - 2
    while at < end and data[at] & _OTHERWISE == _PUBLISH:
        number, length, start = data[at] & _QOS_1, data[at + 1], at + 2  # of QoS 1 there is a number, of 2 bytes
        if length > 0x7F:
            length, start = _length(data, at + 1)
        until, topic = start + length, start + 2
        if length < 4 or until > len(data):  # too short for one, or not here yet
            break
        body = topic + (data[start] << 8 | data[start + 1])
        if body + number > until:
            break
        found.append(Published(_text(data[topic:body]), data[body + number : until]))
        if number:
            acks += _ack(data[body : body + 2])
        at = until
    return _Taken(found, bytes(acks), at)


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A length, and where what it is of begins; 0 where its digits are not all here, or too many."""
    length = 0
    for digit, byte in enumerate(data[at : at + 4]):
        length |= (byte & 0x7F) << 7 * digit
        if byte < 0x80:
            return length, at + digit + 1
    return 0, at


def packed(topic: bytes, number: int, payload: bytes) -> bytes:
    """PUBLISH of QoS 1."""
    left = 4 + len(topic) + len(payload)
    digits = bytearray()
    while left > 0x7F:
        digits.append(left & 0x7F | 0x80)
        left >>= 7
    digits.append(left)
    head = (bytes((_PUBLISH | _QOS_1,)), digits, len(topic).to_bytes(2, "big"), topic, number.to_bytes(2, "big"))
    return b"".join((*head, payload))


def _text(topic: bytes) -> str:
    try:
        return topic.decode()
    except UnicodeDecodeError:  # no topic of ours; it will be set aside as such
        return ""


def _ack(number: bytes) -> bytes:
    return b"\x40\x02" + number
