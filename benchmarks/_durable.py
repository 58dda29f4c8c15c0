"""A consumer that does what cannot be left out, and nothing else: the floor of benchmarks/ingest.py.

paho reads; another thread takes what has come, at most 1,000 at once, decodes each header, holds the hash against the
body, writes a row and the body into one SQLite file, flushes it with one commit, and publishes a receipt to each
device. No look whether a sample is known, revoked or erased, no check of what a header says, no index but the key, no
turns, no bound of memory, one process.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections import defaultdict

import paho.mqtt.client as mqtt

from edge_agent.contract.wire import Receipt, SampleHeader, decode_frame, down_topic, encode
from server.store.sqlite import sqlite3

AT_ONCE = 1000


def main(port: int, path: str, fleet: str) -> None:
    """Until it is killed."""
    came: list[bytes] = []
    changed = threading.Condition()

    def heard(_client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        with changed:
            came.append(message.payload)
            changed.notify()

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
    client.max_inflight_messages_set(100)
    client.on_message = heard
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.connect("127.0.0.1", port)
    client.subscribe(f"winnow/1/{fleet}/+/up/+", 1)
    client.loop_start()
    connection = opened(path)
    while True:
        with changed:
            changed.wait_for(lambda: came)
            group, came[:] = came[:AT_ONCE], came[AT_ONCE:]
        for device, ids in kept(connection, group).items():
            client.publish(down_topic(fleet, device, "receipt"), encode(Receipt(accepted=tuple(ids))), 1)


def opened(path: str) -> sqlite3.Connection:
    """A file as durable as a catalogue."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for statement in ("PRAGMA page_size=16384", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"):
        connection.execute(statement)
    connection.execute("CREATE TABLE sample (id TEXT PRIMARY KEY, header BLOB NOT NULL, sha256 TEXT NOT NULL)")
    connection.execute("CREATE TABLE body (sha256 TEXT PRIMARY KEY, data BLOB NOT NULL)")
    return connection


def kept(connection: sqlite3.Connection, group: list[bytes]) -> dict[str, list[str]]:
    """Device -> ids of samples that are on the disk now."""
    found: dict[str, list[str]] = defaultdict(list)
    rows, bodies = [], []
    for payload in group:
        header, body = decode_frame(SampleHeader, payload)
        sha256 = hashlib.sha256(body).hexdigest()
        assert sha256 == header.body_sha256
        rows.append((header.id, payload[: len(payload) - len(body)], sha256))
        bodies.append((sha256, body))
        found[header.id.split(".", 1)[0]].append(header.id)
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO sample VALUES (?, ?, ?)", rows)
    connection.executemany("INSERT INTO body VALUES (?, ?) ON CONFLICT DO NOTHING", bodies)
    connection.execute("COMMIT")
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
