"""Is it said truly how what was sent differs from what was seen, and what the weights correct?"""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import scenes
from device_words import FLEET
from hypothesis import given
from hypothesis import strategies as st
from test_fleet_accuracy import DAY_MS, NAMES, NOW_MS, Planted, answer

from server.__main__ import main
from server.audit.bias import Known, gather, shortened, slices
from server.release.registry import add_artifact
from server.store import snapshots
from server.store.store import Store
from server.teach.listing import bias_of
from server.teach.snapshot import freeze


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A device that is mostly right, and one that is not and so sends more; two days; everything labelled."""
    folder = tmp_path_factory.mktemp("bias")
    store = Store.open(folder / "data")
    fleet = [Planted("good", skill=8.0, seed=1), Planted("poor", skill=1.5, seed=2)]
    for day in range(2):
        for device in fleet:
            device.see(4000)
            device.send(store, at_ms=NOW_MS - (1 - day) * DAY_MS)
    for device in fleet:
        answer(store, device.truth)
    snapshot = freeze(store, now_ms=NOW_MS)
    store.close()
    toml = folder / "server.toml"
    toml.write_text(f'[server]\nfleet = "{FLEET}"\ndata_dir = "{folder / "data"}"\n')
    return folder, toml, fleet, snapshot


@pytest.fixture(scope="module")
def view(planted):
    store = Store.open(planted[0] / "data")
    found = bias_of(store, planted[3].id, now_ms=NOW_MS)
    store.close()
    return found


def by(view, kind):
    return {row[kind]: row for row in view["by"][kind]}


def test_shares_of_the_stream_are_what_was_seen(planted, view):
    _, _, fleet, _ = planted
    assert view["samples"] == 16_000
    assert {name: row["stream"] for name, row in by(view, "device").items()} == {"good": 0.5, "poor": 0.5}
    called = Counter(np.concatenate([device.called for device in fleet]).tolist())
    assert {name: row["stream"] for name, row in by(view, "class").items()} == {
        NAMES[index]: number / 16_000 for index, number in called.items()
    }
    assert [row["stream"] for row in by(view, "day").values()] == [0.5, 0.5]


def test_shares_of_what_was_sent_are_counted(planted, view):
    _, _, fleet, _ = planted
    sent = {device.name: len(device.truth) for device in fleet}
    assert view["uploaded"] == sum(sent.values()) == view["labelled"]
    rows = by(view, "device")
    for name, number in sent.items():
        assert rows[name]["uploaded"] == pytest.approx(number / view["uploaded"])
        assert rows[name]["times"] == pytest.approx(2 * number / view["uploaded"])
    assert rows["poor"]["times_low"] > 1.0 > rows["good"]["times_high"]


def test_weights_correct_what_is_known_and_so_what_is_not(planted, view):
    _, _, fleet, _ = planted
    rows = by(view, "device")
    assert abs(rows["poor"]["labelled"] - 0.5) > 0.15  # as they are, the labels are mostly of the poor one
    assert all(row["holds"] for kind in ("device", "class", "day") for row in view["by"][kind])
    truth = np.concatenate([device.is_ for device in fleet])
    for row in view["true_class"]:
        share = float((truth == NAMES.index(row["class"])).mean())
        assert row["low"] - 0.02 <= share <= row["high"] + 0.02
    right = np.mean([r for device in fleet for r in device.right])
    accuracy = view["accuracy"]
    assert accuracy["plain"]["high"] < right - 0.1
    assert accuracy["weighted"]["low"] <= right <= accuracy["weighted"]["high"]


def test_hours_of_what_was_sent_are_those_of_capture(view):
    hours = by(view, "hour")
    assert hours[NOW_MS // 3_600_000 % 24]["uploaded"] == 1.0  # all of the planted samples carry one stamp
    assert sum(row["labelled"] for row in hours.values()) == pytest.approx(1.0)


def test_a_snapshot_is_weighed_by_its_own_members(planted):
    store = Store.open(planted[0] / "data")
    with store.database.read() as connection:
        some = set(sorted(snapshots.sample_ids(connection, planted[3].id))[::3])
        seen = gather(connection, members=some, now_ms=NOW_MS)
    store.close()
    assert len(seen.evidence.truth) + sum(seen.evidence.left_out.values()) == len(some)
    assert len(seen.evidence.truth) > 0


def test_of_a_single_slice_there_is_nothing_to_hold():
    (row,) = slices("k", Known({"a": 9000}, {"a": 900}), np.array(["a"] * 900, dtype=object), np.full(900, 0.1))
    assert (row["stream"], row["holds"]) == (1.0, None)
    assert row["weighted"] == pytest.approx(1.0)


def test_a_report_that_is_kept_is_short(view):
    assert all(len(rows) <= 1 for rows in shortened(view, most=1)["by"].values())


counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1000), min_size=1)


@given(counts, counts, st.lists(st.sampled_from("abcdef"), max_size=60), st.floats(0.05, 1.0))
def test_shares_add_up_and_lie_in_their_intervals(stream, uploaded, keys, probability):
    rows = slices("k", Known(stream, uploaded), np.array(keys, dtype=object), np.full(len(keys), probability))
    for name, total in (("stream", sum(stream.values())), ("uploaded", sum(uploaded.values()))):
        if total:
            assert sum(row[name] for row in rows) == pytest.approx(1.0)
    for row in rows:
        if row["times"] is not None:
            assert row["times_low"] <= row["times"] + 1e-9
            assert row["times"] <= row["times_high"] + 1e-9
        assert row["holds"] is None or 0.0 <= row["stream"] < 1.0
        if row["weighted"] is not None:
            assert row["low"] <= row["weighted"] <= row["high"]


def test_with_nothing_seen_there_is_nothing_to_say(tmp_path):
    store = Store.open(tmp_path)
    snapshot = freeze(store, now_ms=NOW_MS)
    found = bias_of(store, snapshot.id, now_ms=NOW_MS)
    store.close()
    assert (found["samples"], found["accuracy"]["plain"]["value"], found["by"]["device"]) == (0, None, [])


def test_by_command(planted, capsys):
    _, toml, _, snapshot = planted
    assert main(["snapshot", "bias", snapshot.id[:10], "--json", str(toml)]) == 0
    assert json.loads(capsys.readouterr().out)["snapshot"] == snapshot.id
    assert main(["snapshot", "bias", snapshot.id[:10], "--days", "1", str(toml)]) == 0
    said = capsys.readouterr().out
    assert "8,000 samples were seen" in said
    assert "known shares lie in the intervals" in said


def test_a_detector_that_finds_nothing_is_not_taken_for_the_class_that_came_after_its_own(tmp_path):
    store = Store.open(tmp_path / "data")
    scenes.detector(tmp_path / "detector")  # of two classes: its third outcome is that it finds nothing
    add_artifact(store, tmp_path / "detector", weights=None, now_ms=NOW_MS)
    device = Planted("cam", skill=2.0, seed=3)
    device.see(2000)
    device.send(store)
    answer(store, device.truth)
    found = bias_of(store, freeze(store, now_ms=NOW_MS).id, now_ms=NOW_MS)
    store.close()
    rows = by(found, "class")
    assert set(rows) == {"bright", "dark", "nothing"}  # and not the class that the schema has as its third
    assert rows["nothing"]["stream"] == device.called.count(2) / 2000
    assert rows["nothing"]["samples"] > 0
    assert rows["nothing"]["labelled"] > 0
    assert sum(row["labelled"] for row in rows.values()) == pytest.approx(1.0)
