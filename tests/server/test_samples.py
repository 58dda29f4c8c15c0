from typing import get_args

import numpy as np
import pytest
import sqlalchemy as sa
from device_words import birth, event, heartbeat, image

from edge_agent.contract.types import Reason
from edge_agent.contract.wire import Assignment, Death, Desired
from server.errors import StoreError
from server.store import devices, events, heard, samples, silence
from server.store.schema import event as event_table
from server.store.schema import quarantine, sample
from server.store.spoken import Spoken
from server.store.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path)
    yield store
    store.close()


def row(sample_id, **changes):
    fixed = {"device": "cam-1", "stream": "main", "boot": 1, "seq": 1, "ref": "", "origin": "device", "split": "train"}
    fixed |= {"captured_at_ms": 1, "received_at_ms": 2, "dtype": "uint8", "shape": [6, 6], "encoding": "raw"}
    return fixed | {"id": sample_id, "body_sha256": "00", "body_bytes": 36, "reason": "explore"} | changes


def test_a_sample_is_written_once(store):
    with store.database.write() as connection:
        assert samples.insert_samples(connection, [row("a"), row("b")]) == {"a", "b"}
        assert samples.insert_samples(connection, [row("b", body_sha256="ff"), row("c")]) == {"c"}
        assert samples.insert_samples(connection, []) == set()
    with store.database.read() as connection:
        assert samples.body_names(connection, ["a", "b", "c", "d"]) == {"a": "00", "b": "00", "c": "00"}


def test_many_ids_are_looked_up(store):
    ids = [f"s{i}" for i in range(1203)]
    with store.database.write() as connection:
        samples.insert_samples(connection, [row(id_) for id_ in ids])
        assert len(samples.body_names(connection, ids)) == 1203


def test_samples_are_counted_by_device_and_reason(store):
    with store.database.write() as connection:
        rows = [row("a"), row("b"), row("c", device="cam-2"), row("d", reason="drift")]
        samples.insert_samples(connection, [*rows, row("e", device="import", origin="import", reason=None)])
        assert samples.sample_counts(connection) == {
            "cam-1": {"explore": 2, "drift": 1},
            "cam-2": {"explore": 1},
            "import": {"import": 1},
        }


def test_an_array_comes_back(store):
    array = image(1)
    name = store.blobs.put(array.tobytes())
    with store.database.write() as connection:
        samples.insert_samples(connection, [row("a", body_sha256=name), row("b", body_sha256=name, shape=[5, 5])])
        good, bad = connection.execute(sa.select(sample).order_by(sample.c.id))
    np.testing.assert_array_equal(samples.sample_array(store, good), array)
    with pytest.raises(StoreError, match="sample b"):
        samples.sample_array(store, bad)


def test_what_was_drawn_from_the_whole_stream_judges_and_the_rest_teaches():
    reasons = get_args(Reason)
    assert {reason for reason in reasons if samples.split_of(reason) == "holdout"} == {"random", "explore"}


# --- devices ---


def seen(connection, name="cam-1", at_ms=1000):
    heard.record_seen(connection, {name: at_ms})
    return next(device for device in devices.devices(connection) if device.name == name)


def test_a_device_is_known_from_its_first_sign_of_life(store):
    with store.database.write() as connection:
        seen(connection, at_ms=1000)
        found = seen(connection, at_ms=3000)
    assert (found.first_seen_ms, found.last_seen_ms, found.online) == (1000, 3000, True)
    assert (found.birth, found.heartbeat, found.desired) == (None, None, None)


def test_what_it_said_comes_back_as_it_was(store):
    with store.database.write() as connection:
        seen(connection)
        heard.record_births(connection, [Spoken("cam-1", birth("a", boot=4), 7000)])
        heard.record_heartbeats(connection, [Spoken("cam-1", heartbeat("a", boot=4), 7000)])
        found = seen(connection)
    assert (found.birth, found.heartbeat) == (birth("a", boot=4), heartbeat("a", boot=4))
    assert (found.session, found.boot) == ("a", 4)


def test_only_the_death_of_the_current_session_counts(store):
    with store.database.write() as connection:
        seen(connection)
        heard.record_births(connection, [Spoken("cam-1", birth("new"), 7000)])
        heard.record_death(connection, Spoken("cam-1", Death(session="old"), 7000))
        assert devices.devices(connection)[0].online
        heard.record_death(connection, Spoken("cam-1", Death(session="new"), 7000))
        assert not devices.devices(connection)[0].online


def test_a_heartbeat_tells_of_a_session_whose_birth_was_missed(store):
    with store.database.write() as connection:
        seen(connection)
        heard.record_births(connection, [Spoken("cam-1", birth("a", boot=4), 7000)])
        heard.record_heartbeats(connection, [Spoken("cam-1", heartbeat("b", boot=5), 7000)])
        stale = Spoken("cam-1", heartbeat("a", boot=4), 8000)  # from before the reboot
        heard.record_heartbeats(connection, [stale])
        found = devices.devices(connection)[0]
    assert (found.session, found.boot, found.heartbeat, found.said_ms) == ("b", 5, heartbeat("b", boot=5), 7000)


def test_some_devices_are_found_by_their_names(store):
    with store.database.write() as connection:
        for name in ("b", "c", "a"):
            seen(connection, name)
        assert [one.name for one in devices.devices(connection, {"c", "a", "nobody"})] == ["a", "c"]
        assert devices.devices(connection, []) == []
        assert devices.devices(connection, ["b"]) == [devices.get(connection, "b")]


def test_the_silent_go_offline_once(store):
    with store.database.write() as connection:
        seen(connection, "quiet", 1000)
        seen(connection, "lively", 2000)
        assert silence.mark_offline(connection, now_ms=2000 + 90_000, after_ms=90_000) == (["quiet"], 2000 + 90_000)
        assert silence.mark_offline(connection, now_ms=2000 + 90_000, after_ms=90_000).names == []
        assert [device.online for device in devices.devices(connection)] == [True, False]


def test_an_event_is_kept_once(store):
    with store.database.write() as connection:
        assert events.record(connection, Spoken("cam-1", event(1), 5))
        assert not events.record(connection, Spoken("cam-1", event(1), 6))
        assert events.record(connection, Spoken("cam-2", event(1), 5))
        assert events.record(connection, Spoken("cam-1", event(2), 5))
        assert events.record(connection, Spoken("cam-1", event(1, at_ms=99), 5))  # wiped, it counts anew
        assert connection.execute(sa.select(sa.func.count()).select_from(event_table)).scalar() == 4


def test_bad_messages_are_counted_for_ever_and_the_newest_kept(store):
    with store.database.write() as connection:
        seen(connection)
        for number in range(heard.QUARANTINE_ROWS + 20):
            heard.record_bad(connection, "cam-1", topic="t", payload=b"%d" % number, reason="r", now_ms=number)
        heard.record_bad(connection, "", topic="x" * 999, payload=b"y" * 9999, reason="r", now_ms=0)
        assert devices.devices(connection)[0].messages_bad == heard.QUARANTINE_ROWS + 20
        kept = connection.execute(sa.select(quarantine).order_by(quarantine.c.id)).all()
    assert [row.payload for row in kept[:-1]] == [b"%d" % number for number in range(20, 120)]
    assert (len(kept[-1].payload), kept[-1].payload_bytes) == (heard.QUARANTINE_PAYLOAD_BYTES, 9999)


def test_the_revision_of_what_is_wanted_only_grows(store):
    wanted = Desired(revision=0, model=Assignment(version=2, manifest_sha256="ab", manifest_bytes=5), label_share=0.1)
    with store.database.write() as connection:
        seen(connection)
        first = devices.set_desired(connection, "cam-1", wanted)
        assert devices.set_desired(connection, "cam-1", wanted) == first  # nothing new
        assert devices.devices(connection)[0].desired == first
        second = devices.set_desired(connection, "cam-1", Desired(revision=0))
        assert (first.revision, second.revision) == (1, 2)
        with pytest.raises(StoreError, match=r"'cam-2' has never been seen \(did you mean 'cam-1'\?\)"):
            devices.set_desired(connection, "cam-2", wanted)
