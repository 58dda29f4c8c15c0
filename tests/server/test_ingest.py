import hashlib
import json
import random
import shutil
import zlib

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, answers, birth, event, frames, heartbeat, image, message, sample, uploads
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.task import Applies, Box, Said, Value
from edge_agent.contract.wire import (
    BODY_MAX_BYTES,
    JSON_MAX_BYTES,
    UP,
    Death,
    Fetch,
    LinkState,
    Receipt,
    encode,
    encode_frame,
    encode_sample,
    sample_frames,
)
from server.collect.inbound import Message
from server.collect.ingest import PARTS_EXPIRE_MS, Ingest
from server.collect.receipts import Answers
from server.errors import StoreError
from server.store import arrivals, devices, heard, samples, silence
from server.store.schema import event as event_table
from server.store.schema import part, quarantine
from server.store.schema import sample as sample_table
from server.store.spoken import Spoken
from server.store.store import Store


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A new store to copy: making its tables takes longer than most tests here."""
    folder = tmp_path_factory.mktemp("empty")
    Store.open(folder).close()
    return folder


@pytest.fixture
def store(tmp_path, empty):
    shutil.copytree(empty, tmp_path, dirs_exist_ok=True)
    store = Store.open(tmp_path)
    yield store
    store.close()


@pytest.fixture
def ingest(store):
    return Ingest(store, fleet=FLEET, offline_after_s=90.0)


def rows(store, table):
    with store.database.read() as connection:
        return connection.execute(sa.select(table)).all()


def device(store, name="cam-1"):
    with store.database.read() as connection:
        return next(found for found in devices.devices(connection) if found.name == name)


# --- samples ---


def test_a_sample_is_stored_as_it_was_sent(ingest, store):
    taken = ingest.take(uploads("cam-1", 7, boot=3))
    assert taken.receipts == [("cam-1", Receipt(accepted=("cam-1.main.3.7",)))]
    assert taken.samples_new == 1
    (row,) = rows(store, sample_table)
    assert (row.device, row.stream, row.boot, row.seq, row.origin) == ("cam-1", "main", 3, 7, "device")
    assert (row.captured_at_ms, row.received_at_ms, row.ref) == (NOW_MS - 5, NOW_MS, "row 7")
    assert (row.predicted, row.confidence, row.model_version) == (3, 0.5, 1)
    assert (row.reason, row.probability, row.utility, row.novelty) == ("informative", 0.25, 0.7, 1.0)
    assert (row.threshold, row.tokens, row.strategy) == (0.6, 9.0, "margin")
    assert (row.floor, row.split) == (0.01, "train")
    np.testing.assert_array_equal(samples.sample_array(store, row), image(7))


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (Said(boxes=(Box(1, 0.25, 0.0, 0.5, 1.0, 0.75),)), {"boxes": [[1, 0.25, 0.0, 0.5, 1.0, 0.75]]}),
        (Said(applies=(Applies(0, 0.25), Applies(3, 1.0))), {"applies": [[0, 0.25], [3, 1.0]]}),
        (Said(values=(Value(0, -2.5, 0.5),)), {"values": [[0, -2.5, 0.5]]}),
        (Said(), {}),  # a detector, of an image in which it finds nothing
        (None, None),
    ],
)
def test_what_a_model_said_of_a_sample_is_kept(ingest, store, said, kept):
    ingest.take(uploads("cam-1", 7, said=said))
    (row,) = rows(store, sample_table)
    assert row.said == kept


def test_repeated_and_reordered_messages_give_one_row_each(ingest, store):
    messages = [m for name in ("cam-1", "cam-2") for seq in range(15) for m in uploads(name, seq)] * 3
    random.Random(1).shuffle(messages)
    told = []
    for start in range(0, len(messages), 7):
        told += ingest.take(messages[start : start + 7]).receipts
    ids = {f"{name}.main.1.{seq}" for name in ("cam-1", "cam-2") for seq in range(15)}
    assert sorted(row.id for row in rows(store, sample_table)) == sorted(ids)
    accepted = [sample_id for _, receipt in told for sample_id in receipt.accepted]
    assert sorted(accepted) == sorted(ids)
    assert set(answers(told)) == ids
    assert all(sample_id.startswith(name + ".") for name, receipt in told for sample_id in receipt.accepted)
    assert rows(store, quarantine) == []


def test_what_was_checked_ahead_is_taken_as_what_was_not(ingest, store):
    group = [*uploads("cam-1", 1), *uploads("cam-1", 2), message("cam-1", "sample", b"no frame")]
    ahead = ingest.check(group)
    assert rows(store, sample_table) == []
    assert answers(ingest.take(ahead).receipts) == {"cam-1.main.1.1": "accepted", "cam-1.main.1.2": "accepted"}
    assert answers(ingest.take(group).receipts) == {"cam-1.main.1.1": "duplicate", "cam-1.main.1.2": "duplicate"}
    assert device(store).messages_bad == 2


def test_the_same_id_with_other_bytes_is_refused_not_called_a_duplicate(ingest, store):
    ingest.take(uploads("cam-1", 1))
    taken = ingest.take(uploads("cam-1", 1, data=image(99)))
    assert "taken by other bytes" in taken.receipts[0][1].refused["cam-1.main.1.1"]
    assert device(store).messages_bad == 1
    both_at_once = ingest.take(uploads("cam-1", 2) + uploads("cam-1", 2, data=image(98)))
    assert answers(both_at_once.receipts) == {"cam-1.main.1.2": "accepted"}  # one answer: the best
    assert (len(rows(store, sample_table)), len(store.blobs)) == (2, 2)


def test_the_same_bytes_of_two_samples_are_stored_once(ingest, store):
    ingest.take(uploads("cam-1", 1, data=image(5)) + uploads("cam-2", 1, data=image(5)))
    assert (len(rows(store, sample_table)), len(store.blobs)) == (2, 1)


def test_many_answers_are_told_in_messages_of_allowed_size():
    told = Answers()
    for number in range(100):
        told.refuse("cam", f"{'d' * 63}.{'s' * 63}.{number}.{10**30}", '\U0001f600"' * 500)
    receipts = told.receipts()
    assert len(receipts) == 3
    assert all(len(encode(receipt)) <= JSON_MAX_BYTES for _, receipt in receipts)


# --- samples in parts ---

LARGE = (3, 300, 301)  # random bytes do not shrink: three parts


def large(seq, seed=0, **how):
    return uploads("cam-1", seq, data=image(seed, LARGE), **how)


@given(st.data())
@settings(max_examples=8, deadline=None)
def test_parts_may_come_in_any_order_and_repeatedly(tmp_path_factory, data):
    store = Store.open(tmp_path_factory.mktemp("store"))
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    messages = large(1) + large(2, seed=1)
    order = data.draw(st.permutations(messages + data.draw(st.lists(st.sampled_from(messages), max_size=6))))
    told = []
    while order:
        size = data.draw(st.integers(1, len(order)))
        told += ingest.take(order[:size]).receipts
        order = order[size:]
    found = rows(store, sample_table)
    assert {row.id for row in found} == {"cam-1.main.1.1", "cam-1.main.1.2"}
    for row in found:
        np.testing.assert_array_equal(samples.sample_array(store, row), image(row.seq - 1, LARGE))
    assert sorted(id_ for _, receipt in told for id_ in receipt.accepted) == sorted(row.id for row in found)
    assert rows(store, part) == []
    store.close()


def test_nothing_is_told_of_a_sample_while_parts_are_missing(ingest, store):
    messages = large(1)
    assert len(messages) == 3
    assert ingest.take(messages[:2]).receipts == []
    assert ingest.take(messages[:2]).receipts == []
    assert len(rows(store, part)) == 2
    assert answers(ingest.take(messages[2:]).receipts) == {"cam-1.main.1.1": "accepted"}
    assert answers(ingest.take(messages[:1]).receipts) == {"cam-1.main.1.1": "duplicate"}
    assert rows(store, part) == []


def test_parts_of_different_bodies_never_mix(ingest, store):
    before, after = large(1, seed=1), large(1, seed=2)  # the device was wiped in between
    assert ingest.take(before[1:]).receipts == []
    assert answers(ingest.take(after).receipts) == {"cam-1.main.1.1": "accepted"}
    (row,) = rows(store, sample_table)
    np.testing.assert_array_equal(samples.sample_array(store, row), image(2, LARGE))
    assert rows(store, part) == []


def cut(seq, part_bytes):
    header, body = encode_sample(sample("cam-1", seq, data=image(seq, LARGE)))
    return [message("cam-1", "sample", frame) for frame in sample_frames(header, body, part_bytes=part_bytes)]


@given(st.data())
@settings(max_examples=8, deadline=None)
def test_a_body_that_is_cut_anew_becomes_whole_and_mixes_nothing(tmp_path_factory, data):
    """The link became slower, or faster, while it was on its way."""
    store = Store.open(tmp_path_factory.mktemp("store"))
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    before, after = (cut(1, data.draw(st.sampled_from([98_304, 90_000, 60_000, 50_000]))) for _ in range(2))
    told = ingest.take(data.draw(st.permutations(before))[1:]).receipts
    for one in data.draw(st.permutations(after)):
        told += ingest.take([one]).receipts
    assert [id_ for _, receipt in told for id_ in receipt.accepted] == ["cam-1.main.1.1"]
    (row,) = rows(store, sample_table)
    np.testing.assert_array_equal(samples.sample_array(store, row), image(1, LARGE))
    assert rows(store, part) == rows(store, quarantine) == []


def test_parts_that_never_become_whole_expire(ingest, store):
    ingest.take(large(1)[:2])
    ingest.sweep(NOW_MS + PARTS_EXPIRE_MS)
    assert len(rows(store, part)) == 2
    ingest.sweep(NOW_MS + PARTS_EXPIRE_MS + 1)
    assert rows(store, part) == []


def test_a_slow_sample_keeps_its_parts_while_more_of_them_come(ingest, store):
    for number, said in enumerate(large(1)):
        ingest.sweep(NOW_MS + number * PARTS_EXPIRE_MS)
        taken = ingest.take([said._replace(received_ms=NOW_MS + number * PARTS_EXPIRE_MS)])
    assert answers(taken.receipts) == {"cam-1.main.1.1": "accepted"}


def test_parts_that_are_sent_again_are_kept_as_long_as_new_ones(ingest, store):
    first, second, *_ = large(1)
    ingest.take([first, second])
    ingest.take([first._replace(received_ms=NOW_MS + PARTS_EXPIRE_MS)])  # a device that started anew in between
    ingest.sweep(NOW_MS + 2 * PARTS_EXPIRE_MS)
    assert len(rows(store, part)) == 2


def test_a_whole_that_is_not_what_its_header_says_is_refused(ingest, store):
    messages = large(1, body_sha256="0" * 64)
    assert ingest.take(messages[:2]).receipts == []
    assert answers(ingest.take(messages[2:]).receipts) == {"cam-1.main.1.1": "refused"}
    assert rows(store, part) == []
    assert device(store).messages_bad == 1


# --- garbage ---

BOMB = zlib.compress(bytes(30_000_000), 9)
DEEP = b'{"x":' * 20_000 + b"1" + b"}" * 20_000


def garbage():
    """(name, message, whether its sample can be refused by name)"""
    (good,) = frames("cam-1", 1)
    nan = np.full((4, 4), np.nan, np.float32)

    def bad(name, payload, named=False, kind="sample"):
        return pytest.param(message("cam-1", kind, payload), named, id=name)

    def changed(name, named=True, **changes):
        return bad(name, frames("cam-1", 1, **changes)[0], named)

    yield bad("empty", b"")
    yield bad("one byte", b"\0")
    yield bad("random", bytes(random.Random(0).randbytes(300)))
    yield bad("truncated header", good[:20])
    yield bad("truncated body", good[:-3], named=True)
    yield bad("header length lies", b"\xff\xff" + good[2:])
    yield bad("header is a list", encode_frame([1, 2], b""))
    yield bad("header lacks fields", encode_frame({"id": "cam-1.main.1.1"}, b""), named=True)
    yield bad("header of a long id that lacks fields", encode_frame({"id": "x" * 10_000}, b""))
    yield bad("body flipped", good[:-1] + bytes([good[-1] ^ 1]), named=True)
    yield bad("not finite", frames("cam-1", 1, data=nan)[0], named=True)
    yield bad("infinite", frames("cam-1", 1, data=np.array([1.0, np.inf]))[0], named=True)
    yield changed("of another device", id="cam-2.main.1.1")
    yield changed("no id", named=False, id="")
    yield changed("id of three", id="cam-1.main.1")
    yield changed("sequence too large", id=f"cam-1.main.1.{2**63}")
    yield changed("id far too long", named=False, id="x" * 10_000)
    yield changed("object dtype", dtype="O")
    yield changed("huge shape", shape=(2**40, 2**40))
    yield changed("empty shape", shape=(0, 4))
    yield changed("negative shape", shape=(-6, -6))
    yield changed("other shape", shape=(7, 7))
    yield changed("absurdly many axes", shape=(1,) * 64)
    yield changed("body_bytes lies", body_bytes=10**9)
    yield changed("negative body", body_bytes=-1)
    yield changed("label does not fit", label=2**62)
    yield changed("label negative", label=-1)
    yield changed("time does not fit", captured_at_ms=2**63)
    yield changed("confidence is no share", confidence=float("nan"))
    value, box = Value(0, 1.0), Box(1, 0.1, 0.1, 0.2, 0.2)
    yield changed("said of two tasks", said=Said(values=(value,), boxes=(box,)))
    yield changed("said what is not finite", said=Said(values=(Value(0, float("inf")),)))
    yield changed("said of a class too many", said=Said(boxes=(Box(60_000, 0.1, 0.1, 0.2, 0.2),)))
    yield changed("said of a target twice", said=Said(values=(value, Value(0, 2.0))))
    yield changed("said too much", said=Said(boxes=(box,) * 301))
    yield changed("said a box without an area", said={"boxes": [[0, 0.5, 0.5, 0.5, 0.9, 0.3]]})
    yield changed("zero probability", selection=msgspec.structs.replace(sample("cam-1", 1).selection, probability=0.0))
    yield changed(
        "nan probability", selection=msgspec.structs.replace(sample("cam-1", 1).selection, probability=np.nan)
    )
    header = {"body_bytes": len(BOMB), "body_sha256": hashlib.sha256(BOMB).hexdigest(), "encoding": "zlib"}
    head = msgspec.msgpack.decode(good[2 : 2 + int.from_bytes(good[:2], "big")])
    body = good[2 + int.from_bytes(good[:2], "big") :]
    yield bad("too many parts", encode_frame(head | {"parts": 10**9}, body), named=True)
    yield bad("part beyond", encode_frame(head | {"part": 5}, body), named=True)
    yield bad("zlib bomb", encode_frame(head | header, BOMB), named=True)
    yield bad(
        "part of wrong length", encode_frame(head | {"body_bytes": 2 * BODY_MAX_BYTES, "parts": 2}, b"x"), named=True
    )
    for kind in UP[:2] + UP[3:]:
        yield bad(f"{kind} of nothing", b"", kind=kind)
        yield bad(f"{kind} of deep nesting", DEEP, kind=kind)
        yield bad(f"{kind} not UTF-8", b'{"session": "\xff\xfe"}', kind=kind)
        yield bad(f"{kind} without fields", b"{}", kind=kind)
        yield bad(f"{kind} too large", b" " * (JSON_MAX_BYTES + 1), kind=kind)
    born = json.loads(encode(birth("a")))
    for name, changes in {"session": {"session": "s" * 65}, "boot": {"boot": 2**63}, "negative": {"boot": -1}}.items():
        yield bad(f"birth, {name}", json.dumps(born | changes).encode(), kind="birth")
    counts = {
        "more bins than there are": {"utility_histogram": (1,) * 25, "confidence_sums": (0.5,) * 25},
        "bins without their sums": {"utility_histogram": (1,) * 20, "confidence_sums": (0.5,) * 19},
        "a bin below 0": {"utility_histogram": (1, -1), "confidence_sums": (0.5, 0.5)},
        "a bin that does not fit": {"utility_histogram": (2**63,), "confidence_sums": (0.5,)},
        "a sum below 0": {"utility_histogram": (1,), "confidence_sums": (-0.5,)},
        "endless signals": {"signals": (1,) * 1000},
        "endless classes": {"classes": (1,) * 11_000},
    }
    beat = heartbeat("a")
    for name, changes in counts.items():
        said = msgspec.structs.replace(beat.counts, stream="main", through_seq=9, **changes)
        yield bad(f"heartbeat, {name}", encode(msgspec.structs.replace(beat, counts=said)), kind="heartbeat")
        yield bad(f"heartbeat, {name} in a cut", encode(msgspec.structs.replace(beat, cuts=(said,))), kind="heartbeat")
    yield bad("event number does not fit", encode(msgspec.structs.replace(event(1), n=2**31)), kind="event")


@pytest.mark.parametrize(("rubbish", "named"), list(garbage()))
def test_garbage_is_counted_and_set_aside_and_others_do_not_notice(ingest, store, rubbish, named):
    taken = ingest.take([*uploads("cam-3", 1), rubbish, *uploads("cam-3", 2)])
    told = answers(taken.receipts)
    assert told.pop("cam-3.main.1.1") == told.pop("cam-3.main.1.2") == "accepted"
    assert list(told.values()) == (["refused"] if named else [])
    assert all(name == "cam-1" for name, receipt in taken.receipts if receipt.refused)
    assert device(store, "cam-1").messages_bad == 1
    assert device(store, "cam-3").messages_bad == 0
    (kept,) = rows(store, quarantine)
    assert (kept.device, kept.topic, kept.payload_bytes) == ("cam-1", rubbish.topic, len(rubbish.payload))
    assert kept.payload == rubbish.payload[:4096]
    assert kept.reason
    assert len(rows(store, sample_table)) == 2


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "\0" * 500,
        "winnow/1/test/cam-1/up/other",
        "winnow/1/test/cam-1/up/sample/more",
        "winnow/1/test/cam-1/down/receipt",
        "winnow/1/test/c m/up/sample",
        "winnow/1/other/cam-1/up/sample",
        "winnow/2/test/cam-1/up/sample",
    ],
)
def test_a_message_by_a_wrong_topic_is_set_aside_and_makes_no_device(ingest, store, topic):
    taken = ingest.take([Message(topic, frames("cam-1", 1)[0], NOW_MS)])
    assert taken.receipts == []
    (kept,) = rows(store, quarantine)
    assert (kept.device, kept.topic) == ("", topic[:200].replace("\0", "\ufffd"))
    with store.database.read() as connection:
        assert devices.devices(connection) == []


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    store = Store.open(tmp_path_factory.mktemp("store"))
    yield Ingest(store, fleet=FLEET, offline_after_s=90.0), store
    store.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def almost_right(draw):
    """A JSON message or a frame in which some fields have other values."""
    kind = draw(st.sampled_from(UP))
    right = {"birth": birth("a"), "heartbeat": heartbeat("a"), "event": event(1), "death": Death(session="a")}
    right["fetch"] = Fetch(sha256="ab", blocks=(1,))
    if kind == "sample":
        payload = frames("cam-1", 1)[0]
        size = 2 + int.from_bytes(payload[:2], "big")
        header = msgspec.msgpack.decode(payload[2:size])
        fields = draw(
            st.dictionaries(
                st.sampled_from(sorted(header)), st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=300)
            )
        )
        return message("cam-1", kind, encode_frame(header | fields, payload[size:]))
    fields = json.loads(encode(right[kind]))
    fields |= draw(st.dictionaries(st.sampled_from(sorted(fields)), json_values))
    return message("cam-1", kind, json.dumps(fields).encode())


any_message = st.builds(Message, st.text(max_size=60), st.binary(max_size=200), st.just(NOW_MS))
any_payload = st.builds(
    lambda kind, payload: message("cam-1", kind, payload), st.sampled_from(UP), st.binary(max_size=200)
)


@given(st.lists(any_message | any_payload | almost_right(), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_nothing_that_comes_can_raise(lasting, batch):
    ingest, store = lasting
    ingest.take(batch)
    with store.database.read() as connection:
        devices.devices(connection)  # what was stored can be read


# --- devices ---


def test_birth_heartbeat_event_and_fetch_are_recorded_and_told(ingest, store):
    fetch = Fetch(sha256="ab", blocks=(0, 1))
    said = {
        "birth": birth("s1", boot=4),
        "heartbeat": heartbeat("s1", boot=4),
        "event": event(1, boot=4),
        "fetch": fetch,
    }
    batch = [message("cam-1", kind, encode(word)) for kind, word in said.items()]
    taken = ingest.take(batch)
    assert taken.fetches == [("cam-1", fetch)]
    with store.database.read() as connection:
        assert arrivals.waiting(connection) == [arrivals.Arrival("cam-1", "s1", NOW_MS)]
    found = device(store)
    assert (found.online, found.session, found.boot) == (True, "s1", 4)
    assert (found.birth, found.heartbeat) == (birth("s1", boot=4), heartbeat("s1", boot=4))
    assert (found.first_seen_ms, found.last_seen_ms) == (NOW_MS, NOW_MS)
    ingest.take(batch)
    (kept,) = rows(store, event_table)
    assert (kept.kind, kept.text, kept.detail) == ("alarm", "the lens is dirty", {"score": 3.5})


def test_a_will_of_an_old_session_changes_nothing(ingest, store):
    ingest.take([message("cam-1", "birth", encode(birth("old")))])
    ingest.take([message("cam-1", "birth", encode(birth("new")))])
    ingest.take([message("cam-1", "death", encode(Death(session="old")), at_ms=NOW_MS + 99)])
    assert device(store).online
    assert device(store).last_seen_ms == NOW_MS
    ingest.take([message("cam-1", "death", encode(Death(session="new")))])
    assert not device(store).online
    ingest.take([message("cam-1", "birth", encode(birth("newer")))])
    assert device(store).online


def test_words_of_one_group_count_in_order(ingest, store):
    words = [("birth", birth("a")), ("death", Death(session="a")), ("birth", birth("b")), ("death", Death(session="a"))]
    ingest.take([message("cam-1", kind, encode(word)) for kind, word in words])
    assert (device(store).online, device(store).session) == (True, "b")


def test_the_will_of_a_device_never_seen_makes_none(ingest, store):
    ingest.take([message("ghost", "death", encode(Death(session="a")))])
    with store.database.read() as connection:
        assert devices.devices(connection) == []


def test_silence_makes_offline_and_a_sample_online_again(ingest, store):
    ingest.take([message("cam-1", "birth", encode(birth("a")))])
    assert ingest.sweep(NOW_MS + 90_000) == []
    assert ingest.sweep(NOW_MS + 90_001) == ["cam-1"]
    assert not device(store).online
    ingest.take([message("cam-1", "sample", frames("cam-1", 1)[0], at_ms=NOW_MS + 95_000)])
    assert device(store).online


def test_a_device_that_speaks_seldom_is_not_taken_for_dead(ingest, store):
    """In quiet hours it says how long its next heartbeat may take; three of those may be missed."""
    link = LinkState(sent_bytes=0, received_bytes=0, heartbeat_s=300.0)
    beat = msgspec.structs.replace(heartbeat("a"), link=link)
    ingest.take([message("cam-1", "birth", encode(birth("a"))), message("cam-1", "heartbeat", encode(beat))])
    assert ingest.sweep(NOW_MS + 900_000) == []
    assert ingest.sweep(NOW_MS + 900_001) == ["cam-1"]
    slow = msgspec.structs.replace(birth("b"), interval_s=600.0)
    ingest.take([message("cam-2", "birth", encode(slow))])
    assert ingest.sweep(NOW_MS + 1_800_000) == []
    assert ingest.sweep(NOW_MS + 1_800_001) == ["cam-2"]


@pytest.mark.parametrize("beat_s", [1e308, 1.1e7, -1.0])
def test_a_next_heartbeat_in_a_thousand_years_is_set_aside(ingest, store, beat_s):
    link = LinkState(sent_bytes=0, received_bytes=0, heartbeat_s=beat_s)
    ingest.take([message("cam-1", "birth", encode(msgspec.structs.replace(birth("a"), interval_s=beat_s)))])
    ingest.take([message("cam-1", "heartbeat", encode(msgspec.structs.replace(heartbeat("a"), link=link)))])
    assert ["s to the next heartbeat, expected 0..1e+07" in row.reason for row in rows(store, quarantine)] == [True] * 2
    assert (device(store).birth, device(store).heartbeat) == (None, None)


def test_one_that_is_stored_keeps_nobody_else_online(ingest, store):
    said = msgspec.structs.replace(birth("a"), interval_s=1e308)
    ingest.take([message(name, "birth", encode(birth("a"))) for name in ("cam-1", "cam-2")])
    with store.database.write() as connection:
        heard.record_births(connection, [Spoken("cam-1", said, NOW_MS)])
    assert ingest.sweep(NOW_MS + 90_001) == ["cam-2"]
    assert ingest.sweep(NOW_MS + 3 * 10**10) == []
    assert ingest.sweep(NOW_MS + 3 * 10**10 + 1) == ["cam-1"]


@settings(max_examples=15)
@given(
    heard=st.lists(st.tuples(st.integers(0, 120), st.sampled_from(["", "a", "b", "slow"])), max_size=25),
    run=st.integers(0, 10**9),
)
def test_not_to_ask_before_somebody_may_be_silent_changes_nothing(lasting, heard, run):
    """Held against a server that asks every time, as one that was started anew does."""
    store, now_ms = lasting[1], NOW_MS
    patient = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    with store.database.write() as connection:
        silence.mark_offline(connection, now_ms=NOW_MS + 10**12, after_ms=0)
    for gap_s, who in heard:
        now_ms += 1000 * gap_s
        found = patient.sweep(now_ms)
        with store.database.write() as connection:
            assert silence.mark_offline(connection, now_ms=now_ms, after_ms=90_000).names == []  # it left nobody out
        assert all(name.endswith(f"-{run}") for name in found)
        if who:
            said = msgspec.structs.replace(birth("a"), interval_s=60.0 if who == "slow" else 30.0)
            patient.take([message(f"{who}-{run}", "birth", encode(said), at_ms=now_ms)])


# --- the store fails ---


@pytest.mark.of_a_file
def test_a_group_that_could_not_be_stored_is_taken_again_as_a_whole(ingest, store):
    with store.database.write() as connection:
        full = "CREATE TRIGGER full BEFORE INSERT ON event BEGIN SELECT RAISE(ABORT, 'injected'); END"
        connection.exec_driver_sql(full)
    batch = [
        *uploads("cam-1", 1),
        *large(2),
        message("cam-1", "event", encode(event(1))),
        message("cam-1", "event", b"x"),
    ]
    with pytest.raises(sa.exc.IntegrityError, match="injected"):
        ingest.take(batch)
    assert rows(store, sample_table) == rows(store, quarantine) == []
    with store.database.write() as connection:
        connection.exec_driver_sql("DROP TRIGGER full")
    told = answers(ingest.take(batch).receipts)
    assert told == {"cam-1.main.1.1": "accepted", "cam-1.main.1.2": "accepted"}
    assert len(rows(store, event_table)) == len(rows(store, quarantine)) == device(store).messages_bad == 1


@pytest.mark.of_a_file
def test_a_full_disk_is_a_store_error(ingest, store):
    with store.database.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")  # of the connection that the pool hands out again
    batch = [m for seq in range(200) for m in uploads("cam-1", seq)]
    with pytest.raises(StoreError, match=r"catalogue\.db: database or disk is full"):
        ingest.take(batch)


# --- what no text in PostgreSQL may hold ---


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("event", encode(msgspec.structs.replace(event(1), text="the lens\0is dirty"))),
        ("event", encode(msgspec.structs.replace(event(1), detail={"where": "\\\0"}))),
        ("birth", encode(msgspec.structs.replace(birth("a"), machine="m\0"))),
        ("heartbeat", encode(msgspec.structs.replace(heartbeat("a"), session="a\0"))),
        ("sample", frames("cam-1", 1, ref="row\0")[0]),
    ],
)
def test_a_text_with_the_character_nul_is_set_aside(ingest, store, kind, payload):
    taken = ingest.take([message("cam-1", kind, payload)])
    (row,) = rows(store, quarantine)
    assert "a text holds the character NUL" in row.reason
    assert set(answers(taken.receipts).values()) == ({"refused"} if kind == "sample" else set())
    assert rows(store, event_table) == []


def test_what_only_looks_like_it_is_taken(ingest, store):
    ingest.take([message("cam-1", "event", encode(msgspec.structs.replace(event(1), text="a path: C:\\u0000")))])
    assert [row.text for row in rows(store, event_table)] == ["a path: C:\\u0000"]
    assert rows(store, quarantine) == []


def test_a_reason_that_quotes_it_is_kept_without(ingest, store):
    ingest.take([message("cam-1", "sample", frames("cam-1", 1, id="cam-1.main.1.\0")[0])])
    (row,) = rows(store, quarantine)
    assert "\0" not in row.reason


@pytest.mark.parametrize("kind", ["birth", "heartbeat", "event"])
def test_a_number_that_no_column_has_room_for_is_set_aside(ingest, store, kind):
    said = {
        "birth": msgspec.structs.replace(birth("a"), outbox=msgspec.structs.replace(birth("a").outbox, bytes=10**400)),
        "heartbeat": msgspec.structs.replace(heartbeat("a"), rss_bytes=10**400),
        "event": msgspec.structs.replace(event(1), detail={"n": 2**63}),
    }
    ingest.take([message("cam-1", kind, json.dumps(msgspec.to_builtins(said[kind], str_keys=True)).encode())])
    assert ["a whole number does not fit 64 bits" in row.reason for row in rows(store, quarantine)] == [True]
    assert device(store).messages_bad == 1


def test_the_largest_number_is_taken(ingest, store):
    largest = msgspec.structs.replace(event(1), detail={"n": 2**63 - 1, "least": -(2**63)})
    ingest.take([message("cam-1", "event", encode(largest))])
    assert [row.detail for row in rows(store, event_table)] == [{"n": 2**63 - 1, "least": -(2**63)}]


def test_a_version_that_no_version_can_be_is_set_aside(ingest, store):
    model = msgspec.structs.replace(birth("a").model, version=2**31)
    ingest.take([message("cam-1", "birth", encode(msgspec.structs.replace(birth("a"), model=model)))])
    (row,) = rows(store, quarantine)
    assert "model.version 2147483648, expected 0..2147483647" in row.reason
