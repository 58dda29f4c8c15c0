"""Which of several answers is in force?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import sqlalchemy as sa
from device_words import FLEET, uploads
from hypothesis import given
from hypothesis import strategies as st

from server.collect.ingest import Ingest
from server.store import consensus, labels, questions
from server.store.consensus import CANNOT_TELL, FIRST, NONE_OF_THESE, SECOND_LOOK, TEACHER, Known, decide
from server.store.labels import Label
from server.store.schema import consensus as table
from server.store.schema import label, sample
from server.store.store import Store


class Row(NamedTuple):
    labeler: str
    class_index: int
    kind: str = "human"
    purpose: str = FIRST


NOBODY = Known(5, {})


def in_force(*rows: Row, sure: int | None = None, known: Known = NOBODY) -> int:
    return decide(rows, sure, known).class_index


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([Row("ann", 2)], 2),
        ([Row("ann", 2), Row("bob", 3)], 3),
        ([Row("ann", 2), Row("bob", 3), Row("cyd", 2)], 2),
        ([Row("ann", 2), Row("ann", 3)], 3),
        ([Row("ann", 2), Row("ann", 3), Row("bob", 2), Row("cyd", 3)], 3),
        ([Row("ann", NONE_OF_THESE), Row("bob", 1), Row("cyd", NONE_OF_THESE)], NONE_OF_THESE),
        ([Row("ann", 1), Row("bob", CANNOT_TELL)], CANNOT_TELL),
        ([Row("ann", CANNOT_TELL), Row("bob", 1)], 1),
        ([Row("ann", 1), Row("bob", CANNOT_TELL), Row("cyd", 1)], 1),
        ([Row("ann", 1), Row("bob", CANNOT_TELL), Row("cyd", CANNOT_TELL)], CANNOT_TELL),
        ([Row("ann", 1), Row("net", 2, TEACHER)], 1),
        ([Row("net", 2, TEACHER), Row("ann", CANNOT_TELL)], CANNOT_TELL),
        ([Row("ann", 1), Row("bob", 1), Row("cyd", 2, purpose=SECOND_LOOK)], 2),
        ([Row("ann", 1), Row("cyd", 2, purpose=SECOND_LOOK), Row("dan", 1), Row("eve", 1)], 1),
        ([Row("ann", 1), Row("bob", 2, purpose=SECOND_LOOK), Row("ann", 3, purpose=SECOND_LOOK)], 3),
        ([Row("bob", 3), Row("cyd", 3), Row("ann", NONE_OF_THESE)], 3),
        ([Row("ann", 2), Row("bob", 3), Row("ann", 2)], 2),  # of two as likely the one said last
        ([Row("ann", CANNOT_TELL), Row("bob", 1), Row("ann", CANNOT_TELL)], CANNOT_TELL),
    ],
)
def test_the_rules(rows, expected):
    assert in_force(*rows) == expected


def test_gold_is_in_force_whatever_is_said():
    assert decide([Row("ann", 2), Row("bob", 2)], 4, NOBODY) == (4, 1.0, 2)


def test_confidence_is_said_where_several_answered():
    agreeing = decide([Row("ann", 2), Row("bob", 2)], None, NOBODY).confidence
    differing = decide([Row("ann", 2), Row("bob", 1)], None, NOBODY).confidence
    assert decide([Row("ann", 2)], None, NOBODY).confidence is None
    assert differing < 0.5 < 0.95 < agreeing


def test_whoever_is_known_to_be_careful_outweighs_two_who_are_not():
    careful, careless = np.diag([50.0] * 5), np.full((5, 5), 10.0)
    known = Known(5, {"ann": careful, "bob": careless, "cyd": careless})
    assert in_force(Row("bob", 1), Row("cyd", 1), Row("ann", 2), known=known) == 2
    assert in_force(Row("bob", 1), Row("cyd", 1), Row("ann", 2)) == 1


answers_of = st.lists(
    st.builds(Row, st.sampled_from("abc"), st.integers(-2, 3), st.sampled_from(["human", TEACHER])),
    min_size=1,
    max_size=6,
)


@given(answers_of)
def test_what_is_in_force_is_what_somebody_said_last(rows):
    """Of those that count: people before models, everybody's newest."""
    people = [row for row in rows if row.kind != TEACHER] or rows
    newest = {row.labeler: row.class_index for row in people}
    found = decide(rows, None, NOBODY)
    assert found.class_index in newest.values()
    assert found.labelers == len(newest)
    if len(set(newest.values())) == 1:
        assert found.class_index in newest.values()


# --- in the store ---


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message for seq in range(30) for message in uploads("cam-1", seq)])
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat", "dog", "owl"])
    yield store
    store.close()


def name(seq: int) -> str:
    return f"cam-1.main.1.{seq}"


def answer(store, *answers: Label) -> None:
    with store.database.write() as connection:
        labels.add(connection, answers)


def standing(store) -> dict[int, int]:
    with store.database.read() as connection:
        return {int(one.rsplit(".", 1)[1]): k for one, k, _ in connection.execute(labels.in_force())}


def test_how_a_label_was_drawn_outlives_later_opinions(store):
    answer(store, Label(name(0), 1, "ann", 1, probability=0.25, plan_ms=7, stands_for=3))
    answer(store, Label(name(0), 1, "bob", 2), Label(name(0), 2, "cyd", 3, purpose=SECOND_LOOK))
    with store.database.read() as connection:
        row = connection.execute(sa.select(table)).one()
    assert (row.class_index, row.probability, row.plan_ms, row.stands_for) == (2, 0.25, 7, 3)


def test_a_label_is_of_the_last_who_said_so(store):
    answer(store, *[Label(name(0), said, who, 1) for who, said in (("ann", 1), ("bob", 1), ("cyd", 2))])
    with store.database.read() as connection:
        assert connection.scalar(sa.select(table.c.labeler)) == "bob"


def test_gold_tells_how_careful_others_are_and_not_who_vouches_for_it(store):
    for seq in range(20):
        answer(store, Label(name(seq), 0, "boss", 1), Label(name(seq), seq % 2, "ann", 1, purpose="gold"))
        answer(store, Label(name(20 + seq % 10), 0, "boss", 2))
    with store.database.write() as connection:
        for seq in range(30):
            questions.vouch(connection, name(seq), 0, labeler="boss", at_ms=1)
        counts = consensus.refit(connection)
    assert set(counts) == {"ann"}
    assert counts["ann"][0, :2].tolist() == [10.0, 10.0]


def test_an_answer_sent_twice_counts_once(store):
    for _ in range(2):
        answer(store, Label(name(0), 1, "ann", 1, key="a"))
    with store.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(label)) == 1


def test_what_is_taken_back_counts_no_more(store):
    answer(store, Label(name(0), 1, "ann", 1), Label(name(0), 2, "ann", 2), Label(name(1), 1, "ann", 3))
    with store.database.write() as connection:
        for _seq in (0, 1):
            last = questions.last_given(connection, "ann")
            questions.take_back(connection, last.id, now_ms=9)
            consensus.resolve(connection, [last.sample_id])
    assert standing(store) == {0: 1}
    with store.database.read() as connection:
        assert {row.id for row in labels.waiting(connection, limit=99)} == {name(seq) for seq in range(1, 30)}


def test_what_is_kept_is_what_all_labels_come_to_anew(store):
    """The table follows every change: saying it anew for everything changes nothing."""
    rng = np.random.default_rng(1)
    for n in range(60):
        one = Label(name(int(rng.integers(10))), int(rng.integers(-2, 3)), str(rng.choice(["ann", "bob", "cyd"])), n)
        answer(store, one)
    before = standing(store)
    with store.database.write() as connection:
        connection.execute(sa.delete(table))
        consensus.resolve(connection, list(connection.scalars(sa.select(sample.c.id))))
    assert standing(store) == before


def test_labelers_are_estimated_from_what_several_answered_and_outlive_new_classes(store):
    rng = np.random.default_rng(3)
    for seq in range(30):
        for who, slips in (("ann", 0.0), ("bob", 0.4), ("cyd", 0.4)):
            said = int(rng.integers(3)) if rng.random() < slips else seq % 3
            answer(store, Label(name(seq), said, who, 1))
    with store.database.write() as connection:
        assert consensus.stale(connection) == 30
        questions.vouch(connection, name(0), 0, labeler="boss", at_ms=1)
        counts = consensus.refit(connection)
        consensus.keep(connection, counts)
        assert consensus.stale(connection) == 0
        labels.ensure_names(connection, ["rat"])
        kept = consensus.skills(connection, 5)
    assert set(kept) == {"ann", "bob", "cyd"}
    assert kept["ann"].shape == (5, 5)
    assert kept["ann"].sum() == pytest.approx(counts["ann"].sum())
    assert np.trace(kept["ann"]) > np.trace(kept["bob"])


def test_none_of_these_and_cannot_tell_are_counted_and_in_no_snapshot(store):
    from server.store import snapshots

    answer(
        store,
        Label(name(0), NONE_OF_THESE, "ann", 1),
        Label(name(1), CANNOT_TELL, "ann", 1),
        Label(name(2), 0, "ann", 1),
    )
    with store.database.read() as connection:
        assert labels.counts(connection) == (1, 1, 27, 0, 1)
        assert [(row.id, row.labeler) for row in snapshots.labelled(connection)] == [(name(2), "ann")]
