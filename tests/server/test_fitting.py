"""Is a text too long for its column the same error over every engine, whoever wrote it?"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from catalogue import fill
from device_words import FLEET, NOW_MS, answers, birth, event, frames, heartbeat, message

from edge_agent.contract.limits import ACQUISITION_MAX_CHARS, REF_MAX_CHARS, STRATEGY_MAX_CHARS
from edge_agent.contract.wire import Death, SampleHeader, decode_frame, encode_frame
from server.collect.ingest import Ingest
from server.errors import StoreError
from server.label.answer import Reply
from server.label.queue import Queue, Rules
from server.store import labels, trail
from server.store.schema import metadata, quarantine, sample
from server.store.store import Store

pytestmark = pytest.mark.catalogues

BOUNDED = [
    column
    for table in metadata.sorted_tables
    for column in table.c
    if isinstance(column.type, sa.String) and column.type.length is not None
]
REFERRED_TO = {key.column for table in metadata.sorted_tables for key in table.foreign_keys}
LONG = 5000


@pytest.fixture
def store(tmp_path):
    made = Store.open(tmp_path)
    yield made
    made.close()


def test_a_text_that_is_too_long_for_any_column_is_refused_by_its_name_and_nothing_is_written(store):
    with store.database.write() as connection:
        fill(connection, 1)
    for column in BOUNDED:
        most = column.type.length
        for text, said in (
            ("x" * (most + 1), f"{column}: {most + 1} characters, expected {most}"),
            ("a\0", str(column)),
        ):
            with pytest.raises(StoreError, match=said), store.database.write() as connection:
                connection.execute(sa.update(column.table).values({column.name: text}))
    with store.database.read() as connection:
        for column in BOUNDED:
            assert "x" * (column.type.length + 1) not in connection.scalars(sa.select(column)).all()


def test_a_text_that_just_fits_is_kept(store):
    with store.database.write() as connection:
        fill(connection, 1)
        for column in BOUNDED:
            if not column.foreign_keys and not any(
                column is key.column for t in metadata.tables.values() for key in t.foreign_keys
            ):
                connection.execute(sa.update(column.table).values({column.name: "é" * column.type.length}))
                assert connection.scalar(sa.select(column)) == "é" * column.type.length


def test_many_rows_are_looked_at_each(store):
    rows = [{"index": n, "name": name} for n, name in enumerate(("cat", "d" * 201))]
    said = "class_name.name: 201 characters, expected 200 at most: 'dddd"
    with pytest.raises(StoreError, match=said), store.database.write() as connection:
        connection.execute(sa.insert(metadata.tables["class_name"]), rows)


def test_a_long_name_of_somebody_at_the_shell_is_refused(store):
    with pytest.raises(StoreError, match="trail.who: 300 characters"), store.database.write() as connection:
        trail.record(connection, "train", "run 1", why="", who="w" * 300, now_ms=1)


# --- what devices say ---


def said_of_a_sample(**changes):
    """The frames of a sample, with other words in its header."""
    header, body = decode_frame(SampleHeader, frames("cam-1", 1)[0])
    chosen = {key: changes.pop(key) for key in ("strategy", "acquisition") if key in changes}
    header = msgspec.structs.replace(header, selection=msgspec.structs.replace(header.selection, **chosen), **changes)
    return encode_frame(header, body)


@pytest.mark.parametrize(
    ("word", "most"),
    [("ref", REF_MAX_CHARS), ("strategy", STRATEGY_MAX_CHARS), ("acquisition", ACQUISITION_MAX_CHARS)],
)
def test_words_of_a_sample_that_are_too_long_are_refused_and_those_that_fit_are_stored(store, word, most):
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    column = sample.c[word]
    assert column.type.length == most
    taken = ingest.take([message("cam-1", "sample", said_of_a_sample(**{word: "x" * (most + 1)}))])
    assert answers(taken.receipts) == {"cam-1.main.1.1": "refused"}
    with store.database.read() as connection:
        assert f"{word} of {most + 1} characters, expected {most} at most" in connection.scalar(
            sa.select(quarantine.c.reason)
        )
    taken = ingest.take([message("cam-1", "sample", said_of_a_sample(**{word: "é" * most}))])
    assert answers(taken.receipts) == {"cam-1.main.1.1": "accepted"}
    with store.database.read() as connection:
        assert connection.scalar(sa.select(column)) == "é" * most


def stretched(word):
    """The same message with each of its texts, one after the other, much longer than any column."""
    plain = msgspec.to_builtins(word)

    def each(value):
        if isinstance(value, str):
            yield "x" * LONG
        elif isinstance(value, dict):
            for key, one in value.items():
                yield from ({**value, key: other} for other in each(one))
        elif isinstance(value, list | tuple):
            for place, one in enumerate(value):
                yield from ([*value[:place], other, *value[place + 1 :]] for other in each(one))

    return [msgspec.json.encode(one) for one in each(plain)]


WORDS = {"birth": birth("s"), "heartbeat": heartbeat("s"), "event": event(1), "death": Death(session="s")}


@pytest.mark.parametrize("kind", WORDS)
def test_no_text_that_a_device_says_overruns_a_column(store, kind):
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    messages = [message("cam-1", kind, payload) for payload in stretched(WORDS[kind])]
    assert messages
    for one in messages:
        ingest.take([one])
    overrun = []
    with store.database.read() as connection:
        for column in BOUNDED:
            longest = connection.scalar(sa.select(sa.func.max(sa.func.length(column)))) or 0
            overrun += [str(column)] if longest > column.type.length else []
    assert overrun == []


# --- what people say ---


def test_an_answer_whose_key_has_no_room_counts_once(store):
    ids = ["cam-1.main.1.1"]
    Ingest(store, fleet=FLEET, offline_after_s=90.0).take([message("cam-1", "sample", frames("cam-1", 1)[0])])
    queue = Queue(store, Rules(), now_ms=lambda: NOW_MS, rng=np.random.default_rng(0))
    key = f"{'d' * 63}.{'s' * 63}.1.1:{'l' * 100}:{NOW_MS}"
    for _ in range(2):
        queue.answers("ann", [Reply(ids[0], "cat", 1.0, key)], new_class=True)
    with store.database.read() as connection:
        assert [row.key for row in labels.of_sample(connection, ids[0])] == [labels.key_of(key)]
