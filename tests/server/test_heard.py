"""Words of a device that come by several processes, late and in any order: nothing that is known goes back."""

import itertools

import pytest
from device_words import NOW_MS, birth, heartbeat

from edge_agent.contract.wire import Death
from server.store import devices, heard
from server.store.spoken import Spoken
from server.store.store import Store

S, HOUR_MS = 1000, 3_600_000


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path):
    """In both engines."""
    if request.param == "sqlite":
        store = Store.open(tmp_path / "store")
        yield store
        store.close()
        return
    databases = request.getfixturevalue("postgresql")
    store = Store.open(tmp_path / "store", databases.of_folder(tmp_path / "store"))
    yield store
    store.close()
    databases.give_back((tmp_path / "store").resolve())


def hears(store, *said):
    """(at_s, word), one after the other as they are written; what is known of the device then."""
    with store.database.write() as connection:
        for at_s, word in said:
            at_ms = NOW_MS + at_s * S
            if isinstance(word, Death):
                heard.record_death(connection, Spoken("cam-1", word, at_ms))
                continue
            heard.record_seen(connection, {"cam-1": at_ms})
            write = heard.record_births if hasattr(word, "interval_s") else heard.record_heartbeats if word else None
            if write is not None:
                write(connection, [Spoken("cam-1", word, at_ms)])
    with store.database.read() as connection:
        return devices.find(connection, "cam-1")


SAMPLE = None  # a sign of life without a word


def test_an_earlier_sign_of_life_changes_nothing_and_brings_nobody_back(store):
    found = hears(store, (0, birth("a")), (10, SAMPLE), (4, SAMPLE))
    assert (found.last_seen_ms, found.online) == (NOW_MS + 10 * S, True)
    found = hears(store, (20, Death(session="a")), (15, SAMPLE), (16, heartbeat("a")))
    assert (found.last_seen_ms, found.online) == (NOW_MS + 16 * S, False)
    found = hears(store, (21, SAMPLE))
    assert (found.last_seen_ms, found.online) == (NOW_MS + 21 * S, True)


def test_after_a_clock_was_set_back_devices_are_heard_all_the_same(store):
    hears(store, (0, birth("a")), (10, Death(session="a")))
    back_s = -HOUR_MS // S
    found = hears(store, (back_s, birth("b")))
    assert (found.last_seen_ms, found.online, found.session) == (NOW_MS - HOUR_MS, True, "b")
    found = hears(store, (back_s + 5, heartbeat("b", uptime_s=5.0)))
    assert (found.heartbeat, found.said_ms) == (heartbeat("b", uptime_s=5.0), NOW_MS - HOUR_MS + 5 * S)


def test_a_birth_that_is_late_takes_nothing_back(store):
    """Of an earlier start; of one with the same number, as a device counts that was wiped."""
    found = hears(store, (10, birth("new", boot=5)), (4, birth("old", boot=4)))
    assert (found.session, found.boot, found.birth, found.said_ms) == (
        "new",
        5,
        birth("new", boot=5),
        NOW_MS + 10 * S,
    )
    found = hears(store, (20, birth("wiped", boot=1)), (15, birth("before", boot=1)))
    assert (found.session, found.boot, found.birth) == ("wiped", 1, birth("wiped", boot=1))


def test_a_heartbeat_that_is_late_takes_nothing_back(store):
    early, late = heartbeat("a", uptime_s=30.0), heartbeat("a", uptime_s=60.0)
    found = hears(store, (0, birth("a")), (60, late), (30, early))
    assert (found.heartbeat, found.said_ms) == (late, NOW_MS + 60 * S)
    other = heartbeat("wiped", uptime_s=1.0)  # its number of starts is the same
    found = hears(store, (70, birth("wiped")), (65, heartbeat("a", uptime_s=65.0)), (71, other))
    assert (found.session, found.heartbeat) == ("wiped", other)
    found = hears(store, (69, heartbeat("a", uptime_s=69.0)))
    assert (found.session, found.heartbeat) == ("wiped", other)


def test_two_starts_come_to_the_same_in_whatever_order_they_are_written(store):
    words = [
        (0, birth("a", boot=1)), (5, heartbeat("a", boot=1)), (9, Death(session="a")),
        (10, birth("b", boot=2)), (15, heartbeat("b", boot=2)),
    ]  # fmt: skip
    for order in itertools.islice(itertools.permutations(words), 0, None, 3):
        with store.database.write() as connection:
            connection.exec_driver_sql("DELETE FROM device")
        found = hears(store, *order)
        assert (found.session, found.boot, found.online) == ("b", 2, True), order
        assert (found.birth, found.heartbeat) == (birth("b", boot=2), heartbeat("b", boot=2)), order
        assert (found.last_seen_ms, found.said_ms) == (NOW_MS + 15 * S, NOW_MS + 15 * S), order
