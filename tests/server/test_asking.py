"""Is anybody kept from a question, a question from everybody, or an opinion from what it is an opinion on?"""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from asked import Clock, name, queue_of, stored
from device_words import FLEET, uploads

from server.collect.ingest import Ingest
from server.errors import LabelError
from server.label import orders, quality
from server.label.labeler import CANNOT_TELL, LATER, Given, People
from server.label.labelling import IDLE_MS, QUEUE_BATCHES, REFIT, Labelling
from server.label.queue import Rules
from server.store import consensus, labels, questions, trail
from server.store.questions import Queued
from server.store.schema import label, sample

COUNT = 24


@pytest.fixture
def store(tmp_path):
    with stored(tmp_path / "store", COUNT) as store:
        yield store


@pytest.fixture
def clock():
    return Clock(step_ms=1)


@pytest.fixture
def queue(store, clock):
    return queue_of(store, clock)


def ids(tasks) -> list[str]:
    return [task.sample_id for task in tasks]


def rows(store) -> list:
    with store.database.read() as connection:
        return list(connection.execute(sa.select(label).order_by(label.c.id)))


def in_force(store, seq: int = 0):
    with store.database.read() as connection:
        return labels.standing(connection, name(seq))


def order(store, what, *arguments, clock) -> None:
    with store.database.write() as connection:
        what(connection, *arguments, who="boss", why="", now_ms=clock())


# --- questions that nobody could be asked ---


def test_more_people_are_asked_than_have_answered_or_the_order_is_refused(store, queue, clock):
    for who in ("ann", "bob"):
        queue.answer(who, name(0), "cat")
    with pytest.raises(LabelError, match="2 people have answered it: expected more than that, got 2"):
        order(store, orders.ask_several, name(0), 2, clock=clock)
    with store.database.read() as connection:
        assert questions.get(connection, name(0)) is None
        assert trail.entries(connection) == []
    order(store, orders.ask_several, name(0), 3, clock=clock)
    assert ids(queue.next("cyd")) == [name(0)]


def test_a_question_that_waits_for_somebody_else_takes_nobodys_place(store, clock):
    """Two are wanted for each, and ann is the only one who labels: she is asked about everything."""
    asked = Labelling(store, People(), name="human", batch=2, now_ms=clock, rules=Rules(overlap_share=1.0))
    answered = 0
    for _ in range(COUNT):
        asked.step()
        for task in asked.queue.next("ann", count=2):
            asked.queue.answer("ann", task.sample_id, "cat")
            answered += 1
    assert answered == COUNT > QUEUE_BATCHES * 2


def test_under_a_budget_too(store, clock):
    asked = Labelling(
        store, People(), name="human", batch=4, now_ms=clock, labels_per_day=12, rules=Rules(overlap_share=1.0)
    )
    while asked.step():
        pass
    for task in asked.queue.next("ann", count=6):
        asked.queue.answer("ann", task.sample_id, "cat")
    with store.database.read() as connection:
        assert questions.unanswered(connection) == 6  # six labels were given, and six are still to come: no room
    assert asked.step() == 0


def test_where_nothing_is_left_nobody_looks_again_before_there_is_news(store, clock, monkeypatch):
    """A look walks all samples, and people are waited for every few seconds."""
    asked = Labelling(store, People(), name="human", batch=30, now_ms=clock)
    while asked.step():
        pass
    looks, keep_up = [], asked._chooser.keep_up
    monkeypatch.setattr(asked._chooser, "keep_up", lambda **how: looks.append(how) or keep_up(**how))
    for _ in range(5):
        assert asked.step() == 0
    assert looks == []
    Ingest(store, fleet=FLEET, offline_after_s=90.0).take(uploads("cam-1", COUNT))
    asked.wake()
    assert [asked.step(), asked.step(), asked.step(), len(looks)] == [1, 0, 0, 2]
    clock.ms += IDLE_MS
    assert [asked.step(), len(looks)] == [0, 3]


# --- second looks ---


def test_a_doubt_is_not_settled_by_who_was_asked_for_another_opinion_before(store, queue, clock):
    """bob holds the question as another opinion when the label is doubted: his answer takes the place of ann's."""
    queue.answer("ann", name(0), "cat")
    order(store, orders.ask_several, name(0), 2, clock=clock)
    assert ids(queue.next("bob")) == [name(0)]
    order(store, orders.look_again, [name(0)], clock=clock)
    queue.answer("bob", name(0), "dog")
    assert rows(store)[-1].purpose == "second look"
    assert (in_force(store).class_index, in_force(store).labelers) == (1, 1)


def test_more_opinions_on_what_is_doubted_are_all_about_the_doubt(store, queue, clock):
    for who in ("ann", "bob"):
        queue.answer(who, name(0), "cat")
    order(store, orders.look_again, [name(0)], clock=clock)
    order(store, orders.ask_several, name(0), 3, clock=clock)
    for who, said in (("cyd", "dog"), ("dan", "dog"), ("eve", "owl")):
        assert ids(queue.next(who)) == [name(0)]
        queue.answer(who, name(0), said)
    assert [row.purpose for row in rows(store)[2:]] == ["second look", "again", "again"]
    assert (in_force(store).class_index, in_force(store).labelers) == (1, 3)
    assert queue.next("fay") == []


def test_a_doubt_asks_no_fewer_people_than_were_wanted(store, queue, clock):
    queue.answer("ann", name(0), "cat")
    order(store, orders.ask_several, name(0), 3, clock=clock)
    order(store, orders.look_again, [name(0)], clock=clock)
    assert [len(queue.next(who)) for who in ("ann", "bob", "cyd", "dan")] == [1, 1, 1, 0]


# --- gold ---


def test_what_an_answer_came_to_does_not_say_that_it_was_gold(store, clock):
    queue = queue_of(store, clock, gold_share=1.0)
    order(store, orders.vouch, name(0), "cat", clock=clock)
    plain = queue_of(store, clock)
    plain.put([Queued(name(1), "first", clock())])
    (gold,) = queue.next("ann")
    (first,) = plain.next("bob")
    assert gold.sample_id == name(0)
    measured, other = (queue.answer(who, one.sample_id, "dog") for who, one in (("ann", gold), ("bob", first)))
    assert measured._replace(sample_id="") == other._replace(sample_id="")
    assert in_force(store).class_index == 0


def test_a_gold_question_answered_wrongly_stays_so_though_it_is_mended_later(store, clock):
    queue = queue_of(store, clock, gold_share=1.0)
    order(store, orders.vouch, name(0), "cat", clock=clock)
    queue.answer("ann", queue.next("ann")[0].sample_id, "dog")
    queue.answer("ann", name(0), "cat")
    with store.database.read() as connection:
        ann = next(row for row in quality.of_labelers(connection) if row["labeler"] == "ann")
    assert (ann["gold"], ann["gold_n"]) == (0.0, 1)


def test_undo_takes_back_answers_and_what_was_vouched_for_stays_gold(store, queue, clock):
    queue.answer("boss", name(1), "dog")
    order(store, orders.vouch, name(0), "cat", clock=clock)
    assert queue.undo("boss") == name(1)
    assert in_force(store).class_index == 0
    order(store, orders.doubt, name(0), clock=clock)
    assert queue.undo("boss") == name(0)  # now it is an answer like any other
    assert in_force(store) is None


def test_what_is_vouched_for_keeps_how_it_was_drawn(store, queue, clock):
    queue.put([Queued(name(0), "first", clock(), probability=0.25, plan_ms=7, beside=(name(1),))])
    order(store, orders.vouch, name(0), "cat", clock=clock)
    found = in_force(store)
    assert (found.probability, found.plan_ms, found.stands_for) == (0.25, 7, 2)
    with store.database.read() as connection:
        assert name(1) not in {row.id for row in labels.waiting(connection, limit=99)}


# --- what an answer is kept with ---


def test_an_answer_taken_back_leaves_the_probability_to_the_other(store, clock):
    queue = queue_of(store, clock, overlap_share=1.0)
    queue.put([Queued(name(0), "first", clock(), probability=0.25, plan_ms=7)])
    for who in ("ann", "bob"):
        queue.next(who)
    queue.answer("ann", name(0), "cat")
    queue.undo("ann")
    queue.answer("bob", name(0), "cat")
    queue.answer("ann", name(0), "cat")
    assert (in_force(store).probability, in_force(store).plan_ms) == (0.25, 7)
    queue.undo("bob")
    assert (in_force(store).probability, in_force(store).plan_ms) == (0.25, 7)


def test_a_new_class_is_in_the_trail_however_it_came(store, queue):
    queue.answer("ann", name(0), "newt", new_class=True)
    queue.answer("bob", name(1), "newt", new_class=True)
    with store.database.read() as connection:
        told = [(one.what, one.subject, one.who, one.why) for one in trail.entries(connection)]
    assert told == [("add class", "class newt", "ann", f"said of sample {name(0)}")]


def test_an_empty_key_is_no_key(store, queue):
    for seq in range(3):
        queue.answer("ann", name(seq), "cat", key="")
    assert len(rows(store)) == 3


# --- asked elsewhere ---


class Studio:
    """Labels elsewhere."""

    def __init__(self) -> None:
        self.given: list[Given] = []

    def label(self, batch):
        return [LATER] * len(batch)

    def answered(self):
        given, self.given = self.given, []
        return given


def said(seq: int, who: str, what: str) -> Given:
    return Given(name(seq), what, f"studio:{who}", "studio", 2.0, f"{seq}:{who}:{what}")


def test_what_was_answered_elsewhere_is_no_longer_at_hand_there(store, clock):
    studio = Studio()
    asked = Labelling(store, studio, name="mine:Studio", batch=4, now_ms=clock)
    asked.step()
    with store.database.read() as connection:
        there = [one.sample_id for one in questions.held(connection, "mine:Studio", now_ms=clock())]
    studio.given = [said(0, "ann", "cat")._replace(id=one, key=one) for one in there[:3]]
    assert asked.collect() == 3
    with store.database.read() as connection:
        assert quality.at_hand(connection, now_ms=clock()) == {"queue": {"first": 1}, "leased": {"mine:Studio": 1}}


def test_two_annotators_of_one_task_have_two_opinions(store, clock):
    studio = Studio()
    asked = Labelling(store, studio, name="mine:Studio", batch=4, now_ms=clock)
    asked.step()
    studio.given = [said(0, "ann", "cat"), said(0, "bob", "cat"), said(0, "cyd", "dog")]
    asked.collect()
    assert [row.purpose for row in rows(store)] == ["first", "again", "again"]
    assert (in_force(store).class_index, in_force(store).labelers) == (0, 3)
    studio.given = [said(0, "cyd", "cat")]  # changed there
    asked.collect()
    assert in_force(store).confidence > 0.95


# --- who is careful ---


def test_what_tells_nothing_of_labelers_is_looked_at_once(store, queue, clock):
    for seq in range(REFIT):
        for who in ("ann", "bob"):
            queue.answer(who, name(seq), CANNOT_TELL)
    with store.database.write() as connection:  # as opinions, not as corrections
        connection.execute(sa.update(label).values(purpose="again"))
        consensus.resolve(connection, [name(seq) for seq in range(REFIT)])
        assert len(consensus.contested(connection)) == REFIT
    Labelling(store, People(), name="human", batch=2, now_ms=clock).collect()
    with store.database.read() as connection:
        assert consensus.stale(connection) == 0


# --- rules that nothing else would miss ---


def test_gold_that_is_at_hand_is_not_handed_out_twice(store, clock):
    queue = queue_of(store, clock, gold_share=1.0)
    order(store, orders.vouch, name(0), "cat", clock=clock)
    assert ids(queue.next("ann", count=1)) == [name(0)] == ids(queue.next("ann", count=3))


def test_when_a_program_takes_over_what_people_were_asked_for_by_name_stays(store, queue, clock):
    queue.answer("ann", name(0), "cat")
    order(store, orders.look_again, [name(0)], clock=clock)
    order(store, orders.ask_several, name(1), 2, clock=clock)
    queue.put([Queued(name(2), "first", clock())])
    with store.database.write() as connection:
        assert questions.withdraw(connection, now_ms=clock()) == 1
    assert ids(queue.next("bob", count=9)) == [name(0), name(1)]


def test_where_people_differ_the_next_is_asked_before_what_a_plan_wants(store, clock):
    queue = queue_of(store, clock, overlap_share=1.0)
    queue.put([Queued(name(seq), "first", clock()) for seq in range(3)])
    for who, what in (("ann", "cat"), ("bob", "dog")):
        queue.next(who, count=3)
        queue.answer(who, name(2), what)
    assert ids(queue.next("cyd")) == [name(2)]


def test_what_was_seen_stays_with_a_question_that_is_taken_back(store, clock):
    queue = queue_of(store, clock)
    queue.put([Queued(name(0), "first", clock())])
    (first,) = queue.next("ann")
    queue.answer("ann", name(0), "cat")
    queue.undo("ann")
    (again,) = queue.next("ann")
    assert (again.guess, again.guess_by) == (first.guess, first.guess_by) == ("rat", "version 1")
    queue.answer("ann", name(0), "dog")
    assert [(row.guess, row.shown) for row in rows(store)] == [(3, True)] * 2


def test_nothing_is_spared_beside_what_nobody_could_tell(store, queue, clock):
    queue.put([Queued(name(0), "first", clock(), beside=(name(1),))])
    queue.answer("ann", name(0), CANNOT_TELL)
    with store.database.read() as connection:
        assert name(1) in {row.id for row in labels.waiting(connection, limit=99)}


def test_what_people_answer_beside_a_labeler_elsewhere_is_of_the_same_budget(store, clock):
    asked = Labelling(store, Studio(), name="mine:Studio", batch=9, now_ms=clock, labels_per_day=8, strategy="gumbel")
    for seq in range(6):
        asked.queue.answer("ann", name(seq), "cat")
    asked.step()
    with store.database.read() as connection:
        assert questions.count(connection) == {"first": 2}


def test_what_somebody_answered_after_it_was_planned_is_asked_no_more(store, clock):
    class Program:
        def __init__(self) -> None:
            self.asked: list[str] = []

        def label(self, batch):
            self.asked += [one.id for one in batch]
            return ["cat"] * len(batch)

    program = Program()
    asked = Labelling(store, program, name="program", batch=2, now_ms=clock, labels_per_day=6, strategy="gumbel")
    asked.step()
    planned = [one.row.id for one in asked._planned]
    asked.queue.answer("ann", planned[0], "dog")
    while asked.step():
        pass
    assert planned[0] not in program.asked
    assert set(planned[1:]) <= set(program.asked)


class Erasing:
    """The first sample of each batch is gone before it has answered."""

    def __init__(self, store, said) -> None:
        self._store, self._said = store, said
        self.asked: list[str] = []

    def label(self, batch):
        self.asked = [one.id for one in batch]
        with self._store.database.write() as connection:
            connection.execute(sa.delete(sample).where(sample.c.id == batch[0].id))
        return [self._said] * len(batch)

    def answered(self):
        return []


@pytest.mark.parametrize(("said", "kept"), [("cat", 3), (LATER, 0)])
def test_what_is_erased_while_a_labeler_thinks_is_neither_kept_nor_asked(store, clock, said, kept):
    erasing = Erasing(store, said)
    Labelling(store, erasing, name="mine:Erasing", batch=4, now_ms=clock).step()
    with store.database.read() as connection:
        at_hand = {one.sample_id for one in questions.held(connection, "mine:Erasing", now_ms=clock())}
    assert {row.sample_id for row in rows(store)} | at_hand == set(erasing.asked[1:])
    assert len(rows(store)) == kept


def test_what_an_operator_wants_labelled_soon_is_asked_first_whoever_answers(store, clock):
    class Program:
        def __init__(self) -> None:
            self.asked: list[str] = []

        def label(self, batch):
            self.asked += [one.id for one in batch]
            return ["cat"] * len(batch)

    wanted = [name(20), name(7)]
    order(store, orders.ask_soon, wanted, clock=clock)
    program = Program()
    asked = Labelling(store, program, name="mine:Program", batch=4, now_ms=clock)  # it took over after the order
    while asked.step():
        pass
    assert program.asked[:2] == wanted
    assert sorted(program.asked) == sorted(name(seq) for seq in range(COUNT))
    with store.database.read() as connection:
        assert questions.count(connection) == {}


def test_what_somebody_has_at_hand_is_not_taken_from_him_for_a_program(store, queue, clock):
    order(store, orders.ask_soon, [name(0), name(1)], clock=clock)
    assert ids(queue.next("ann")) == [name(0)]
    asked = Labelling(store, Studio(), name="mine:Studio", batch=4, now_ms=clock)
    asked.step()
    with store.database.read() as connection:
        mine, its = (
            questions.held(connection, "ann", now_ms=clock()),
            questions.held(connection, "mine:Studio", now_ms=clock()),
        )
    assert [one.sample_id for one in mine] == [name(0)]
    assert [one.sample_id for one in its] == [name(1)]
