"""Hours of signals, references, and the server's own events: what the store keeps for drift."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, event, heartbeat, message
from plans import plans, reads_keys_alone
from quadrants import ARTIFACT, images

from edge_agent.contract.artifact import read_artifact
from edge_agent.contract.wire import StreamCounts, encode
from server.collect.ingest import Ingest
from server.errors import StoreError
from server.store import devices, events, heard, references, rules, spans
from server.store.schema import reference, sample, span
from server.store.spans import OLD_AFTER_MS, OLD_SPAN_MS, SPAN_MS
from server.store.spoken import Spoken
from server.store.store import Store
from server.store.vectors import unpack
from server.teach.imports import import_file
from server.teach.reference import learn

HOUR = NOW_MS // SPAN_MS * SPAN_MS


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    yield store
    store.close()


def said(read: int, signals: tuple[int, ...], **changes: object) -> bytes:
    counts = StreamCounts(
        read=read,
        scored=read,
        invalid=0,
        selected={},
        stream="main",
        through_seq=read - 1,
        model_version=1,
        classes=(read, 0),
        signals=signals,
    )
    return encode(msgspec.structs.replace(heartbeat("s"), counts=msgspec.structs.replace(counts, **changes)))


def take(store: Store, *beats: tuple[int, bytes]) -> None:
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    for at_ms, payload in beats:
        ingest.take([message("cam", "heartbeat", payload, at_ms=at_ms)])


class Span(NamedTuple):
    device: str
    model_version: int
    start_ms: int
    signals: list[float]
    classes: list[float]


def rows(store: Store) -> list[Span]:
    with store.database.read() as connection:
        found = connection.execute(sa.select(span).order_by(span.c.start_ms))
        return [Span(*row[:3], unpack(row.signals), unpack(row.classes)) for row in found]


def test_what_a_heartbeat_adds_falls_into_its_hour(store):
    take(
        store,
        (HOUR + 5, said(10, (10, -50, 7))),
        (HOUR + 9, said(10, (10, -50, 7))),  # repeated
        (HOUR + 50, said(14, (14, -80, 8))),
        (HOUR + SPAN_MS, said(20, (20, -90, 9))),
    )
    assert rows(store) == [
        Span("cam", 1, HOUR, [14, -80, 8], [14, 0]),
        Span("cam", 1, HOUR + SPAN_MS, [6, -10, 1], [6, 0]),
    ]


def test_samples_of_two_models_are_never_added_up(store):
    take(store, (HOUR, said(10, (10, 1))), (HOUR + 1, said(30, (30, 9), model_version=2, epoch=1)))
    assert [(row.model_version, row.signals) for row in rows(store)] == [(1, [10, 1])]  # the border was lost


def test_a_device_without_signals_leaves_no_span(store):
    take(store, (HOUR, said(10, ())), (HOUR + 1, said(20, (0,))))
    assert rows(store) == []


@pytest.mark.parametrize("signals", [(1 << 63, 0), (-1, 0), (3, -(1 << 63))])
def test_sums_that_do_not_fit_are_not_of_the_wire(store, signals):
    take(store, (HOUR, said(10, signals)))
    assert rows(store) == []
    with store.database.read() as connection:
        (device,) = devices.devices(connection)
    assert device.messages_bad == 1


def live_30_hours(store: Store, *devices: str) -> int:
    """Hours that are old but for the last six; returns when they began."""
    day = spans.old_before(NOW_MS) - OLD_SPAN_MS
    with store.database.write() as connection:
        for device in devices:
            for hour in range(30):
                sums = {"signals": [1, hour], "classes": [1]}
                spans.add(connection, [spans.Seen(device, 1, sums, day + hour * SPAN_MS)])
            spans.add(connection, [spans.Seen(device, 1, {"signals": [1, 1], "classes": [1]}, NOW_MS)])
    return day


def test_old_hours_become_days_and_nothing_is_lost(store):
    day = live_30_hours(store, "cam")
    for _ in range(2):
        spans.fold(store.database, before_ms=spans.old_before(NOW_MS))
        found = rows(store)
        assert found[0] == Span("cam", 1, day, [24, sum(range(24))], [24])
        assert [row.start_ms for row in found[1:]] == [*(day + h * SPAN_MS for h in range(24, 30)), HOUR]


def test_hours_of_a_day_that_was_folded_already_join_it(store):
    """A server whose clock was wrong, or that was killed, may leave some."""
    day = live_30_hours(store, "cam")
    spans.fold(store.database, before_ms=spans.old_before(NOW_MS))
    with store.database.write() as connection:
        spans.add(connection, [spans.Seen("cam", 1, {"signals": [2, 5, 3], "classes": [1, 1]}, day + 7 * SPAN_MS)])
    spans.fold(store.database, before_ms=spans.old_before(NOW_MS))
    assert rows(store)[0] == Span("cam", 1, day, [26, sum(range(24)) + 5, 3], [25, 1])


def test_a_fold_that_is_stopped_is_made_good_by_the_next(store):
    live_30_hours(store, "a", "b", "c")
    asked = iter((False, True))
    spans.fold(store.database, before_ms=spans.old_before(NOW_MS), stopped=lambda: next(asked))
    assert len(rows(store)) == 8 + 31 + 31  # a device to a transaction
    spans.fold(store.database, before_ms=spans.old_before(NOW_MS))
    assert len(rows(store)) == 3 * 8


def test_looking_for_old_hours_reads_keys_alone(store):
    """No row, and nothing under the lock of writers: a second index would cost every heartbeat, and gain less."""
    live_30_hours(store, "cam")
    spans.fold(store.database, before_ms=spans.old_before(NOW_MS))
    (plan,) = plans(store, lambda: spans.fold(store.database, before_ms=spans.old_before(NOW_MS)))
    assert reads_keys_alone(plan), plan


def test_edge_of_what_is_old_moves_once_a_day():
    edges = [spans.old_before(NOW_MS + hour * SPAN_MS) for hour in range(49)]
    assert len(set(edges)) == 3
    assert all(edge % OLD_SPAN_MS == 0 and NOW_MS + h * SPAN_MS - edge >= OLD_AFTER_MS for h, edge in enumerate(edges))


def test_claims_beyond_any_sum_are_kept_as_they_are(store):
    with store.database.write() as connection:
        for _ in range(3):
            spans.add(connection, [spans.Seen("cam", 1, {"signals": [1, (1 << 63) - 1]}, NOW_MS)])
    assert rows(store)[0].signals == [3, pytest.approx(3 * 2**63)]


def test_spans_of_before_a_class_was_added_are_filled(store):
    with store.database.write() as connection:
        spans.add(connection, [spans.Seen("cam", 1, {"signals": [1, 4], "classes": [1]}, HOUR - SPAN_MS)])
        spans.add(connection, [spans.Seen("cam", 1, {"signals": [2, 5], "classes": [1, 1]}, HOUR)])
        found = spans.of_version(connection, 1, before_ms=HOUR + SPAN_MS)["cam"]
    assert found.start_ms.tolist() == [HOUR - SPAN_MS, HOUR]
    assert found.signals.tolist() == [[1, 4], [2, 5]]
    assert found.classes.tolist() == [[1, 0], [1, 1]]


def test_a_span_is_seen_when_it_has_ended(store):
    take(store, (HOUR + 5, said(10, (10, 1))))
    with store.database.read() as connection:
        assert spans.of_version(connection, 1, before_ms=HOUR + SPAN_MS - 1) == {}
        assert list(spans.of_version(connection, 1, before_ms=HOUR + SPAN_MS)) == ["cam"]


# --- references


def import_quadrants(store: Store, folder, count: int, names: tuple[str, ...]) -> None:
    x, y = images(count)
    np.savez(folder / "held.npz", x=x, y=y, names=np.array(names))
    import_file(store, folder / "held.npz", split="holdout", now_ms=NOW_MS)


def test_a_reference_is_what_the_shipped_file_says_of_held_out_imports(store, tmp_path):
    manifest, onnx = read_artifact(ARTIFACT)
    assert learn(store, manifest, onnx, now_ms=NOW_MS) == 0  # nothing is held out yet
    import_quadrants(store, tmp_path, 300, manifest.classes)
    assert learn(store, manifest, onnx, now_ms=NOW_MS) == 300
    with store.database.write() as connection:
        rules.add(connection, rules.Rule(device="import", uses=("train",)), now_ms=NOW_MS)
    assert learn(store, manifest, onnx, now_ms=NOW_MS) == 0  # they may not judge any more
    with store.database.write() as connection:
        rules.add(connection, rules.Rule(device="import"), ended=True, now_ms=NOW_MS)
    made = references.get(store, manifest.variant("cpu-int8").sha256)
    assert made is not None
    assert (made.values.shape[0], made.values.dtype) == (300, np.int64)
    assert (made.predicted == made.true).mean() > 0.8  # truth and prediction are of the same sample
    assert references.get(store, "no such file") is None


def test_classes_that_the_model_does_not_know_are_left_out(store, tmp_path):
    manifest, onnx = read_artifact(ARTIFACT)
    import_quadrants(store, tmp_path, 300, (*manifest.classes[:3], "swan"))
    kept = learn(store, manifest, onnx, now_ms=NOW_MS)
    assert 0 < kept < 300


def damage(store: Store, count: int) -> None:
    """The bodies of some samples are not what they were."""
    with store.database.write() as connection:
        some = sa.select(sample.c.id).order_by(sample.c.id).limit(count)
        connection.execute(sa.update(sample).where(sample.c.id.in_(some)).values(body_sha256="00" * 32))


def test_held_out_bodies_that_are_damaged_are_left_out_and_said(store, tmp_path, caplog):
    manifest, onnx = read_artifact(ARTIFACT)
    import_quadrants(store, tmp_path, 300, manifest.classes)
    damage(store, 3)
    assert learn(store, manifest, onnx, now_ms=NOW_MS) == 297
    assert caplog.text.count("is left out") == 3
    made = references.get(store, manifest.variant("cpu-int8").sha256)
    assert (made.predicted == made.true).mean() > 0.8
    damage(store, 300)
    assert learn(store, manifest, onnx, now_ms=NOW_MS) == 0


def test_a_damaged_reference_is_an_error_that_names_it(store):
    values = {"onnx_sha256": "ab" * 32, "body_sha256": store.blobs.put(b"rubbish"), "samples": 1, "at_ms": 0}
    with store.database.write() as connection:
        connection.execute(sa.insert(reference).values(values))
    with pytest.raises(StoreError, match="reference of model file abab"):
        references.get(store, "ab" * 32)


# --- events


def test_the_servers_own_events_are_numbered_and_found_by_version(store):
    with store.database.write() as connection:
        for version in (1, 1, 2):
            events.say(connection, "drift", f"v{version}", version=version, detail={"a": 1}, now_ms=NOW_MS)
        assert events.last_said(connection, "drift", version=1).n == 2
        assert events.last_said(connection, "drift", version=3) is None
        assert events.last_said(connection, "other", version=1) is None


def test_the_newest_alarm_of_each_device(store):
    alarm = msgspec.structs.replace(event(1), model_version=1)
    with store.database.write() as connection:
        heard.record_seen(connection, {"cam": NOW_MS})
        events.record(connection, Spoken("cam", alarm, NOW_MS))
        events.record(connection, Spoken("cam", msgspec.structs.replace(alarm, n=2, text="again"), NOW_MS))
        found = events.last_alarms(connection, version=1)
    assert {name: row.text for name, row in found.items()} == {"cam": "again"}
