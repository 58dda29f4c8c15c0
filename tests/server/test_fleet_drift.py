"""One device or many, which kind of shift, how accurate: through real heartbeats, ingest and store."""

from __future__ import annotations

import json
import threading
import time

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from planted_fleet import NAMES, C, World, clear, even, live, make_reference, manifest, publish

from server.__main__ import main
from server.config import Drift
from server.drift import watch as watching
from server.drift.outlook import Outlook
from server.drift.watch import SETTLES_MS, Verdict, Watch, outlooks
from server.store import spans, versions
from server.store.schema import device, event, reference, span
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
    alone = Store.open(store.folder / "alone")
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
    monkeypatch.setattr("server.cli.status.now_ms", lambda: latest + SPAN_MS)
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


def look_again(store: Store, watch: Watch, hour: int) -> list[str]:
    watch.tick(_begin(store) + hour * SPAN_MS + SETTLES_MS)
    return told(store)


def seen(store: Store, *, world=clear) -> None:
    """A fleet that lived, at which nobody looked."""
    one = manifest()
    publish(store, one)
    make_reference(store, one)
    for _ in live(store, one, devices=5, hours=HOURS, world=world):
        pass


def test_a_damaged_reference_costs_the_kind_and_not_the_verdict(store):
    seen(store, world=fogged("cam-3"))
    with store.database.write() as connection:
        connection.execute(sa.update(reference).values(body_sha256=store.blobs.put(b"rubbish")))
    watch = Watch(store, RULES)
    look_again(store, watch, HOURS)
    assert look_again(store, watch, HOURS + 1) == ["device; none; cam-3"]
    (found,) = outlooks(store, RULES, now_ms=_begin(store) + HOURS * SPAN_MS)
    assert (found.against.kind, "reference of model file" in found.against.why) == ("cannot tell", True)


def test_a_version_that_cannot_be_judged_is_said_and_holds_up_no_other(store, caplog):
    seen(store, world=fogged("cam-3"))
    with store.database.write() as connection:  # a device that runs a version whose manifest is lost
        lost = versions.Version(2, "lost", 1, "", None, "00" * 32, 1, 0, "", {})
        versions.insert(connection, lost)
        connection.execute(sa.update(span).where(span.c.device == "cam-4").values(model_version=2))
        said = connection.scalar(sa.select(device.c.heartbeat).where(device.c.name == "cam-4"))
        said = said | {"model": said["model"] | {"version": 2}}
        connection.execute(sa.update(device).where(device.c.name == "cam-4").values(heartbeat=said))
    found = list(outlooks(store, RULES, now_ms=_begin(store) + HOURS * SPAN_MS))
    assert [(one.version, one.flagged) for one in found] == [(1, ("cam-3",))]
    assert "version 2: cannot be judged" in caplog.text


def test_a_look_that_fails_is_not_repeated_and_makes_no_verdict_older(store, monkeypatch):
    """The disk that is full at the first look must neither cost a look a second nor count as a look that agreed."""
    seen(store, world=fogged("cam-3"))
    looks = []
    whole = watching.look

    def counted(given, *, alpha):
        looks.append(alpha)
        if len(looks) == 1:
            raise MemoryError
        return whole(given, alpha=alpha)

    monkeypatch.setattr(watching, "look", counted)
    watch = Watch(store, RULES)
    with pytest.raises(MemoryError):
        look_again(store, watch, HOURS)
    assert look_again(store, watch, HOURS) == []
    assert len(looks) == 1
    assert look_again(store, watch, HOURS + 1) == []
    assert look_again(store, watch, HOURS + 2) == ["device; none; cam-3"]


def test_versions_share_what_may_be_wrong(store, monkeypatch):
    seen(store)
    alphas = []
    monkeypatch.setattr(watching, "look", lambda _given, *, alpha: alphas.append(alpha))
    list(outlooks(store, RULES, now_ms=_begin(store) + HOURS * SPAN_MS))
    with store.database.write() as connection:
        connection.execute(sa.update(span).where(span.c.device == "cam-4").values(model_version=2))
        said = connection.scalar(sa.select(device.c.heartbeat).where(device.c.name == "cam-4"))
        said = said | {"model": said["model"] | {"version": 2}}
        connection.execute(sa.update(device).where(device.c.name == "cam-4").values(heartbeat=said))
    list(outlooks(store, RULES, now_ms=_begin(store) + HOURS * SPAN_MS))
    assert alphas == pytest.approx([1 / 720, 1 / 1440, 1 / 1440])


def test_what_cannot_be_told_leaves_what_was_told(store):
    seen(store)
    (found,) = outlooks(store, RULES, now_ms=_begin(store) + HOURS * SPAN_MS)
    last = Verdict("several devices", "label shift", "cam-1, cam-2")
    assert watching._verdict(found, last) == Verdict("nobody", "none", "")
    unsure = msgspec.structs.replace(found.against, kind="cannot tell")
    assert watching._verdict(msgspec.structs.replace(found, against=unsure), last).kind == "label shift"
    unknown = msgspec.structs.replace(found, who="cannot tell", against=unsure)
    assert watching._verdict(unknown, last) == last


def test_the_watch_has_a_thread_that_survives_a_look_and_stops(store, monkeypatch, caplog):
    seen(store, world=fogged("cam-3"))
    monkeypatch.setattr(watching, "TICK_S", 0.01)
    hours = iter((HOURS, HOURS + 1, HOURS + 2))
    begin, last = _begin(store), HOURS + 2
    failed = []
    whole = spans.fold

    def fold(*args, **more):
        if not failed:
            failed.append(True)
            raise RuntimeError("no luck")
        whole(*args, **more)

    monkeypatch.setattr(spans, "fold", fold)
    watch = Watch(store, RULES)
    watch.start(lambda: begin + next(hours, last) * SPAN_MS + SETTLES_MS)
    deadline = time.monotonic() + 30.0
    while not told(store) and time.monotonic() < deadline:
        time.sleep(0.02)
    watch.stop(timeout_s=10.0)
    assert told(store) == ["device; none; cam-3"]
    assert "no luck" in caplog.text
    assert not any(thread.name == "drift" for thread in threading.enumerate())
