"""Whoever is told of a change sees it."""

from __future__ import annotations

import pytest

from server.store import heard, silence
from server.store.store import Store
from server.web.fleet_table import FleetTable
from server.web.live import PERIOD_S, Pulse

NOW_MS = 1_000_000


@pytest.fixture
def store(tmp_path):
    made = Store.open(tmp_path)
    with made.database.write() as connection:
        heard.record_seen(connection, {"a": NOW_MS, "b": NOW_MS})
    yield made
    made.close()


def fall_silent(store: Store) -> None:
    with store.database.write() as connection:
        silence.mark_offline(connection, now_ms=NOW_MS + 2, after_ms=1)


def test_a_device_that_falls_silent_is_news(store):
    now_s = 10.0
    pulse = Pulse(store, clock_s=lambda: now_s)
    before = pulse.state()
    fall_silent(store)
    assert pulse.state() == before  # looked at once a period, however many ask
    now_s += PERIOD_S
    assert {kind for kind, stands in pulse.state().items() if stands != before[kind]} == {"fleet"}


def test_the_table_is_as_new_as_the_news(store):
    now_s = 10.0
    pulse = Pulse(store, clock_s=lambda: now_s)
    table = FleetTable(store, pulse, now_ms=lambda: NOW_MS)  # looked at a moment ago, for all it knows
    assert [row.online for row in table.every()] == [True, True]
    fall_silent(store)
    now_s += PERIOD_S
    assert [row.online for row in table.every()] == [False, False]
