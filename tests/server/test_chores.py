"""Is what pages ask for done once, begun again after a kill, and gone when something is erased?"""

from __future__ import annotations

import time

import numpy as np
import pytest
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, uploads

from server.collect.ingest import Ingest
from server.govern.erase import erase
from server.govern.foreseen import carried_away
from server.govern.subject import Subject
from server.store import chores, embeddings, labels, places, trail
from server.store.embeddings import Embedding
from server.store.labels import Label
from server.store.places import Place
from server.store.schema import chore
from server.store.store import Store
from server.teach.snapshot import freeze
from server.web.chore import do, main
from server.web.chores import TICK_S, Chores

ORDER = {"form": "csv", "share": False}


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([one for seq in range(12) for one in uploads("cam-1", seq)])
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat", "dog"])
        labels.add(connection, [Label(f"cam-1.main.1.{seq}", seq % 2, "ann", 1) for seq in range(12)])
    yield store
    store.close()


def ask(store, **order: object) -> int:
    with store.database.write() as connection:
        return chores.ask(connection, "export", ORDER | order, who="ann", why="a test", now_ms=NOW_MS)


def state(store, number: int) -> chores.Chore:
    with store.database.read() as connection:
        return chores.get(connection, number)


def begun(store, **order: object) -> int:
    number = ask(store, **order)
    with store.database.write() as connection:
        chores.begin(connection, number)
    return number


def ended(store, number: int) -> chores.Chore:
    deadline = time.monotonic() + 60
    while (found := state(store, number)).state in chores.OPEN and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def test_what_is_asked_for_twice_is_one_thing_until_it_is_done(store):
    one, other = ask(store, snapshot="a"), ask(store, snapshot="b")
    assert (one, other) == (ask(store, snapshot="a"), ask(store, snapshot="b"))
    assert one != other
    with store.database.write() as connection:
        assert chores.following(connection).id == one
        chores.begin(connection, one)
        assert chores.finish(connection, one, {"bytes": 3}, now_ms=1)
        assert not chores.fail(connection, one, "late", now_ms=2)
        assert chores.following(connection).id == other
    assert ask(store, snapshot="a") not in (one, other)


def test_an_export_is_made_by_a_process_of_its_own_and_kept_for_a_day(store, tmp_path):
    frozen = freeze(store, now_ms=NOW_MS)
    clock = [NOW_MS]
    number = begun(store, snapshot=frozen.id)  # by a server that was killed at it
    working = Chores(store, now_ms=lambda: clock[0])
    working.start()
    done = ended(store, number)
    assert (done.state, done.result["records"]) == ("done", {"train": 12})
    assert chores.archive_of(store, number).stat().st_size == done.result["bytes"]
    assert not chores.folder_of(store, number).exists()
    clock[0] = max(NOW_MS, done.ended_at_ms) + 86_400_001
    deadline = time.monotonic() + 20
    while chores.archive_of(store, number).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    working.stop()
    assert not chores.archive_of(store, number).exists()
    assert state(store, number).state == "gone"


def test_a_map_without_a_champion_says_what_is_missing(store, tmp_path):
    with store.database.write() as connection:
        number = chores.ask(connection, "map", {"version": 1}, who="ann", why="a look", now_ms=NOW_MS)
        chores.begin(connection, number)
    assert main(["--data-dir", str(tmp_path), "--chore", str(number)]) == 0
    assert "there is no champion" in state(store, number).error


def test_a_copy_that_nobody_has_fetched_is_not_elsewhere(store, tmp_path):
    made = freeze(store, now_ms=NOW_MS)
    do(store, begun(store, snapshot=made.id))
    with store.database.write() as connection:
        assert carried_away(connection, [made.id]) == ()
        trail.record(connection, "export", f"snapshot {made.id}", why="fetched", who="eve", now_ms=NOW_MS)
        assert carried_away(connection, [made.id]) == (f"export of snapshot {made.id[:12]} by eve (audit entry 3)",)


def test_an_erasure_takes_copies_and_points_with_it(store):
    frozen = freeze(store, now_ms=NOW_MS)
    done, at_it = begun(store, snapshot=frozen.id), begun(store, snapshot=frozen.id, form="parquet")
    do(store, done)
    chores.folder_of(store, at_it).mkdir()
    with store.database.write() as connection:
        places.put(connection, [Place(f"cam-1.main.1.{seq}", 1, 0.5, 0.5) for seq in (3, 4, 99)])
    erase(store, Subject("sample", ("cam-1.main.1.3",)), who="ann", why="asked", now_ms=NOW_MS)
    assert [state(store, number).state for number in (done, at_it)] == ["gone", "gone"]
    assert not chores.archive_of(store, done).parent.exists()
    with store.database.read() as connection:
        assert [one.sample_id for one in places.every(connection)] == ["cam-1.main.1.4"]


def test_what_was_erased_while_it_was_copied_is_not_left_behind(store):
    frozen = freeze(store, now_ms=NOW_MS)
    number = begun(store, snapshot=frozen.id)
    with store.database.write() as connection:
        connection.execute(sa.update(chore).values(state="gone"))
    do(store, number)
    assert not chores.archive_of(store, number).exists()


def test_of_what_could_not_be_done_nothing_is_left(store, tmp_path):
    number = ask(store, snapshot="0" * 64)
    archive = chores.archive_of(store, number)
    archive.parent.mkdir()
    left = (archive, chores.beside(archive))  # as a child leaves them that is ended between two steps
    for path in left:
        path.write_bytes(b"of somebody who is to be forgotten")
    working = Chores(store, now_ms=lambda: NOW_MS)
    working.start()
    assert ended(store, number).state == "failed"
    deadline = time.monotonic() + 20
    while any(path.exists() for path in left) and time.monotonic() < deadline:
        time.sleep(0.05)
    working.stop()
    assert not any(archive.parent.iterdir())


def test_what_the_champion_cannot_see_does_not_have_the_map_drawn_again_and_again(store):
    half = np.zeros(4, np.float16)
    with store.database.write() as connection:
        seen = [Embedding(f"cam-1.main.1.{seq}", 1, half, half) for seq in range(4)]
        unseen = [Embedding(f"cam-1.main.1.{seq}", 1, None, None) for seq in range(4, 12)]
        embeddings.put(connection, [*seen, *unseen])
        assert places.embedded(connection, 1) == 4


@pytest.mark.of_a_file  # which a folder takes the place of
def test_while_the_catalogue_is_away_it_is_said_once(store, caplog):
    chores_of = Chores(store, now_ms=lambda: NOW_MS)
    chores_of.start()
    path = store.folder / "catalogue.db"
    store.database.engine.dispose()
    path.rename(path.with_suffix(".away"))
    path.mkdir()
    time.sleep(4 * TICK_S)
    path.rmdir()
    path.with_suffix(".away").rename(path)
    chores_of.stop()
    (said,) = [one for one in caplog.records if one.name == "server.web.chores"]
    assert "unable to open database file" in said.getMessage()
    assert not said.exc_info
