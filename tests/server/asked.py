"""Samples of one device that people can be asked about, and a queue over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from device_words import FLEET, NOW_MS, uploads

from server.collect.ingest import Ingest
from server.label.queue import Queue, Rules
from server.store import labels
from server.store.store import Store


@contextmanager
def stored(folder: Path, count: int) -> Iterator[Store]:
    """So many samples of cam-1, and four classes."""
    store = Store.open(folder)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message for seq in range(count) for message in uploads("cam-1", seq)])
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat", "dog", "owl", "rat"])
    yield store
    store.close()


class Clock:
    """Says the time, which goes on by `step_ms` with every look."""

    def __init__(self, *, step_ms: int = 0) -> None:
        self.ms, self._step_ms = NOW_MS, step_ms

    def __call__(self) -> int:
        self.ms += self._step_ms
        return self.ms

    def pass_s(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)


def queue_of(store: Store, clock: Callable[[], int], **rules: float) -> Queue:
    return Queue(store, Rules(lease_s=60.0)._replace(**rules), now_ms=clock, rng=np.random.default_rng(0))


def name(seq: int) -> str:
    return f"cam-1.main.1.{seq}"
