"""Is everybody asked once, by one, and is no answer lost?"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import quadrants
import sqlalchemy as sa
from asked import Clock, name, queue_of, stored
from device_words import FLEET, NOW_MS, uploads
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.collect.ingest import Ingest
from server.errors import LabelError
from server.label import orders, quality
from server.label.answer import Reply
from server.label.labeler import CANNOT_TELL, NONE_OF_THESE, Given, People
from server.label.labelling import DAY_MS, QUEUE_BATCHES, Labelling
from server.label.prices import parse
from server.label.queue import SKIP_MS
from server.release.registry import add_artifact
from server.store import consensus, labels, questions, snapshots, trail
from server.store.questions import Queued
from server.store.schema import consensus as standing
from server.store.schema import duplicate, label, lease, question, sample
from server.store.store import Store
from server.teach.snapshot import freeze

COUNT = 12


@pytest.fixture
def store(tmp_path):
    with stored(tmp_path / "store", COUNT) as store:
        yield store


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(store, clock):
    made = queue_of(store, clock)
    made.put([Queued(name(seq), "first", clock.ms) for seq in range(COUNT)])
    return made


def rows(store) -> list:
    with store.database.read() as connection:
        return list(connection.execute(sa.select(label).order_by(label.c.id)))


def in_force(store) -> dict[str, int]:
    with store.database.read() as connection:
        return {one: k for one, k, _ in connection.execute(labels.in_force())}


def ids(tasks) -> list[str]:
    return [task.sample_id for task in tasks]


# --- leases ---


def test_two_people_never_have_the_same_sample(queue):
    ann, bob = queue.next("ann", count=5), queue.next("bob", count=99)
    assert ids(ann) == [name(seq) for seq in range(5)]
    assert ids(bob) == [name(seq) for seq in range(5, COUNT)]
    assert queue.next("cyd") == []


def test_who_asks_again_gets_what_he_has(queue):
    assert ids(queue.next("ann", count=3)) == ids(queue.next("ann", count=3))
    assert len(queue.next("ann", count=5)) == 5


def test_a_lease_runs_out_and_a_late_answer_is_kept(store, queue, clock):
    first = queue.next("ann")[0].sample_id
    clock.pass_s(61)
    assert ids(queue.next("bob")) == [first]
    queue.answer("bob", first, "cat")
    queue.answer("ann", first, "dog")
    assert [(row.labeler, row.class_index) for row in rows(store)] == [("bob", 0), ("ann", 1)]


def test_many_at_once_get_different_samples(store, clock, queue):
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda n: ids(queue_of(store, clock).next(f"p{n}", count=2)), range(6)))
    taken = [one for some in got for one in some]
    assert sorted(taken) == sorted(name(seq) for seq in range(COUNT))


def test_a_restart_loses_neither_lease_nor_answer(tmp_path, store, queue, clock):
    first, second = ids(queue.next("ann", count=2))
    queue.answer("ann", first, "cat")
    store.close()
    again = Store.open(tmp_path / "store")
    reopened = queue_of(again, clock)
    assert ids(reopened.next("ann")) == [second]
    assert second not in ids(reopened.next("bob", count=99))
    assert in_force(again) == {first: 0}
    again.close()


def test_what_was_erased_vanishes_from_the_queue(store, queue):
    first, second = ids(queue.next("ann", count=2))
    with store.database.write() as connection:
        connection.execute(sa.delete(sample).where(sample.c.id.in_([first, name(11)])))
    assert ids(queue.next("ann")) == [second]
    assert name(11) not in ids(queue.next("bob", count=99))
    with pytest.raises(LabelError, match="no such sample"):
        queue.answer("ann", first, "cat")


# --- answers ---


def test_an_answer_says_who_how_long_at_what_price_and_what_was_seen(store, clock):
    queue = queue_of(store, clock, prices=parse(["human=36/h", "human=0.5"]))
    queue.put([Queued(name(0), "first", clock.ms, probability=0.25, plan_ms=7, beside=(name(1), name(2)))])
    task = queue.next("ann")[0]
    assert (task.guess, task.guess_by, task.confidence) == ("rat", "version 1", 0.5)
    clock.pass_s(10)
    outcome = queue.answer("ann", task.sample_id, "dog", key=task.key)
    assert (outcome.in_force, outcome.labelers) == ("dog", 1)
    row = rows(store)[0]
    assert (row.labeler, row.kind, row.seconds, row.purpose) == ("ann", "human", 10.0, "first")
    assert row.price == pytest.approx(0.6)
    assert (row.probability, row.plan_ms, row.stands_for) == (0.25, 7, 3)
    assert (row.guess, row.guess_by, row.shown) == (3, "version 1", True)
    with store.database.read() as connection:
        spared = set(connection.scalars(sa.select(duplicate.c.sample_id)))
        assert questions.get(connection, name(0)) is None
    assert spared == {name(1), name(2)}


def test_a_retry_counts_once(store, queue):
    task = queue.next("ann")[0]
    for _ in range(3):
        queue.answer("ann", task.sample_id, "cat", key=task.key)
    assert len(rows(store)) == 1


def test_a_page_of_answers_is_kept_whole_or_not_at_all(store, queue):
    tasks = queue.next("ann", count=4)
    replies = [Reply(task.sample_id, "cat", 1.5, task.key) for task in tasks]
    with pytest.raises(LabelError, match="class 'catt'"):
        queue.answers("ann", [*replies[:3], replies[3]._replace(said="catt")])
    assert rows(store) == []
    for _ in range(2):  # a page that heard nothing sends it again
        assert [one.in_force for one in queue.answers("ann", replies)] == ["cat"] * 4
    assert [row.seconds for row in rows(store)] == [1.5] * 4


def test_time_away_from_the_desk_is_not_counted(store, queue, clock):
    task = queue.next("ann")[0]
    clock.pass_s(5 * 3600)
    queue.answer("ann", task.sample_id, "cat")
    assert rows(store)[0].seconds == 60.0


@pytest.mark.parametrize(("said", "index"), [(CANNOT_TELL, labels.CANNOT_TELL), (NONE_OF_THESE, labels.NONE_OF_THESE)])
def test_answers_that_are_no_class(store, queue, said, index):
    task = queue.next("ann")[0]
    assert queue.answer("ann", task.sample_id, said).in_force == said
    assert in_force(store) == {task.sample_id: index}
    assert task.sample_id not in ids(queue.next("bob", count=99))


def test_a_slip_is_no_new_class_and_a_new_class_reaches_the_snapshot(store, queue):
    one, other = ids(queue.next("ann", count=2))
    with pytest.raises(LabelError, match=r"class 'catt': not known \(did you mean 'cat'\?\)"):
        queue.answer("ann", one, "catt")
    queue.answer("ann", one, "newt", new_class=True)
    queue.answer("ann", other, "cat")
    snapshot = freeze(store, now_ms=NOW_MS)
    assert snapshot.classes == ("cat", "dog", "owl", "rat", "newt")
    with store.database.read() as connection:
        assert {row.class_index for row in snapshots.members(connection, snapshot.id)} == {0, 4}


@pytest.mark.parametrize("bad", ["", " newt", "Cannot tell", "x" * 201])
def test_nothing_is_called_so(queue, bad):
    with pytest.raises(LabelError, match="expected a name of 1 to 200"):
        queue.answer("ann", queue.next("ann")[0].sample_id, bad, new_class=True)


def test_whoever_corrects_without_being_asked_gives_a_second_look(store, queue):
    first = queue.next("ann")[0].sample_id
    queue.answer("ann", first, "cat")
    queue.answer("bob", first, "dog")
    assert [row.purpose for row in rows(store)] == ["first", "second look"]
    assert in_force(store) == {first: 1}


def test_a_guess_that_is_hidden_is_kept_and_not_shown(store, clock):
    queue = queue_of(store, clock, blind_share=1.0)
    queue.put([Queued(name(0), "first", clock.ms)])
    task = queue.next("ann")[0]
    assert (task.guess, task.guess_by, task.confidence) == ("", "", None)
    queue.answer("ann", task.sample_id, "rat")
    assert (rows(store)[0].guess, rows(store)[0].shown) == (3, False)


# --- skip and undo ---


def test_a_skipped_question_goes_to_others_and_comes_back_after_a_day(queue, clock):
    first = queue.next("ann")[0].sample_id
    queue.skip("ann", first)
    assert first not in ids(queue.next("ann", count=3))
    assert ids(queue.next("bob")) == [first]
    clock.pass_s(SKIP_MS / 1000 + 61)
    assert first in ids(queue.next("ann", count=99))
    with pytest.raises(LabelError, match="nothing to skip"):
        queue.skip("cyd", first)


def test_undo_takes_back_one_answer_after_the_other(store, queue):
    one, other = ids(queue.next("ann", count=2))
    queue.answer("ann", one, "cat")
    queue.answer("bob", queue.next("bob")[0].sample_id, "dog")
    queue.answer("ann", other, "owl")
    assert [queue.undo("ann"), queue.undo("ann")] == [other, one]
    assert list(in_force(store).values()) == [1]
    assert set(ids(queue.next("ann", count=2))) == {one, other}
    with pytest.raises(LabelError, match="no answer that could be taken back"):
        queue.undo("ann")
    assert len(rows(store)) == 3  # nothing is forgotten


def test_undo_brings_back_what_was_spared_and_how_it_was_drawn(store, clock):
    queue = queue_of(store, clock)
    queue.put([Queued(name(0), "first", clock.ms, probability=0.25, plan_ms=7, beside=(name(1),))])
    queue.answer("ann", queue.next("ann")[0].sample_id, "cat")
    queue.undo("ann")
    with store.database.read() as connection:
        asked = questions.get(connection, name(0))
        assert (asked.probability, asked.plan_ms, asked.beside) == (0.25, 7, (name(1),))
        assert name(1) in {row.id for row in labels.waiting(connection, limit=99)}
    queue.answer("ann", name(0), "dog")
    assert (rows(store)[-1].probability, rows(store)[-1].stands_for) == (0.25, 2)


# --- several opinions, gold, second looks ---


def test_where_two_are_wanted_two_different_people_answer(store, clock):
    queue = queue_of(store, clock, overlap_share=1.0)
    queue.put([Queued(name(0), "first", clock.ms)])
    assert [len(queue.next(who)) for who in ("ann", "bob", "cyd")] == [1, 1, 0]
    queue.answer("ann", name(0), "cat")
    assert queue.next("ann") == []
    assert queue.answer("bob", name(0), "cat").confidence > 0.9
    assert queue.next("cyd") == []


def test_where_they_differ_a_third_is_asked_and_no_fourth(store, clock):
    queue = queue_of(store, clock, overlap_share=1.0, most_labelers=3)
    queue.put([Queued(name(0), "first", clock.ms)])
    for who, said in (("ann", "cat"), ("bob", "dog"), ("cyd", "owl")):
        assert ids(queue.next(who)) == [name(0)]
        queue.answer(who, name(0), said)
    assert queue.next("dan") == []


def test_another_opinion_may_be_asked_for(store, queue):
    first = queue.next("ann")[0].sample_id
    queue.answer("ann", first, "cat")
    with store.database.write() as connection:
        orders.ask_several(connection, first, 3, who="boss", why="it matters", now_ms=NOW_MS)
        with pytest.raises(LabelError, match="no such sample"):
            orders.ask_several(connection, "cam-9.main.1.1", 3, who="boss", why="", now_ms=NOW_MS)
    assert first not in ids(queue.next("ann", count=99))
    assert ids(queue.next("bob")) == [first] == ids(queue.next("cyd"))  # before all others
    queue.answer("bob", first, "cat")
    queue.answer("cyd", first, "dog")
    assert in_force(store)[first] == 0
    with store.database.read() as connection:
        assert [(one.what, one.who) for one in trail.entries(connection)] == [("ask again", "boss")]


def test_a_second_look_takes_the_place_of_what_was_said(store, queue, clock):
    for who in ("ann", "bob"):
        queue.answer(who, name(0), "cat")
    clock.pass_s(1)
    with store.database.write() as connection:
        orders.look_again(connection, [name(0)], who="boss", why="suspected", now_ms=clock.ms)
    clock.pass_s(1)
    assert ids(queue.next("ann")) == [name(0)]  # may be the same person
    queue.answer("ann", name(0), "dog")
    assert in_force(store)[name(0)] == 1
    assert name(0) not in ids(queue.next("bob", count=99))


def test_gold_questions_look_like_others_and_measure(store, clock):
    queue = queue_of(store, clock, gold_share=1.0)
    with store.database.write() as connection:
        for seq, said in ((0, "cat"), (1, "dog")):
            orders.vouch(connection, name(seq), said, who="boss", why="seen it", now_ms=clock.ms)
        with pytest.raises(LabelError, match="cannot vouch"):
            orders.vouch(connection, name(2), CANNOT_TELL, who="boss", why="", now_ms=clock.ms)
    assert queue.next("boss", count=9) == []
    tasks = queue.next("ann", count=2)
    assert set(ids(tasks)) == {name(0), name(1)}
    assert "gold" not in json.dumps([task.view for task in tasks])
    for task in tasks:
        queue.answer("ann", task.sample_id, "cat")
    assert queue.next("ann", count=9) == []
    assert in_force(store) == {name(0): 0, name(1): 1}  # what is vouched for, whatever is said
    with store.database.read() as connection:
        ann = next(row for row in quality.of_labelers(connection) if row["labeler"] == "ann")
    assert (ann["gold"], ann["gold_n"]) == (0.5, 2)
    assert ann["gold_low"] < 0.1 < 0.9 < ann["gold_high"]
    with store.database.write() as connection:
        orders.doubt(connection, name(1), who="boss", why="was wrong", now_ms=clock.ms)
        assert [one.what for one in trail.entries(connection)] == ["vouch", "vouch", "doubt"]
        with pytest.raises(LabelError, match="is no gold sample"):
            orders.doubt(connection, name(1), who="boss", why="", now_ms=clock.ms)
    assert in_force(store)[name(1)] == 0  # ann's is the later of two


# --- the plan, the queue and the budget ---


def planner(store, clock, **options) -> Labelling:
    return Labelling(store, People(), name="human", batch=2, now_ms=clock, **options)


def test_the_queue_is_kept_short_and_filled_as_it_empties(store, clock):
    asked = planner(store, clock)
    while asked.step():
        pass
    assert len(asked.queue.next("ann", count=99)) == QUEUE_BATCHES * 2
    asked.queue.answer("ann", name(0), "cat")
    assert asked.step() == 1
    assert len(asked.queue.next("ann", count=99)) == QUEUE_BATCHES * 2


def test_when_a_program_takes_over_it_is_asked_what_people_were_not_at(store, clock):
    asked = planner(store, clock)
    while asked.step():
        pass
    held = asked.queue.next("ann")[0].sample_id

    class Always:
        def label(self, batch):
            return ["cat"] * len(batch)

    program = Labelling(store, Always(), name="program", batch=5, now_ms=clock)
    while program.step():
        pass
    assert in_force(store).keys() == {name(seq) for seq in range(COUNT)} - {held}
    asked.queue.answer("ann", held, "dog")
    assert in_force(store)[held] == 1


def test_people_get_what_the_budget_has_room_for_with_its_probability(store, clock):
    asked = planner(store, clock, labels_per_day=3, strategy="gumbel")
    while asked.step():
        pass
    tasks = asked.queue.next("ann", count=99)
    assert len(tasks) == 3
    for task in tasks[:2]:
        asked.queue.answer("ann", task.sample_id, "cat")
    assert asked.step() == 0  # one waits in the queue, two were answered
    assert all(0.0 < row.probability < 1.0 and row.plan_ms == NOW_MS for row in rows(store))
    clock.ms += DAY_MS
    assert asked.step() == 2
    with store.database.read() as connection:
        assert labels.counts(connection).waiting == COUNT - 2


def test_answers_of_several_teach_who_is_careful(store, clock):
    """The thread estimates them, and says anew what is in force."""
    queue, asked = queue_of(store, clock), planner(store, clock)
    rng = np.random.default_rng(5)
    more = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    more.take([message for seq in range(COUNT, 80) for message in uploads("cam-1", seq)])
    names = ("cat", "dog", "owl", "rat")
    for seq in range(80):
        for who in ("ann", "bob", "cyd"):
            wrong = who != "ann" and rng.random() < 0.6
            queue.answer(who, name(seq), str(rng.choice(names)) if wrong else names[seq % 4])
    with store.database.write() as connection:  # as opinions, not as corrections
        connection.execute(sa.update(label).values(purpose="again"))

    def wrong_now() -> int:
        return sum(k != int(one.rsplit(".", 1)[1]) % 4 for one, k in in_force(store).items())

    with store.database.write() as connection:
        consensus.resolve(connection, [name(seq) for seq in range(80)])
    before = wrong_now()
    asked.collect()
    assert wrong_now() < before
    with store.database.read() as connection:
        assert consensus.stale(connection) == 0
        estimated = {row["labeler"]: row["estimated_accuracy"] for row in quality.of_labelers(connection)}
    assert estimated["ann"] > max(estimated["bob"], estimated["cyd"]) + 0.1


def test_an_answer_that_makes_no_sense_holds_up_no_other(store, queue, caplog):
    good = Given(name(1), "cat", "x:ann", "x", 1.0, "x:1")
    assert (
        queue.take_in([good._replace(id=name(0), said=" ", key="x:0"), good, good._replace(id="a.b.1.1")], asked_as="x")
        == 1
    )
    assert in_force(store) == {name(1): 0}
    assert "x:ann answered ' '" in caplog.text


def test_the_champions_guess_is_shown_with_how_sure_it_is(tmp_path, clock):
    store = Store.open(tmp_path / "quadrants")
    quadrants.artifact(tmp_path / "artifact", version=2)
    add_artifact(store, tmp_path / "artifact", weights=None, now_ms=NOW_MS)
    x, _ = quadrants.images(6)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message for seq, data in enumerate(x) for message in uploads("cam-1", seq, data=data)])
    asked = planner(store, clock, labels_per_day=6)
    while asked.step():
        pass
    tasks = asked.queue.next("ann", count=9)
    assert len(tasks) == 6
    assert {task.guess_by for task in tasks} == {"version 2"}
    assert [(task.guess, task.confidence) for task in tasks if not 0.25 <= task.confidence <= 1.0] == []
    assert all(task.guess in ("top-left", "top-right", "bottom-left", "bottom-right") for task in tasks)
    with store.database.read() as connection:
        assert labels.plans(connection) == [NOW_MS]  # of which nobody has answered anything yet
    store.close()


# --- anything in any order ---

PEOPLE = ("ann", "bob", "cyd")
acts = st.lists(
    st.tuples(
        st.sampled_from(["next", "next", "answer", "answer", "skip", "undo", "wait", "ask", "look", "vouch"]),
        st.sampled_from(PEOPLE),
        st.integers(0, 3),
    ),
    max_size=40,
)


@settings(max_examples=15, deadline=None)
@given(acts)
@example([("next", "ann", 1), ("answer", "bob", 0), ("undo", "bob", 0)])
@example([("next", "ann", 1), ("answer", "bob", 0), ("look", "cyd", 0), ("undo", "bob", 0)])
def test_whatever_people_do_nobody_is_in_anothers_way_and_nothing_is_lost(tmp_path_factory, acts):
    store, clock = Store.open(tmp_path_factory.mktemp("any") / "store"), Clock()
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message for seq in range(4) for message in uploads("cam-1", seq)])
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat", "dog", "owl", "rat"])
    queue = queue_of(store, clock, overlap_share=0.3, gold_share=0.3)
    queue.put([Queued(name(seq), "first", clock.ms) for seq in range(4)])
    given_answers, undone = 0, 0
    for what, who, k in acts:
        clock.pass_s(1)
        with contextlib.suppress(LabelError):  # there is nothing to skip, or to take back
            if what == "next":
                queue.next(who, count=k)
            elif what == "answer":
                queue.answer(who, name(k), ("cat", "dog", CANNOT_TELL, NONE_OF_THESE)[k])
                given_answers += 1
            elif what == "skip":
                queue.skip(who, name(k))
            elif what == "undo":
                queue.undo(who)
                undone += 1
            elif what == "wait":
                clock.pass_s(70)
            else:
                order(store, what, name(k), clock.ms)
                given_answers += what == "vouch"
        check(store, clock.ms)
    found = rows(store)
    assert len(found) == given_answers
    assert sum(row.undone_at_ms is not None for row in found) == undone
    store.close()


def order(store, what: str, sample_id: str, now_ms: int) -> None:
    with store.database.write() as connection:
        if what == "ask":
            orders.ask_several(connection, sample_id, 2, who="boss", why="", now_ms=now_ms)
        elif what == "look":
            orders.look_again(connection, [sample_id], who="boss", why="", now_ms=now_ms)
        else:
            orders.vouch(connection, sample_id, "owl", who="boss", why="", now_ms=now_ms)


def check(store, now_ms: int) -> None:
    """Nobody beyond those wanted has a sample; all is labelled or queued; what is in force follows from labels."""
    with store.database.read() as connection:
        leases = connection.execute(sa.select(lease).where(lease.c.until_ms > now_ms, ~lease.c.skipped)).all()
        for sample_id, held in Counter(row.sample_id for row in leases if row.purpose != "gold").items():
            asked = questions.get(connection, sample_id)
            assert asked is None or held <= max(asked.wanted, 1)
        queued = set(connection.scalars(sa.select(question.c.sample_id)))
        before = connection.execute(sa.select(standing).order_by(standing.c.sample_id)).all()
    assert queued | {row.sample_id for row in before} == {name(seq) for seq in range(4)}
    with store.database.write() as connection:
        connection.execute(sa.delete(standing))
        consensus.resolve(connection, [name(seq) for seq in range(4)])
        assert connection.execute(sa.select(standing).order_by(standing.c.sample_id)).all() == before


# --- processes ---


SERVE = """
import sys, time
from pathlib import Path
import numpy as np
from server import config
from server.label.queue import Queue, Rules
from server.store.store import Store
store = Store.open(Path(sys.argv[1]), config.Store(url=sys.argv[3]))
queue = Queue(store, Rules(), now_ms=lambda: time.time_ns() // 1_000_000, rng=np.random.default_rng())
while tasks := queue.next(sys.argv[2]):
    print(tasks[0].sample_id, flush=True)
    queue.answer(sys.argv[2], tasks[0].sample_id, "cat", key=tasks[0].key)
"""


def test_processes_that_label_at_once_share_the_queue(store, queue, tmp_path):
    folder, url = str(tmp_path / "store"), store.settings.url
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SERVE, folder, who, url], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        for who in ("ann", "bob", "cyd")
    ]
    said = [one for process in running for one in process.communicate(timeout=120)[0].split()]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sorted(said) == sorted(name(seq) for seq in range(COUNT))
    assert len(rows(store)) == COUNT
