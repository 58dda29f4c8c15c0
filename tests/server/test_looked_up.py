"""What comes by the group is looked up in an index, also where the tables were counted when they were nearly empty."""

import pytest
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, message, uploads

from edge_agent.contract.wire import ModelState, OutboxState, encode
from server.collect.ingest import Ingest
from server.simulate import words
from server.store.store import Store

MODEL = ModelState(version=1, sha256="00", slot="steady")
OUTBOX = OutboxState(rows=0, bytes=0, put_total=0, acked_total=0)
SLICE_MS, FEW = 300_000, 10
GROWING = {"device", "sample", "stretch", "span", "beat"}  # with the fleet, or with what it sends


def group(names, beat, *, part=0):
    """What devices say at a beat: each a birth, a heartbeat and a sample. Of one slice of time, with its `part`."""
    at_ms, seq = NOW_MS + beat * SLICE_MS + part, 2 * beat + part
    told = {"read": 100 * seq, "uptime_s": 10.0 * seq, "at_ms": at_ms, "sent_bytes": 0}
    said = []
    for name in names:
        of = words.Self(name, "s", 1, 30.0)
        said.append(message(name, "birth", encode(words.birth(of, MODEL, OUTBOX, at_ms=at_ms)), at_ms=at_ms))
        said.append(message(name, "heartbeat", encode(words.heartbeat(of, MODEL, OUTBOX, **told)), at_ms=at_ms))
        said += uploads(name, seq)
    return said


@pytest.fixture
def store(tmp_path):
    made = Store.open(tmp_path)
    yield made
    made.close()


def plans(store, act):
    """Lines of the plans of the statements that are executed meanwhile, with each its statement."""
    run = {}

    def note(_connection, _cursor, statement, parameters, _context, executemany):
        run[statement] = parameters[0] if executemany else parameters

    sa.event.listen(store.database.engine, "before_cursor_execute", note)
    act()
    sa.event.remove(store.database.engine, "before_cursor_execute", note)
    asked = [(text, values) for text, values in run.items() if text.startswith(("SELECT", "UPDATE", "INSERT", "WITH"))]
    with store.database.read() as connection:
        for text, values in asked:
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all():
                yield row[-1], text


def test_no_table_is_read_through_for_a_group_whatever_was_counted_of_it(store):
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    names = [f"cam-{number}" for number in range(FEW)]
    for beat in (1, 2):
        ingest.take(group(names, beat))
    store.database.analyse()
    found = list(plans(store, lambda: [ingest.take(group(names, beat)) for beat in (3, 4)]))
    scanned = [(line, text) for line, text in found if line.split()[0] == "SCAN" and line.split()[1] in GROWING]
    assert not scanned
    searched = {line.split()[1] for line, _ in found if line.startswith("SEARCH")}
    assert searched >= GROWING


def test_each_is_looked_up_by_all_of_its_key(store):
    """Not by the device alone, with all that is known of its past."""
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    for beat in (1, 2, 3):
        ingest.take(group(["cam-1"], beat))
    lines = {line for line, _ in plans(store, lambda: ingest.take(group(["cam-1"], 3, part=1)))}
    for table, number in (("span", 3), ("beat", 3), ("device", 1), ("sample", 1)):
        keys = [line.count("=?") for line in lines if line.startswith(f"SEARCH {table} ")]
        assert keys
        assert set(keys) == {number}, lines
