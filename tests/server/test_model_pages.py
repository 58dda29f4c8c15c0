"""Is what the pages draw of models and of erasures what is there?"""

from __future__ import annotations

import itertools
import shutil

import browser
import msgspec
import planted_models
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.govern.erase import erase
from server.govern.foreseen import foresee, lines
from server.govern.subject import Subject
from server.store import devices, executing, trail
from server.store.store import Store
from server.store.trail import Wanted
from server.teach.gates.portrait import portraits
from server.teach.gates.verdict import Gate
from server.web import branches, confusion, gate_rows
from server.web.fleet_table import FleetTable
from server.web.live import Pulse
from server.web.model_list import ModelList

pytestmark = pytest.mark.of_a_file  # it copies one

NOW_MS = 1_790_000_000_000


@pytest.fixture
def store(tmp_path):
    made = Store.open(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The folder of a store with versions; to be copied."""
    folder = tmp_path_factory.mktemp("planted")
    made = Store.open(folder / "data")
    planted_models.plant(made, folder, now_ms=NOW_MS)
    made.close()
    return folder / "data"


@pytest.fixture
def with_models(planted, tmp_path):
    made = Store.open(shutil.copytree(planted, tmp_path / "copy"))
    yield made
    made.close()


@st.composite
def histories(draw) -> tuple[dict[int, int], int]:
    """Versions, each from an earlier one or from none, and which of them is the champion."""
    count = draw(st.integers(1, 30))
    bases = {number: draw(st.integers(0, number - 1)) for number in range(1, count + 1)}
    return bases, draw(st.integers(1, count))


@given(histories())
def test_every_line_of_the_picture_joins_a_version_to_the_one_it_went_on_from(history) -> None:
    bases, champion = history
    rows = branches.rows(bases, champion)
    assert [row.number for row in rows] == sorted(bases, reverse=True)
    lane = {row.number: row.lane for row in rows}
    assert lane[champion] == 0
    for above, row in itertools.pairwise(rows):
        arrives = {*above.passing, *([above.lane] if above.down else [])}
        assert arrives == {*row.passing, *row.up}  # no line ends between two rows, and none begins
    assert (rows[0].passing, rows[0].up) == ((), ())
    assert not rows[-1].down
    assert all(lane[number] in row.up for row in rows for number in bases if bases[number] == row.number)
    trunk = champion
    while trunk := bases[trunk]:
        assert lane[trunk] == 0


def test_lanes_are_used_again() -> None:
    """Twenty versions that each were tried and left: one lane beside the trunk is enough."""
    bases = {1: 0} | {n: n - 2 if n % 2 else n - 1 for n in range(2, 41)}  # odd ones: the trunk; even ones: left
    assert max(row.lane for row in branches.rows(bases, 39)) == 1


@given(
    st.sampled_from(["least", "most", ""]),
    st.floats(-1, 1),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.sampled_from([-0.03, 0.0, 0.05]),
)
def test_an_interval_is_drawn_in_order_and_within_its_frame(bound, figure, down, up, limit) -> None:
    gate = Gate(
        name="stream",
        state="passed",
        figure=figure,
        interval=(figure - down, figure + up),
        limit=limit,
        n=9,
        bound=bound,
    )
    (row,) = gate_rows.of([msgspec.to_builtins(gate)]).whole
    drawn = row.drawn
    assert 0 <= drawn.low <= drawn.figure <= drawn.high <= gate_rows.WIDTH
    assert 0 <= drawn.limit <= gate_rows.WIDTH
    assert (drawn.low < drawn.limit) == (gate.interval[0] < limit) or abs(gate.interval[0] - limit) < 0.01
    if bound:
        assert drawn.limit in drawn.beyond


def test_a_gate_of_an_older_server_is_shown_without_a_side() -> None:
    kept = {"name": "stream", "state": "failed", "figure": -0.1, "interval": [-0.2, -0.05], "limit": 0.0, "n": 9}
    rows = gate_rows.of([kept, kept | {"name": "size/pi", "interval": None, "figure": 2e6, "limit": 1e6}])
    assert (rows.whole[0].drawn.beyond, rows.whole[0].limit) == (None, "limit +0.000")
    assert (rows.slices[0].figure, rows.slices[0].drawn, rows.counts) == ("2.0 MB", None, {"failed": 2})


def test_a_matrix_has_every_sample_once_and_says_what_is_confused() -> None:
    held, ours, _ = planted_models.answered(3, right=0.7, before=0.5)
    for origin, kept in portraits(held, ours).items():
        shown = confusion.of(msgspec.to_builtins(kept))
        rows = held.stream if origin == "stream" else ~held.stream
        assert shown.n == rows.sum() == sum(cell.n for line in shown.lines for cell in line.cells)
        assert all(abs(sum(cell.share for cell in line.cells) - 1.0) < 1e-9 for line in shown.lines)
        assert all((cell.heat > 0) == (cell.n > 0) for line in shown.lines for cell in line.cells)
        wrong = (rows & (ours.predicted != held.label)).sum()
        assert sum(one.n for one in shown.mistakes) == wrong
        assert shown.mistakes[0].n == max(one.n for one in shown.mistakes)


@pytest.mark.parametrize(
    ("kind", "names"), [("device", ("cam-1",)), ("sample", ("cam-1.main.1.3", "cam-2.main.1.8")), ("labeler", ("bob",))]
)
def test_what_is_foreseen_is_what_goes(with_models, kind, names) -> None:
    store = with_models
    with store.database.write() as connection:
        detail = {"where": "a disk"}
        with_bob = connection.exec_driver_sql("select snapshot_id from version where number = 5").scalar()
        trail.record(connection, "export", f"snapshot {with_bob}", why="", who="eve", detail=detail, now_ms=NOW_MS)
    subject = Subject(kind, names)
    with store.database.read() as connection:
        found, before = foresee(connection, subject), trail.last_id(connection)
    done = erase(store, subject, who="ada", why="asked", now_ms=NOW_MS)
    assert done.counts.get("sample", 0) == found.samples
    assert done.counts["label"] == found.labels > 0
    assert (done.learned, done.judged, set(done.ordered)) == (found.learned, found.judged, set(found.ordered))
    assert done.elsewhere == found.elsewhere
    assert len(found.elsewhere) == 1
    assert f"{found.labels} labels would go" in lines(found)[0]
    with store.database.read() as connection:
        assert trail.last_id(connection) == before + 1  # looking left no trace


def test_the_trail_is_found_by_who_what_subject_and_time_and_pages_do_not_shift(store) -> None:
    with store.database.write() as connection:
        for n in range(30):
            who, what = ("ada", "place") if n % 3 else ("bob", "revoke")
            trail.record(connection, what, f"device cam_{n}", why="", who=who, now_ms=NOW_MS + n)
    with store.database.read() as connection:
        first = trail.found(connection, Wanted(who="ada"), limit=8)
        second = trail.found(connection, Wanted(who="ada"), before=first[-1].id, limit=100)
        assert [entry.id for entry in (*first, *second)] == [n + 1 for n in range(29, -1, -1) if n % 3]
        assert len(trail.found(connection, Wanted(what="revoke"), limit=100)) == 10
        assert [entry.subject for entry in trail.found(connection, Wanted(subject="cam_7"), limit=9)] == [
            "device cam_7"
        ]
        assert trail.found(connection, Wanted(subject="cam%7"), limit=9) == []  # it is text, no pattern
        some = trail.found(connection, Wanted(since_ms=NOW_MS + 5, until_ms=NOW_MS + 8), limit=9)
        assert [entry.at_ms - NOW_MS for entry in some] == [7, 6, 5]
        assert trail.words(connection) == (["ada", "bob"], ["place", "revoke"])


def test_where_versions_run_is_counted_as_the_devices_say(store) -> None:
    browser.plant_devices(store, 500, now_ms=NOW_MS)
    found = FleetTable(store, Pulse(store), now_ms=lambda: NOW_MS).executing()
    with store.database.read() as connection:
        fleet = devices.devices(connection)
        for number in (3, 4):
            mine = [one for one in fleet if one.heartbeat.model.version == number]
            assert sum(place.devices for place in found[number]) == len(mine)
            assert sum(place.online for place in found[number]) == sum(one.online for one in mine)
            assert executing.names(connection, number) == [one.name for one in mine]
    beta = sum(place.devices for places in found.values() for place in places if place.channel == "beta")
    assert beta == sum(one.channel == "beta" for one in fleet)


def test_verdicts_are_read_once(with_models) -> None:
    known = ModelList(with_models, FleetTable(with_models, Pulse(with_models), now_ms=lambda: NOW_MS))
    first = known.listed()
    assert known.listed() == first
    assert [row.number for row in first.rows] == [5, 4, 3, 2, 1]
    assert first.rows[0].gates["passed"] >= 4
    assert [one.state for one in first.rounds] == ["rejected"]
