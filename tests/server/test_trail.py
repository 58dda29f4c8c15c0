import pytest
import sqlalchemy as sa

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
