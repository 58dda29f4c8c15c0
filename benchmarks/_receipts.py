"""A server that accepts every sample: the other end of benchmarks that send. Argument: the broker's port.

It receipts in groups, as the real one does: what came within 20 ms goes into one message.
"""

from __future__ import annotations

import queue
import sys
import time
from typing import Any

import paho.mqtt.client as mqtt

from edge_agent.contract.wire import Receipt, SampleHeader, decode_frame, down_topic, encode, parse_topic

GROUP_S = 0.02


def main(port: int) -> None:
    """Until it is killed."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="receipts")
    arrived: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def on_message(_client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        address = parse_topic(message.topic)
        header, _ = decode_frame(SampleHeader, message.payload)
        arrived.put((down_topic(address.fleet, address.device, "receipt"), header.id))

    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.subscribe("winnow/1/+/+/up/sample", 1)
    client.loop_start()
    while True:
        topic, first = arrived.get()
        time.sleep(GROUP_S)
        group = [first, *(arrived.get()[1] for _ in range(arrived.qsize()))]
        client.publish(topic, encode(Receipt(accepted=tuple(group))), 1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
