"""What do monitoring programs read?

`/metrics` in the text format of Prometheus, names by its conventions (prometheus.io/docs/practices/naming). Figures of
the whole fleet: a series for each of 10,000 devices would cost the monitoring more than the fleet costs us. Read from
the store at most once in a while, however often somebody asks.
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import get_args

import sqlalchemy as sa
from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from server.config import AlarmKind
from server.store import alarms, deliveries, device_orders, labels, removed, rollouts, samples, usage, versions
from server.store.leadership import SEATS
from server.store.presence import leader
from server.store.schema import device, quarantine, run, snapshot
from server.store.store import Store
from server.web.access import Viewer
from server.web.fleet_table import STATES, FleetTable
from server.web.frame import Frame

FRESH_MS = 10_000  # counting a million samples takes a good part of a second


class Figures(Collector):
    """Reads them when it is asked."""

    def __init__(self, store: Store, table: FleetTable, *, now_ms: Callable[[], int]) -> None:
        """Nothing is read yet."""
        self._store, self._table, self._now_ms = store, table, now_ms
        self._lock = threading.Lock()
        self._known: list[Metric] = []
        self._read_ms = -FRESH_MS

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        with self._lock:
            if self._now_ms() - self._read_ms >= FRESH_MS:
                self._known = [*self._of_fleet(), *self._of_store()]
                self._read_ms = self._now_ms()
            yield from self._known

    def _of_fleet(self) -> Iterator[Metric]:
        rows = self._table.every()
        states = Counter(row.state for row in rows)
        yield _gauge("winnow_devices", "Devices by their state", "state", {name: states[name] for name in STATES})
        versions_run = Counter(str(row.version) for row in rows if row.version is not None)
        yield _gauge("winnow_devices_executing", "Devices by the version they execute", "version", versions_run)
        yield _gauge(
            "winnow_outbox_samples", "Samples that wait on devices", value=sum(r.outbox_rows or 0 for r in rows)
        )
        oldest = max((row.outbox_age_s or 0.0 for row in rows if row.online and row.held != "paused"), default=0.0)
        yield _gauge(
            "winnow_outbox_oldest_seconds",
            "Age of the oldest sample that waits on an online device which is not paused",
            value=oldest,
        )
        yield _gauge(
            "winnow_samples_per_second", "Samples that devices look at", value=sum(r.samples_per_s or 0.0 for r in rows)
        )

    def _of_store(self) -> Iterator[Metric]:
        with self._store.database.read() as connection:
            stored: Counter[str] = Counter()
            gone: Counter[str] = Counter()
            for counts in samples.sample_counts(connection).values():
                stored.update(counts)
            for counts in removed.counts(connection).values():
                gone.update(counts)
            said = labels.counts(connection)
            champion = versions.champion(connection)
            last = rollouts.newest(connection).values()  # a channel has one under way, its newest
            running = Counter(one.channel for one in last if one.status == "running")
            halted = Counter(one.channel for one in last if one.status == "halted")
            by_state = sa.select(run.c.state, sa.func.count()).group_by(run.c.state)
            runs = Counter({str(state): int(number) for state, number in connection.execute(by_state)})
            bad = connection.scalar(sa.select(sa.func.sum(device.c.messages_bad))) or 0
            throttled = connection.scalar(sa.select(sa.func.sum(device.c.throttled))) or 0
            aside = connection.scalar(sa.select(sa.func.count()).select_from(quarantine)) or 0
            frozen = connection.scalar(sa.select(sa.func.count()).select_from(snapshot)) or 0
        yield _counter("winnow_samples_stored", "Samples stored, by why they were selected", "reason", stored + gone)
        yield _counter("winnow_samples_removed", "Of these, not kept for longer", "reason", gone)
        yield _gauge("winnow_labels_waiting", "Samples that wait for a label", value=said.waiting)
        yield _counter("winnow_labels", "Samples of devices that were labelled", value=said.labelled)
        yield _gauge(
            "winnow_champion_version",
            "Version that the fleet runs, or is about to",
            value=champion.number if champion else 0,
        )
        yield _gauge("winnow_rollouts_running", "Rollouts under way", "channel", running)
        yield _gauge("winnow_rollouts_halted", "Channels whose newest rollout was halted", "channel", halted)
        yield _counter("winnow_runs", "Rounds of training, by how they ended", "state", runs)
        yield _counter("winnow_messages_bad", "Messages from devices that were not of the wire format", value=bad)
        yield _counter("winnow_messages_throttled", "Messages left for want of room, to be sent again", value=throttled)
        yield _gauge("winnow_quarantine_messages", "Messages set aside", value=aside)
        yield _gauge("winnow_snapshots", "Snapshots frozen", value=frozen)
        led: dict[str, int] = {name: int(bool(leader(self._store, name))) for name in SEATS}
        yield _gauge("winnow_led", "Whether somebody does what one process alone may", "seat", led)
        yield from self._of_telling()

    def _of_telling(self) -> Iterator[Metric]:
        with self._store.database.read() as connection:
            stand = Counter(one.kind for one in alarms.standing(connection))
            messages = Counter(dict.fromkeys(("waiting", "dead"), 0))
            for (_, state), number in deliveries.counts(connection).items():
                messages[state] += number
            paused = sum("pause" in orders for orders in device_orders.standing(connection).values())
        yield _gauge("winnow_alarms", "Alarms that stand", "kind", {kind: stand[kind] for kind in get_args(AlarmKind)})
        del messages["delivered"]
        yield _gauge(
            "winnow_webhook_messages", "Messages that wait for a receiver, or were given up", "state", messages
        )
        yield _gauge("winnow_devices_paused", "Devices whose uploads an operator has paused", value=paused)
        yield from self._of_disk()
        free = shutil.disk_usage(self._store.folder).free
        yield _gauge("winnow_disk_free_bytes", "Free where the data lie", value=free)

    def _of_disk(self) -> Iterator[Metric]:
        with self._store.database.read() as connection:
            _, found = usage.noted(connection)
        for start, label, text in (
            (usage.CLASS, "class", "Bytes of samples, by how long they are kept"),
            (usage.TABLE, "table", "Bytes of the catalogue, by table, about"),
        ):
            values = {name: one.bytes for name, one in usage.picked(found, start)}
            yield _gauge(f"winnow_{label}_bytes", text, label, values)
        for name in (usage.BLOBS, usage.CATALOGUE):
            if name in found:
                yield _gauge(
                    f"winnow_{name}_bytes", f"Bytes of the {name}, as of the last hour", value=found[name].bytes
                )


def router(frame: Frame) -> APIRouter:
    """Its route."""
    made = APIRouter()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures(frame.store, frame.table, now_ms=frame.now_ms))

    @made.get("/metrics")
    async def metrics(_: Viewer) -> Response:
        return Response(await run_in_threadpool(generate_latest, registry), media_type=CONTENT_TYPE_LATEST)

    return made


Values = dict[str, int] | Counter[str]


def _gauge(
    name: str, text: str, label: str = "", values: Values | None = None, *, value: float | None = None
) -> Metric:
    made = GaugeMetricFamily(name, text, labels=[label] if label else [])
    return _filled(made, values, value)


def _counter(
    name: str, text: str, label: str = "", values: Values | None = None, *, value: float | None = None
) -> Metric:
    made = CounterMetricFamily(name, text, labels=[label] if label else [])
    return _filled(made, values, value)


def _filled(
    made: GaugeMetricFamily | CounterMetricFamily, values: Values | None, value: float | None
) -> GaugeMetricFamily | CounterMetricFamily:
    pairs: Iterable[tuple[list[str], float]]
    pairs = [([], value)] if value is not None else [([key], number) for key, number in (values or {}).items()]
    for labels_of, number in pairs:
        made.add_metric(labels_of, number)
    return made
