"""How are thousands of messages a second read?

paho reads a packet in four calls to the system, waits for the next one by a fifth, and sends each acknowledgement by
two more. Here it is given what has come already out of one buffer, and its acknowledgements go together once that is
empty: each still after its message was delivered. Where a later paho does not ask these methods any more, all is as it
was, and slower.
"""

from __future__ import annotations

from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTErrorCode

READ_BYTES = 1 << 16  # less is more calls, more is a copy that does not fit the processor's cache
_PUBACK = 0x40


class Reader(mqtt.Client):
    """paho's client, with a buffer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """As paho's."""
        super().__init__(*args, **options)
        self._buffer = memoryview(b"")
        self._acks = bytearray()

    def reconnect(self) -> MQTTErrorCode:
        """As paho's; what was left of the last connection is of no use."""
        self._buffer = memoryview(b"")
        self._acks.clear()
        return super().reconnect()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """As paho's, until the buffer is empty: nobody is told that there is more in it."""
        done = super().loop_read(max_packets)
        while not done and self._buffer and self.socket() is not None:
            done = super().loop_read(max_packets)
        if self._acks and not done:
            self._packet_queue(_PUBACK, bytes(self._acks), 0, 0)
            self._acks.clear()
        return done

    def _sock_recv(self, bufsize: int) -> bytes:
        if not self._buffer:
            found = super()._sock_recv(max(READ_BYTES, bufsize))
            if len(found) <= bufsize:
                return found
            self._buffer = memoryview(found)
        taken = self._buffer[:bufsize]
        self._buffer = self._buffer[bufsize:]
        return bytes(taken)

    def _send_puback(self, mid: int) -> MQTTErrorCode:
        self._acks += b"\x40\x02" + mid.to_bytes(2, "big")
        return MQTTErrorCode.MQTT_ERR_SUCCESS
