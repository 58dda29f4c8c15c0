"""Is a trail that nobody touched whole, and one that somebody did found out?"""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.store import trail
from server.store.schema import trail as table
from server.store.store import Store


@pytest.fixture
def store(tmp_path):
    made = Store.open(tmp_path)
    with made.database.write() as connection:
        for n, what in enumerate(["publish", "override", "erase"]):
            trail.record(
                connection, what, f"version {n}", why="because", who="ada", detail={"b": n, "a": [1.5]}, now_ms=n
            )
    yield made
    made.close()


def verify(store):
    with store.database.read() as connection:
        return trail.verify(connection)


def spoil(store, statement):
    with store.database.write() as connection:
        connection.execute(statement)
    return verify(store)


def test_a_trail_that_nobody_touched_is_whole(store):
    assert verify(store) is None


@pytest.mark.parametrize(
    "change", [{"who": "eve"}, {"why": ""}, {"detail": {"b": 1, "a": [1.6]}}, {"at_ms": 7}, {"subject": "version 9"}]
)
def test_a_changed_entry_is_found(store, change):
    assert spoil(store, sa.update(table).where(table.c.id == 2).values(change)).id == 2


def test_an_entry_changed_with_its_hash_is_found_at_the_next(store):
    with store.database.read() as connection:
        second = trail.entries(connection)[1]._replace(who="eve")
    forged = second._replace(sha256=trail._hash(second))
    assert spoil(store, sa.update(table).where(table.c.id == 2).values(forged._asdict())).id == 3


def test_a_removed_entry_is_found(store):
    assert spoil(store, sa.delete(table).where(table.c.id == 2)).why == "entry 2 is missing before it"


def test_a_trail_cut_off_has_another_head(store):
    with store.database.read() as connection:
        head = trail.head(connection)
    assert spoil(store, sa.delete(table).where(table.c.id == 3)) is None
    with store.database.read() as connection:
        assert trail.head(connection) != head


def test_an_entry_is_kept_with_what_it_tells_of_or_not_at_all(store):
    def erase_and_fail():
        with store.database.write() as connection:
            trail.record(connection, "erase", "sample a", why="asked to", now_ms=9)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        erase_and_fail()
    with store.database.read() as connection:
        assert [entry.what for entry in trail.entries(connection)] == ["publish", "override", "erase"]
        assert [entry.id for entry in trail.entries(connection, subject="version 1")] == [2]
        assert [entry.id for entry in trail.entries(connection, limit=1)] == [3]


KEYS = st.one_of(st.text(max_size=4), st.integers(0, 12))
DETAIL = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, DETAIL, max_size=4), st.text(max_size=5))
def test_whatever_is_told_is_whole_when_it_is_read_again(store, detail, why):
    with store.database.write() as connection:
        trail.record(connection, "rule", "data */*", why=why, detail=detail, now_ms=9)
    assert verify(store) is None


def test_many_who_write_at_once_make_one_chain(store):
    other = Store.open(store.folder)  # as a command beside the server does

    def write(mine, who):
        for n in range(10):
            with mine.database.write() as connection:
                trail.record(connection, "rule", "data */*", why="", who=who, now_ms=n)

    threads = [threading.Thread(target=write, args=one) for one in ((store, "a"), (other, "b"), (store, "c"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify(other) is None
    with other.database.read() as connection:
        assert trail.last_id(connection) == 33
    other.close()


@pytest.mark.parametrize("change", [{"id": 0}, {"id": 9}])
def test_an_entry_that_is_moved_is_found(store, change):
    assert spoil(store, sa.update(table).where(table.c.id == 3).values(change)) is not None


def test_a_trail_made_anew_from_its_middle_does_not_hold_the_old_head(store):
    with store.database.read() as connection:
        head, first, *rest = trail.head(connection), *trail.entries(connection)
    with store.database.write() as connection:
        connection.execute(sa.delete(table).where(table.c.id > 1))
        for entry in rest:
            trail.record(connection, entry.what, entry.subject, why="another", who=entry.who, now_ms=entry.at_ms)
    assert verify(store) is None
    with store.database.read() as connection:
        assert (trail.holds(connection, head), trail.holds(connection, first.sha256)) == (False, True)
