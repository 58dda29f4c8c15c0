"""Is text looked for and put in order in the same way, whatever keeps the catalogue?"""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from server.store import labels, trail
from server.store.schema import class_name, quarantine
from server.store.store import Store
from server.store.text import begins, holds

pytestmark = pytest.mark.catalogues

NAMES = ("a", "B", "b", "_", "a_b", "axb", "100%", "100x", "Z", "é", "é1", "zz", "猫", "𝄞", "\uffff", "")


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path)
    with store.database.write() as connection:
        labels.ensure_names(connection, NAMES)
    yield store
    store.close()


def named(store, where):
    with store.database.read() as connection:
        return set(connection.scalars(sa.select(class_name.c.name).where(where)))


def test_it_is_ordered_by_code_point(store):
    with store.database.read() as connection:
        assert list(connection.scalars(sa.select(class_name.c.name).order_by(class_name.c.name))) == sorted(NAMES)


@pytest.mark.parametrize("part", ["a", "b", "B", "_", "a_", "100%", "é", "𝄞", "\uffff", "", "no such"])
def test_what_begins_so_and_what_holds_it(store, part):
    assert named(store, begins(class_name.c.name, part)) == {name for name in NAMES if name.startswith(part)}
    assert named(store, holds(class_name.c.name, part)) == {name for name in NAMES if part in name}


def test_bytes_hold_bytes(store):
    row = {"device": "", "topic": "t", "received_at_ms": 1, "reason": "", "payload_bytes": 3}
    with store.database.write() as connection:
        for payload in (b"\0ab\xff", b"AB", b""):
            connection.execute(sa.insert(quarantine).values(row | {"payload": payload}))
    with store.database.read() as connection:
        query = sa.select(quarantine.c.payload).where(holds(quarantine.c.payload, b"b\xff"))
        assert [bytes(found) for found in connection.scalars(query)] == [b"\0ab\xff"]


def test_people_look_for_what_was_done_in_either_case(store):
    with store.database.write() as connection:
        for subject in ("user Ann", "user ann", "100%"):
            trail.record(connection, "user add", subject, why="", now_ms=1)
    with store.database.read() as connection:
        found = trail.found(connection, trail.Wanted(subject="ANN"), limit=9)
        assert [one.subject for one in found] == ["user ann", "user Ann"]
        assert [one.subject for one in trail.found(connection, trail.Wanted(subject="0%"), limit=9)] == ["100%"]
