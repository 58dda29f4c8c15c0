"""One device or many, which kind of shift, how accurate: through real heartbeats, ingest and store."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sqlalchemy as sa
from planted_fleet import NAMES, C, World, even, live, make_reference, manifest, publish

from server.__main__ import main
from server.config import Drift
from server.drift.outlook import Outlook
from server.drift.watch import SETTLES_MS, Watch, outlooks
from server.store.schema import event
from server.store.spans import SPAN_MS
from server.store.store import Store

RULES = Drift()
HOURS, CHANGE = 44, 32
DEVICES = 8
SKEWED = np.array([5.0, 1, 1, 1, 1, 1]) / 10.0


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    yield store
    store.close()


def fogged(*names: str, by: float = 0.7) -> World:
    return lambda device, hour, x, _rng: x * by if device in names and hour >= CHANGE else x


def season(device, hour, x, _rng):
    return x + 0.15 * (hour >= CHANGE)


def skewed(_device, hour):
    return SKEWED if hour >= CHANGE else even(_device, hour)


def told(store: Store) -> list[str]:
    with store.database.read() as connection:
        rows = connection.execute(sa.select(event).where(event.c.device == "").order_by(event.c.id))
        return [str(row.detail["verdict"]) for row in rows]


def outcome(store: Store, *, devices: int = DEVICES, hours: int = HOURS, reference: bool = True, **world):
    """The outlook at the end, the fleet, and the verdicts that were told on the way."""
    one = manifest()
    publish(store, one)
    if reference:
        make_reference(store, one)
    watch, now_ms, fleet = Watch(store, RULES), 0, []
    for now_ms, fleet in live(store, one, devices=devices, hours=hours, **world):  # noqa: B007 - used after
        watch.tick(now_ms + SETTLES_MS)
    (found,) = outlooks(store, RULES, now_ms=now_ms)
    return found, fleet, told(store)


def kinds(found: Outlook) -> set[str]:
    return {one.against.kind for one in found.devices}


def test_nothing_moves_and_nothing_is_told(store):
    found, fleet, said = outcome(store)
    assert (found.who, found.against.kind, found.flagged, said) == ("nobody", "none", (), [])
    assert kinds(found) == {"none"}
    truth = sum(device.right for device in fleet) / sum(device.seen for device in fleet)
    assert found.against.accuracy.low <= truth <= found.against.accuracy.high
    assert found.against.accuracy.high - found.against.accuracy.low < 0.04
    assert "calibrated" in found.against.accuracy.assumes


def test_one_fogged_lens_is_that_device_and_not_the_world(store):
    found, _, said = outcome(store, world=fogged("cam-3"))
    assert (found.who, found.flagged, found.against.kind) == ("device", ("cam-3",), "none")
    assert said == ["device; none; cam-3"]
    cam = {one.device: one for one in found.devices}["cam-3"]
    assert cam.moved is not None
    assert cam.moved.since_ms == _begin(store) + CHANGE * SPAN_MS
    assert cam.against.kind == "covariate or concept shift"
    assert cam.against.accuracy.value is None
    assert found.left_out == {"cam-3": "moved on its own"}
    assert found.against.accuracy.value is not None  # of the others


def _begin(store: Store) -> int:
    with store.database.read() as connection:
        return connection.exec_driver_sql("SELECT min(start_ms) FROM span").scalar()


def test_two_fogged_lenses_are_several_devices(store):
    found, _, _ = outcome(store, world=fogged("cam-3", "cam-7"))
    assert (found.who, set(found.flagged), found.alike) == ("several devices", {"cam-3", "cam-7"}, True)


def test_a_season_is_the_fleet_and_the_accuracy_is_withheld(store):
    found, _, said = outcome(store, world=season)
    assert (found.who, found.against.kind, found.flagged) == ("fleet", "covariate or concept shift", ())
    assert found.moved is not None
    assert found.against.accuracy.value is None
    assert "class shares do not explain" in found.against.accuracy.withheld
    assert said[-1] == "fleet; covariate or concept shift; "
    assert len(said) <= 2  # that it moved, and what kind it is: then silence


def test_other_class_shares_are_told_with_their_size_and_the_accuracy_follows(store):
    found, fleet, said = outcome(store, mix=skewed)
    assert (found.who, found.against.kind) == ("fleet", "label shift")
    assert said[-1] == "fleet; label shift; "
    for share, truth in zip(found.against.shares, SKEWED, strict=True):
        assert share.low - 0.01 <= truth <= share.high + 0.01
        assert share.high - share.low < 0.1
    assert [share.name for share in found.against.shares] == list(NAMES)
    assert found.against.accuracy.value is not None
    now = sum(device.right for device in fleet) / sum(device.seen for device in fleet)
    assert abs(found.against.accuracy.value - now) < 0.04


def test_without_a_reference_movement_is_seen_but_not_told_apart(store):
    found, _, said = outcome(store, reference=False, mix=skewed)
    assert (found.who, found.against.kind) == ("fleet", "cannot tell")
    assert found.against.accuracy.withheld.startswith("no reference")
    assert said == ["fleet; none; "]


def test_a_young_fleet_cannot_be_told(store):
    found, _, said = outcome(store, hours=8)
    assert (found.who, said) == ("cannot tell", [])
    assert all("36 are needed" in one.why for one in found.devices)


def test_what_was_there_from_the_beginning_shows_against_the_reference_only(store):
    found, _, _ = outcome(store, hours=40, world=lambda device, _hour, x, _rng: x * 0.7 if device == "cam-3" else x)
    assert found.who == "nobody"
    assert found.left_out == {"cam-3": "covariate or concept shift"}
    assert found.against.kind == "none"


def test_a_lens_that_is_wiped_is_told_too(store):
    def for_a_while(device, hour, x, _rng):
        return x * 0.6 if device == "cam-3" and 40 <= hour < 50 else x

    found, _, said = outcome(store, hours=68, devices=5, world=for_a_while)
    assert found.who == "nobody"
    assert said == ["device; none; cam-3", "nobody; none; "]


def test_a_weak_common_drift_is_seen_by_all_together_and_by_none_alone(store):
    """What each moves is well below what one device could tell; pooled it is plain."""
    found, _, _ = outcome(store, devices=16, world=lambda _d, hour, x, _rng: x + 0.06 * (hour >= CHANGE))
    assert found.who == "fleet"
    alone = Store.open(store.database.path.parent / "alone")
    single, _, _ = outcome(alone, devices=1, world=lambda _d, hour, x, _rng: x + 0.06 * (hour >= CHANGE))
    alone.close()
    assert single.who == "nobody"


def test_a_fleet_of_two_that_moves_as_one(store):
    found, _, _ = outcome(store, devices=2, world=lambda _d, hour, x, _rng: x + 0.4 * (hour >= CHANGE))
    assert found.who == "fleet"


def test_the_command_prints_both_for_people_and_for_programs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "server.toml").write_text('[server]\ndata_dir = "store"\nfleet = "test"\n')
    store = Store.open(tmp_path / "store")
    outcome(store, world=fogged("cam-3"))
    with store.database.read() as connection:
        latest = connection.exec_driver_sql("SELECT max(start_ms) FROM span").scalar()
    store.close()
    monkeypatch.setattr("server.__main__._now_ms", lambda: latest + SPAN_MS)
    assert main(["drift", "server.toml"]) == 0
    text = capsys.readouterr().out
    assert "version 1: cam-3 moved, alone" in text
    assert "not in the fleet's figure: cam-3 (moved on its own)" in text
    assert main(["drift", "--json", "server.toml"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["who"], entry["flagged"]) == ("device", ["cam-3"])
    assert len(entry["devices"]) == DEVICES
    assert entry["told"]["text"].startswith("cam-3 moved")
    assert all(len(one["against"]["shares"]) in (0, C) for one in entry["devices"])
