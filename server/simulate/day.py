"""What does a day of a device leave behind?

A day is played on a clock of its own: some devices say all that they say in 24 hours, message by message as in the
other phases, and the server's ingest takes it into a store of its own as if it came at those times. What the store has
grown by is divided by the number of devices. Nothing is rolled up yet within a day; what stays of it later is less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_agent.contract.wire import Up, encode, up_topic
from server.collect.inbound import Message
from server.collect.ingest import Ingest
from server.config import Collect
from server.simulate import tables
from server.simulate.device import Device, Habits
from server.simulate.host import own_store
from server.simulate.options import Options
from server.simulate.report import DAY_S, Table
from server.simulate.shelf import Shelf
from server.simulate.tally import Tally
from server.simulate.words import Self

BEGUN_MS = 1_790_035_200_000  # a midnight, UTC
TICK_S = 1.0
GROUP = Collect().commit_rows  # messages to a commit, as a server's by default
FLEET = "day"
BLOBS = "blobs"


def play(folder: Path, options: Options) -> dict[str, Table]:
    """Rows and bytes by table, and of the blobs, that a device adds in a day; `folder` is empty or not there."""
    catalogue = folder / "catalogue.db"
    with own_store(folder) as store:
        crew = _Crew(options, Ingest(store, fleet=FLEET, offline_after_s=90.0))
        crew.until(crew.warm_s)  # so that there is a row of everything that a device has only once
        before = tables.sizes(catalogue)
        crew.until(crew.warm_s + DAY_S)
        after = tables.sizes(catalogue)
    grown = tables.grown(before, after, per=options.day_devices)
    found = {name: Table(round(rows, 3), round(size, 1)) for name, (rows, size) in grown.items()}
    more = tables.shards_bytes(folder / "blobs") / options.day_devices  # nothing was in them before
    return found | {BLOBS: Table(0.0, round(more, 1))}


class _Crew:
    """Some devices and a clock."""

    def __init__(self, options: Options, ingest: Ingest) -> None:
        habits = Habits(
            FLEET,
            heartbeat_s=options.heartbeat_s,
            body_bytes=options.body_bytes,
            retry_first_s=options.retry_first_s,
            retry_max_s=options.retry_max_s,
            trial_s=options.trial_s,
        )
        rng, shelf, tally = np.random.default_rng(options.seed), Shelf(), Tally()
        self._ingest, self._now_s = ingest, 0.0
        self._said: list[Message] = []
        sha256 = hashlib.sha256(b"a model that nobody runs").hexdigest()
        self._devices = [
            Device(
                Self(f"day-{number}", "1", 1, options.heartbeat_s),
                habits,
                version=1,
                sha256=sha256,
                shelf=shelf,
                tally=tally,
                rng=rng,
                publish=self._publisher(f"day-{number}"),
            )
            for number in range(options.day_devices)
        ]
        self.warm_s = 3 * options.heartbeat_s
        drawn = rng.random(options.samples_per_day * options.day_devices)
        self._samples_s = (self.warm_s + np.sort(drawn) * (DAY_S - TICK_S)).tolist()
        self._given = 0
        for device in self._devices:
            device.connected(0.0, BEGUN_MS)

    def until(self, end_s: float) -> None:
        """Let time pass."""
        due = [0.0] * len(self._devices)
        while self._now_s < end_s:
            while self._given < len(self._samples_s) and self._samples_s[self._given] <= self._now_s:
                number = self._given % len(self._devices)
                self._devices[number].select(1)
                self._given, due[number] = self._given + 1, 0.0
            for number, device in enumerate(self._devices):
                if due[number] <= self._now_s:
                    due[number] = device.step(self._now_s, self._now_ms)
            self._take(due)
            self._now_s += TICK_S

    def _take(self, due: list[float]) -> None:
        said, self._said = self._said, []
        for start in range(0, len(said), GROUP):
            for name, receipt in self._ingest.take(said[start : start + GROUP]).receipts:
                number = int(name.rpartition("-")[2])
                self._devices[number].heard("receipt", encode(receipt), False, self._now_s, self._now_ms)
                due[number] = 0.0

    @property
    def _now_ms(self) -> int:
        return BEGUN_MS + int(self._now_s * 1000)

    def _publisher(self, name: str) -> Callable[[Up, bytes, int], Callable[[], bool]]:
        def publish(kind: Up, payload: bytes, _qos: int) -> Callable[[], bool]:
            self._said.append(Message(up_topic(FLEET, name, kind), payload, self._now_ms))
            return lambda: True

        return publish
