"""A device that reports, fetches what it is told to run, and then says that it runs it; in the words of real ones."""

from __future__ import annotations

import threading

import msgspec
import paho.mqtt.client as mqtt
from device_words import FLEET, MODEL, birth, heartbeat
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.contract.artifact import check_bytes, decode_manifest, sha256_hex
from edge_agent.contract.wire import (
    BLOCK_BYTES,
    BlockHeader,
    Desired,
    Fetch,
    Receipt,
    decode,
    decode_frame,
    down_topic,
    encode,
    up_topic,
)


class Device:
    """Reports, fetches what it is told to run, and then says that it runs it."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.model = msgspec.structs.replace(MODEL, version=0, sha256="", slot="none", refused={})
        self.receipts: list[Receipt] = []
        self._files: dict[str, dict[int, bytes]] = {}
        self._wanted: Desired | None = None
        self._stopping = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv311)
        self._client.on_message = self._on_message
        self._client.on_connect = self._on_connect
        host, port = url.removeprefix("mqtt://").split(":")
        self._client.connect(host, int(port))
        self._client.loop_start()
        self._beats = threading.Thread(target=self._beat, daemon=True)
        self._beats.start()

    def say(self, kind: str, payload: bytes) -> None:
        self._client.publish(up_topic(FLEET, self.name, kind), payload, 1)

    def stop(self) -> None:
        self._stopping.set()
        self._beats.join()
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client, *_):
        client.subscribe([(down_topic(FLEET, self.name, kind), 1) for kind in ("desired", "block", "receipt")])
        self.say("birth", encode(msgspec.structs.replace(birth("s"), model=self.model)))

    def _beat(self) -> None:
        at_ms = heartbeat("s").at_ms
        while not self._stopping.wait(0.1):
            at_ms += 1
            self.say("heartbeat", encode(msgspec.structs.replace(heartbeat("s"), at_ms=at_ms, model=self.model)))

    def _on_message(self, _client, _data, message):
        if message.topic.endswith("receipt"):
            self.receipts.append(decode(Receipt, message.payload))
        elif message.topic.endswith("desired"):
            self._wanted = decode(Desired, message.payload)
            if self._wanted.model and self._wanted.model.version > self.model.version:
                self.say("fetch", encode(Fetch(sha256=self._wanted.model.manifest_sha256, blocks=(0,))))
        else:
            header, body = decode_frame(BlockHeader, message.payload)
            self._take(header, bytes(body))

    def _take(self, header: BlockHeader, body: bytes) -> None:
        assert not header.error
        blocks = self._files.setdefault(header.sha256, {})
        blocks[header.index] = body
        count = -(-header.total_bytes // BLOCK_BYTES)
        if len(blocks) < count:
            self.say("fetch", encode(Fetch(sha256=header.sha256, blocks=(len(blocks),))))
            return
        data = b"".join(blocks[i] for i in range(count))
        assert sha256_hex(data) == header.sha256
        assert self._wanted is not None
        assert self._wanted.model is not None
        if header.sha256 == self._wanted.model.manifest_sha256:
            self._manifest = decode_manifest(data)
            self.say("fetch", encode(Fetch(sha256=self._manifest.variant("cpu-int8").sha256, blocks=(0,))))
        else:
            check_bytes(data, self._manifest.variant("cpu-int8"), where="fetched")
            self.model = msgspec.structs.replace(
                self.model, version=self._manifest.version, sha256=header.sha256, slot="steady"
            )
