"""What is asked, in which order, and which answer is in force?"""

from __future__ import annotations

import msgspec
import pytest
from device_words import FLEET, NOW_MS, SELECTION, frames, message
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plans, walked

from server.collect.ingest import Ingest
from server.store import labels, snapshots
from server.store.labels import CANNOT_TELL, Label
from server.store.store import Store

pytestmark = pytest.mark.catalogues


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path)
    yield store
    store.close()


def take(store, seq: int, reason: str = "informative", *, at_ms: int = NOW_MS) -> str:
    selection = msgspec.structs.replace(SELECTION, reason=reason)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message("cam-1", "sample", frame, at_ms=at_ms) for frame in frames("cam-1", seq, selection=selection)])
    return f"cam-1.main.1.{seq}"


def waiting(store, limit: int = 100) -> list[str]:
    with store.database.read() as connection:
        return [row.id for row in labels.waiting(connection, limit=limit)]


def answer(store, *answers: Label) -> None:
    with store.database.write() as connection:
        labels.add(connection, answers)


def test_honest_reasons_are_asked_first_then_by_arrival(store):
    late = take(store, 1, at_ms=NOW_MS + 9)
    early = take(store, 2, at_ms=NOW_MS + 1)
    drift = take(store, 3, "drift", at_ms=NOW_MS)
    explore = take(store, 4, "explore", at_ms=NOW_MS + 50)
    random = take(store, 5, "random", at_ms=NOW_MS + 40)
    assert waiting(store) == [random, explore, drift, early, late]
    assert waiting(store, limit=2) == [random, explore]
    with store.database.read() as connection:
        newest = [row.id for row in labels.waiting(connection, limit=3, newest=True)]
    assert newest == [explore, random, late]


def test_an_answered_sample_is_not_asked_again_and_the_latest_answer_holds(store):
    one, two, three = (take(store, seq) for seq in (1, 2, 3))
    answer(store, Label(one, 4, "ann", 1), Label(two, CANNOT_TELL, "ann", 1))
    answer(store, Label(one, 2, "bob", 0))
    assert waiting(store) == [three]
    with store.database.read() as connection:
        found = connection.execute(labels.in_force()).all()
        assert {row.sample_id: row.class_index for row in found} == {one: 2, two: CANNOT_TELL}
        assert labels.counts(connection) == (1, 1, 1, 0, 0)
        assert labels.last_id(connection) == 3


def test_an_empty_store_has_nothing(store):
    with store.database.read() as connection:
        assert labels.counts(connection) == (0, 0, 0, 0, 0)
        assert labels.names(connection) == ()
        assert labels.last_id(connection) == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefg"), max_size=5), max_size=5))
def test_the_schema_only_grows(tmp_path_factory, batches):
    store = Store.open(tmp_path_factory.mktemp("schema"))
    before: tuple[str, ...] = ()
    for batch in batches:
        with store.database.write() as connection:
            index = labels.ensure_names(connection, batch)
        with store.database.read() as connection:
            after = labels.names(connection)
        assert after[: len(before)] == before
        assert index == {name: i for i, name in enumerate(after)}
        assert set(after) == {*before, *batch}
        before = after
    store.close()


def test_what_the_tables_hold_is_counted_so_that_no_query_for_labels_walks_all_samples(store):
    every = [take(store, seq) for seq in range(60)]
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat"])
        labels.add(connection, [Label(every[0], 0, "ann", 1, kind="human")])

    def ask():
        with store.database.read() as connection:
            snapshots.count_new(connection, "")

    store.database.analyse()
    (plan,) = plans(store, ask)
    assert "sample" not in walked(plan), plan
    asks = "SELECT tablename FROM pg_stats" if store.database.shared else "SELECT DISTINCT tbl FROM sqlite_stat1"
    with store.database.read() as connection:
        counted = set(connection.exec_driver_sql(asks).scalars())
    assert {"sample", "label", "consensus"} <= counted
