"""Boxes, several classes and numbers as labels: how alike are they, what do several come to, and what is in force?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from device_words import FLEET, NOW_MS, uploads
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.task import Applies, Box, Said, Task, Truth, Value, truth_of
from server.collect.ingest import Ingest
from server.errors import LabelError
from server.label import orders, quality, truth
from server.label.answer import Reply
from server.label.labeler import CANNOT_TELL
from server.label.labelling import Labelling
from server.label.queue import Queue, Rules
from server.store import consensus, labels, snapshots
from server.store.consensus import VALUED
from server.store.questions import Queued
from server.store.store import Store
from server.store.truths import agreement, classes_of, likeness, merged
from server.teach.snapshot import freeze

share = st.integers(0, 6).map(lambda sixths: sixths / 6.0) | st.floats(0.0, 1.0)  # coarse, so that boxes overlap


def boxes() -> st.SearchStrategy[Truth]:
    pair = st.tuples(share, share).filter(lambda two: abs(two[0] - two[1]) >= truth.EDGE_MIN).map(sorted)
    box = st.builds(lambda label, x, y: Box(label, x[0], y[0], x[1], y[1]), st.integers(0, 2), pair, pair)
    return st.lists(box, max_size=5).map(lambda some: Truth(boxes=tuple(some)))


def several() -> st.SearchStrategy[Truth]:
    return st.sets(st.integers(0, 5)).map(lambda some: Truth(applies=tuple(Applies(one) for one in sorted(some))))


def numbers() -> st.SearchStrategy[Truth]:
    some = st.dictionaries(st.integers(0, 2), st.floats(-1e6, 1e6), min_size=1)
    return some.map(lambda found: Truth(values=tuple(Value(key, number) for key, number in found.items())))


kinds = st.sampled_from([boxes, several, numbers])


@given(kinds.flatmap(lambda kind: st.tuples(kind(), kind())))
def test_likeness_is_a_share_and_the_same_both_ways(pair: tuple[Truth, Truth]) -> None:
    a, b = pair
    alike = likeness(a, b)
    assert 0.0 <= alike <= 1.0
    assert alike == pytest.approx(likeness(b, a))
    assert likeness(a, a) == 1.0


@given(kinds.flatmap(lambda kind: st.lists(kind(), min_size=1, max_size=5)), st.randoms(use_true_random=False))
def test_what_several_come_to(said: list[Truth], random: Any) -> None:
    """What all say is in force; an odd number of labelers comes to the same in any order."""
    found = merged(said)
    assert found.task == said[0].task
    assert len(classes_of(found)) <= sum(len(classes_of(one)) for one in said)
    assert set(classes_of(found)) <= {label for one in said for label in classes_of(one)}
    same = merged([said[0]] * len(said))
    assert likeness(same, said[0]) == 1.0
    if len(said) > 1:
        assert 0.0 <= agreement(said) <= 1.0
    if len(said) % 2:
        again = merged(random.sample(said, len(said)))
        assert _places(again) == _places(found)


def _places(found: Truth) -> object:
    """Without the classes of boxes: of two as frequent the last labeler's is taken."""
    return sorted((box.left, box.top, box.right, box.bottom) for box in found.boxes) if found.boxes else found


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([(0, 0.1, 0.1, 0.5, 0.5)], [(0, 0.1, 0.1, 0.5, 0.5)]),
        ([(0, 0.1, 0.1, 0.5, 0.5), (0, 0.2, 0.1, 0.6, 0.5)], [(0, 0.15, 0.1, 0.55, 0.5)]),
        ([(0, 0.1, 0.1, 0.5, 0.5), (1, 0.1, 0.1, 0.5, 0.5)], [(1, 0.1, 0.1, 0.5, 0.5)]),  # of two, the last word
        ([(0, 0.1, 0.1, 0.5, 0.5), None], []),
        ([None, (0, 0.1, 0.1, 0.5, 0.5)], [(0, 0.1, 0.1, 0.5, 0.5)]),
        ([(0, 0.1, 0.1, 0.5, 0.5), (0, 0.1, 0.1, 0.5, 0.5), None], [(0, 0.1, 0.1, 0.5, 0.5)]),
        ([(0, 0.1, 0.1, 0.5, 0.5), (0, 0.6, 0.6, 0.9, 0.9), None], []),
    ],
)
def test_a_box_is_kept_by_the_majority_and_of_two_by_the_last(said: list[Any], expected: list[Any]) -> None:
    found = merged([Truth(boxes=() if one is None else (Box(*one),)) for one in said])
    assert [(one.label, one.left, one.top, one.right, one.bottom) for one in found.boxes or ()] == [
        (label, *map(pytest.approx, corners)) for label, *corners in expected
    ]


def test_two_people_beside_each_other_stay_two() -> None:
    """Each labeler's boxes overlap one another; a box of one labeler goes with one of another, never with his own."""
    ann = Truth(boxes=(Box(0, 0.1, 0.1, 0.5, 0.9), Box(0, 0.2, 0.1, 0.6, 0.9)))
    bob = Truth(boxes=(Box(0, 0.11, 0.1, 0.51, 0.9), Box(0, 0.21, 0.1, 0.61, 0.9)))
    assert [round(one.left, 3) for one in merged([ann, bob]).boxes or ()] == [0.105, 0.205]
    assert likeness(ann, bob) == 1.0


def test_classes_and_numbers_are_put_together() -> None:
    three = [Truth(applies=tuple(map(Applies, some))) for some in ((0, 1), (1, 2), (1, 0))]
    assert classes_of(merged(three)) == [0, 1]
    speeds = [Truth(values=(Value(0, number),)) for number in (1.0, 9.0, 2.0)]
    assert merged(speeds) == Truth(values=(Value(0, 2.0),))
    assert likeness(speeds[0], speeds[2], scales={0: 4.0}) == 0.75
    assert likeness(speeds[0], three[0]) == 0.0


# --- in the store ---


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message for seq in range(6) for message in uploads("cam-1", seq)])
    with store.database.write() as connection:
        labels.ensure_names(connection, ["person", "dog"])
    yield store
    store.close()


def queue_of(store: Store, task: Task, **rules: Any) -> Queue:
    made = Rules(task=task)._replace(**rules)
    return Queue(store, made, now_ms=lambda: NOW_MS, rng=np.random.default_rng(0))


def name(seq: int) -> str:
    return f"cam-1.main.1.{seq}"


def standing(store: Store, seq: int = 0) -> Any:
    with store.database.read() as connection:
        return labels.standing(connection, name(seq))


def said(*boxes: tuple[str, float, float, float, float]) -> truth.Named:
    return {"boxes": [list(one) for one in boxes]}


PERSON, DOG = ("person", 0.1, 0.1, 0.5, 0.9), ("dog", 0.6, 0.6, 0.9, 0.9)


def test_boxes_are_an_answer_and_the_last_is_taken_back(store: Store) -> None:
    queue = queue_of(store, "detection")
    found = queue.answer("ann", name(0), "", truth=said(PERSON, DOG))
    assert (found.in_force, found.confidence, found.labelers) == ("person, dog", None, 1)
    assert found.truth == {"boxes": [["person", 0.1, 0.1, 0.5, 0.9, 1.0], ["dog", 0.6, 0.6, 0.9, 0.9, 1.0]]}
    assert truth_of(standing(store).truth).boxes == (Box(0, 0.1, 0.1, 0.5, 0.9), Box(1, 0.6, 0.6, 0.9, 0.9))
    assert queue.undo("ann") == name(0)
    assert standing(store) is None
    queue.answer("ann", name(0), "", truth=said())
    assert (standing(store).class_index, standing(store).truth) == (VALUED, {"boxes": []})
    queue.answer("ann", name(1), CANNOT_TELL)
    assert standing(store, 1).class_index == labels.CANNOT_TELL
    with store.database.read() as connection:
        assert labels.counts(connection)[:2] == (1, 1)


def test_where_labelers_differ_one_more_is_asked_and_the_majority_is_in_force(store: Store) -> None:
    queue = queue_of(store, "detection")
    queue.put([Queued(name(0), "first", NOW_MS, wanted=2)])
    assert queue.answer("ann", name(0), "", truth=said(PERSON)).labelers == 1
    two = queue.answer("bob", name(0), "", truth=said(DOG))
    assert (two.in_force, two.confidence) == ("dog", 0.0)
    assert [task.sample_id for task in queue.next("cyd")] == [name(0)]
    three = queue.answer("cyd", name(0), "", truth=said(("person", 0.12, 0.1, 0.5, 0.9)))
    assert (three.in_force, three.labelers) == ("person", 3)
    assert standing(store).truth["boxes"][0][1] == pytest.approx(0.11)
    with store.database.read() as connection:
        assert consensus.stale(connection) == 0  # error rates are of classes
        assert consensus.contested(connection) == []
        assert consensus.refit(connection) == {}
        rows = {row["labeler"]: row for row in quality.of_labelers(connection)}
    assert [rows[who]["in_force"] for who in ("ann", "bob", "cyd")] == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("task", "answer", "says"),
    [
        ("detection", {"boxes": [["cat", 0.1, 0.1, 0.5, 0.9]]}, "class 'cat': not known"),
        ("detection", {"boxes": [["person", 0.5, 0.1, 0.1, 0.9]]}, "left < right"),
        ("detection", {"boxes": [["person", 0.5, 0.1, 1.1, 0.9]]}, "<= 1"),
        ("detection", {"boxes": [["person", 0.5, 0.1, 0.50001, 0.9]]}, "a finger"),
        ("detection", {"boxes": [["cannot tell", 0.1, 0.1, 0.5, 0.9]]}, ">= 0"),
        ("detection", {"boxes": [[0, 0.1, 0.1, 0.5, 0.9]]}, "expected"),
        ("detection", {"boxes": "person"}, "expected"),
        ("detection", {}, "exactly one"),
        ("detection", {"circles": []}, "exactly one"),
        ("detection", {"applies": ["person"]}, r"\[server\] task is 'detection'"),
        ("classification", {"boxes": []}, r"\[server\] task is 'classification'"),
        ("multilabel", {"applies": ["dog", "dog"]}, "once"),
        ("regression", {"values": [["dog", float("nan")]]}, "NaN"),
        ("regression", {"values": []}, "a number"),
    ],
)
def test_what_is_no_answer_is_refused_and_changes_nothing(store: Store, task: Task, answer: Any, says: str) -> None:
    with pytest.raises(LabelError, match=says):
        queue_of(store, task).answers("ann", [Reply(name(1), "", truth=answer)])
    assert standing(store, 1) is None


def test_a_class_is_no_answer_where_boxes_are_asked_for(store: Store) -> None:
    with pytest.raises(LabelError, match="expected .*boxes"):
        queue_of(store, "detection").answer("ann", name(0), "person")


def test_numbers_are_measured_by_how_much_they_vary(store: Store) -> None:
    queue = queue_of(store, "regression")
    for seq, number in enumerate((0.0, 10.0)):
        queue.answer("ann", name(seq), "", truth={"values": [["speed", number]]}, new_class=True)
    queue.put([Queued(name(1), "first", NOW_MS, wanted=2)])
    found = queue.answer("bob", name(1), "", truth={"values": [["speed", 11.0]]})
    assert found.confidence == pytest.approx(1.0 - 1.0 / 5.0)
    assert found.truth == {"values": [["speed", 10.5, 0.0]]}


def test_numbers_are_measured_so_whoever_cannot_tell_them_last(store: Store) -> None:
    queue = queue_of(store, "regression")
    for seq, number in enumerate((0.0, 10.0)):
        queue.answer("ann", name(seq), "", truth={"values": [["speed", number]]}, new_class=True)
    queue.put([Queued(name(1), "first", NOW_MS, wanted=3)])
    queue.answer("bob", name(1), "", truth={"values": [["speed", 11.0]]})
    found = queue.answer("cyd", name(1), CANNOT_TELL)
    assert found.confidence == pytest.approx(1.0 - 1.0 / 5.25)  # the median of ann and bob is in force by now
    assert found.truth == {"values": [["speed", 10.5, 0.0]]}


def test_what_a_model_said_is_shown_but_to_those_who_are_asked_blind(store: Store) -> None:
    said = Said(boxes=(Box(0, 0.1, 0.1, 0.5, 0.9, 0.75),))
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([one for seq in (1, 2) for one in uploads("cam-2", seq, said=said)])
    for seq, share in ((1, 0.0), (2, 1.0)):
        queue = queue_of(store, "detection", blind_share=share)
        queue.put([Queued(f"cam-2.main.1.{seq}", "first", NOW_MS)])
        (task,) = queue.next(f"ann-{seq}")
        shown = {"boxes": [["person", 0.1, 0.1, 0.5, 0.9, 0.75]]}
        assert (task.guess, task.said) == (("person", shown) if share == 0.0 else ("", None))


class Row(NamedTuple):
    labeler: str
    class_index: int
    truth: dict[str, Any] | None = None
    kind: str = "human"
    purpose: str = "first"


def boxed(who: str, *labels_: int, **how: Any) -> Row:
    return Row(who, VALUED, {"boxes": [[label, 0.1, 0.1, 0.5, 0.9] for label in labels_]}, **how)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([boxed("ann", 0), Row("bob", -1)], None),  # as many, and the last, cannot tell
        ([Row("ann", -1), boxed("bob", 0)], [0]),
        ([boxed("ann", 0), boxed("bob", 1), Row("cyd", -1)], [1]),
        ([boxed("ann", 0), boxed("bob", 1, purpose="second look")], [1]),
        ([boxed("ann", 0), boxed("net", 1, kind="teacher"), boxed("net2", 1, kind="teacher")], [0]),
        ([boxed("ann", 0), boxed("ann", 1)], [1]),
        ([Row("ann", 2), boxed("bob", 1), Row("cyd", 2)], [1]),  # from before the server's task was another
        ([boxed("ann", 0), Row("bob", VALUED, {"applies": [[1]]})], [1]),
    ],
)
def test_whose_answer_counts_is_as_among_classes(rows: list[Row], expected: list[int] | None) -> None:
    decided, found = consensus.decide_truth(rows, consensus.Known(2, {}))
    assert decided.class_index == (labels.CANNOT_TELL if expected is None else VALUED)
    assert (None if found is None else classes_of(truth_of(found))) == expected


def test_gold_is_in_force_and_labelers_are_measured_by_it(store: Store) -> None:
    queue = queue_of(store, "detection", gold_share=1.0)
    with store.database.write() as connection:
        orders.vouch(
            connection, name(0), "", truth=said(PERSON, DOG), task="detection", who="boss", why="", now_ms=NOW_MS
        )
    assert [one.sample_id for one in queue.next("ann")] == [name(0)]
    queue.answer("ann", name(0), "", truth=said(PERSON))
    assert len(standing(store).truth["boxes"]) == 2
    with store.database.read() as connection:
        row = next(row for row in quality.of_labelers(connection) if row["labeler"] == "ann")
    assert (row["gold"], row["gold_n"]) == (pytest.approx(2 / 3), 1)


def test_programs_answer_by_names_and_new_ones_are_added(store: Store) -> None:
    class Finder:
        def label(self, batch: list[Any]) -> list[Any]:
            return [{"boxes": [["cat", 0.1, 0.1, 0.2, 0.2]]} for _ in batch]

    asked = Labelling(store, Finder(), name="finder", batch=6, now_ms=lambda: NOW_MS, rules=Rules(task="detection"))
    assert asked.step()
    assert standing(store).truth == {"boxes": [[2, 0.1, 0.1, 0.2, 0.2, 1.0]]}


def test_a_program_may_answer_what_the_model_said(store: Store) -> None:
    class Echo:
        def label(self, batch: list[Any]) -> list[Any]:
            return [one.said for one in batch]

    said = Said(applies=(Applies(0, 0.25), Applies(1, 0.75)))
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message for seq in range(6, 8) for message in uploads("cam-1", seq, said=said)])
    asked = Labelling(store, Echo(), name="echo", batch=8, now_ms=lambda: NOW_MS, rules=Rules(task="multilabel"))
    with store.database.write() as connection:
        labels.add(connection, [labels.Label(name(seq), labels.CANNOT_TELL, "ann", NOW_MS) for seq in range(6)])
    assert asked.step()
    assert standing(store, 6).truth == {"applies": [[1, 1.0]]}


def test_a_program_may_answer_that_the_model_found_nothing(store: Store) -> None:
    class Echo:
        def label(self, batch: list[Any]) -> list[Any]:
            return [one.said for one in batch]

    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take(uploads("cam-1", 6, said=Said()))
    asked = Labelling(store, Echo(), name="echo", batch=8, now_ms=lambda: NOW_MS, rules=Rules(task="detection"))
    with store.database.write() as connection:
        labels.add(connection, [labels.Label(name(seq), labels.CANNOT_TELL, "ann", NOW_MS) for seq in range(6)])
    assert asked.step()
    assert standing(store, 6).truth == {"boxes": []}


def test_a_snapshot_holds_truths_as_they_were(store: Store) -> None:
    queue = queue_of(store, "detection")
    for seq in range(6):
        queue.answer("ann", name(seq), "", truth=said(PERSON))
    made = freeze(store, now_ms=NOW_MS)
    queue.answer("bob", name(0), "", truth=said(DOG))
    with store.database.read() as connection:
        rows = snapshots.members(connection, made.id)
    assert len(rows) > 0
    assert {(row.class_index, str(row.truth)) for row in rows} == {(VALUED, str({"boxes": [[0, *PERSON[1:], 1.0]]}))}
    assert freeze(store, now_ms=NOW_MS + 1).id != made.id


def test_scales_are_of_what_is_in_force(store: Store) -> None:
    queue = queue_of(store, "regression")
    for seq, number in enumerate((1.0, 3.0, 5.0, 7.0)):
        queue.answer("ann", name(seq), "", truth={"values": [["person", number]]})
    with store.database.read() as connection:
        assert consensus.scales(connection) == {0: pytest.approx(np.std([1.0, 3.0, 5.0, 7.0]))}
