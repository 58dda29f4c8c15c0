"""Who answers, and is nothing lost when they fail?"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, image, message
from device_words import frames as sample_frames

from server.collect.ingest import Ingest
from server.errors import LabelError, ServerConfigError
from server.label.labeler import Question, ask, load
from server.label.labelling import DAY_MS, Labelling
from server.label.oracle import Oracle
from server.store import labels
from server.store.labels import CANNOT_TELL
from server.store.schema import label
from server.store.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    for seq in range(7):
        ingest.take([message("cam-1", "sample", frame) for frame in sample_frames("cam-1", seq, ref=f"cam-1:{seq}")])
    yield store
    store.close()


def replay(folder: Path, name: str = "cam-1", **arrays: np.ndarray) -> Path:
    arrays = {"x": np.zeros((5, 2)), "y": np.array([0, 1, 2, 1, 0]), "names": np.array(["cat", "dog", "owl"])} | arrays
    np.savez(folder / f"{name}.npz", **arrays)
    return folder / f"{name}.npz"


def question(ref: str = "cam-1:1") -> Question:
    return Question(id="cam-1.main.1.1", ref=ref, guess="", confidence=0.5, load=lambda: np.zeros(2))


def labelling(store, labeler, batch: int = 3) -> Labelling:
    return Labelling(store, labeler, name="test", batch=batch, now_ms=lambda: NOW_MS)


def in_force(store) -> dict[int, int]:
    with store.database.read() as connection:
        return {int(name.rsplit(".", 1)[1]): k for name, k, _ in connection.execute(labels.in_force())}


# --- labelers ---


@pytest.mark.parametrize(
    ("ref", "truth"),
    [("cam-1:0", "cat"), ("cam-1:2", "owl"), ("cam-1:5", None), ("cam-2:0", None), ("", None), ("cam-1:-1", None)],
)
def test_the_oracle_knows_the_rows_of_its_files_and_nothing_else(tmp_path, ref, truth):
    assert Oracle([replay(tmp_path)]).label([question(ref)]) == [truth]


def test_without_names_the_number_is_the_name(tmp_path):
    np.savez(tmp_path / "a.npz", y=np.array([7, 0]))
    assert Oracle([tmp_path / "a.npz"]).label([question("a:0"), question("a:1")]) == ["7", "0"]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": np.array([0.5])}, r"y is \(1,\) float64"),
        ({"y": np.array([-1])}, "whole numbers from 0"),
        ({"names": np.array(["cat"])}, r"expected at least \(3,\) str"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, arrays, said):
    with pytest.raises(ServerConfigError, match=said):
        Oracle([replay(tmp_path, **arrays)])


def test_the_oracle_wants_files_and_each_name_once(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ServerConfigError, match="two are called 'cam-1'"):
        Oracle([replay(tmp_path), replay(tmp_path / "other")])
    with pytest.raises(ServerConfigError, match="needs the .npz"):
        Oracle([])
    with pytest.raises(ServerConfigError, match="expected an .npz"):
        Oracle([tmp_path / "missing.npz"])


class Always:
    """A user's labeler."""

    def __init__(self, answer="cat"):
        self.answer = answer

    def label(self, batch):
        return [self.answer for _ in batch]


@pytest.mark.parametrize("kind", ["nobody", "no.such.module:name", "test_labelling:missing", "test_labelling:NOW_MS"])
def test_a_labeler_that_is_none_is_a_mistake_in_the_file(kind):
    with pytest.raises(ServerConfigError, match="kind"):
        load(kind, ())


def test_a_labeler_of_the_users_own():
    assert load("test_labelling:Always", ()).label([question()]) == ["cat"]
    assert load("test_labelling:Always", ("a.npz",)).label([question()]) == [["a.npz"]]


@pytest.mark.parametrize("answer", [True, -1, 1.5, "", b"cat", ["cat"], " cat", "Cannot Tell", "x" * 201])
def test_an_answer_that_makes_no_sense_is_an_error(answer):
    with pytest.raises(LabelError, match="expected a name, an index or None"):
        ask(Always(answer), [question()])


def test_what_a_labeler_raises_is_its_error():
    class Broken:
        def label(self, batch):
            raise KeyError("gpu")

    class Short:
        def label(self, batch):
            return []

    with pytest.raises(LabelError, match="labeler Broken: KeyError: 'gpu'"):
        ask(Broken(), [question()])
    with pytest.raises(LabelError, match="0 answers to 1 questions"):
        ask(Short(), [question()])


# --- labelling ---


def test_everything_is_asked_once_and_kept(store, tmp_path):
    asked = labelling(store, Oracle([replay(tmp_path)]))
    assert [asked.step() for _ in range(4)] == [3, 3, 1, 0]
    assert in_force(store) == {0: 0, 1: 1, 2: 2, 3: 1, 4: 0, 5: CANNOT_TELL, 6: CANNOT_TELL}
    with store.database.read() as connection:
        assert labels.names(connection) == ("cat", "dog", "owl")


def test_a_label_says_which_version_of_a_labeler_gave_it(store):
    class Second(Always):
        version = 2

    labelling(store, Second()).step()
    with store.database.read() as connection:
        assert set(connection.execute(sa.select(label.c.labeler, label.c.kind)).all()) == {("test@2", "test")}


def test_a_question_shows_the_sample_and_the_guess(store):
    class Curious:
        seen: tuple = ()

        def label(self, batch):
            self.seen += tuple((q.id, q.ref, q.guess, q.confidence, q.array().tolist()) for q in batch)
            return [None for _ in batch]

    with store.database.write() as connection:
        labels.ensure_names(connection, ["a", "b", "c", "d"])
    curious = Curious()
    labelling(store, curious, batch=1).step()
    assert curious.seen == (("cam-1.main.1.0", "cam-1:0", "d", 0.5, image(0).tolist()),)


def test_an_index_must_be_of_a_known_class(store):
    with store.database.write() as connection:
        labels.ensure_names(connection, ["a", "b"])
    with pytest.raises(LabelError, match=r"answered class 2, known are 0\.\.1"):
        labelling(store, Always(2)).step()
    assert in_force(store) == {}
    labelling(store, Always(1)).step()
    assert in_force(store) == {0: 1, 1: 1, 2: 1}


def test_a_failing_labeler_is_asked_again_and_loses_nothing(store, monkeypatch):
    done = threading.Event()

    class Flaky:
        calls = 0

        def label(self, batch):
            self.calls += 1
            if self.calls <= 2:
                raise TimeoutError("no answer")
            if len(batch) < 3:
                done.set()
            return ["cat" for _ in batch]

    monkeypatch.setattr("server.label.labelling.RETRY_S", 0.01)
    worker = labelling(store, Flaky())
    worker.start()
    assert done.wait(10)
    worker.stop(timeout_s=10)
    assert in_force(store) == dict.fromkeys(range(7), 0)
    assert worker.errors == 2


def test_nothing_unforeseen_ends_labelling_for_good(store, monkeypatch):
    done = threading.Event()

    class Last(Always):
        def label(self, batch):
            if len(batch) < 3:
                done.set()
            return super().label(batch)

    worker = labelling(store, Last())
    plan, failures = worker._chooser.everything, [IndexError("numpy"), ZeroDivisionError("clusters")]

    def failing(count, *, champion):
        if failures:
            raise failures.pop()
        return plan(count, champion=champion)

    monkeypatch.setattr("server.label.labelling.RETRY_S", 0.01)
    monkeypatch.setattr(worker._chooser, "everything", failing)
    worker.start()
    assert done.wait(10)
    worker.stop(timeout_s=10)
    assert (len(in_force(store)), worker.errors) == (7, 2)


@pytest.mark.parametrize(("taken_ms", "seconds"), [(6_000, 2.0), (30, 0.0)])
def test_a_persons_time_is_kept_and_that_of_a_program_is_not(store, taken_ms, seconds):
    now = [NOW_MS]

    class Slow(Always):
        def label(self, batch):
            now[0] += taken_ms
            return super().label(batch)

    Labelling(store, Slow(), name="test", batch=3, now_ms=lambda: now[0]).step()
    with store.database.read() as connection:
        assert connection.execute(sa.select(label.c.seconds)).scalars().all() == [seconds] * 3


def test_new_samples_are_asked_about_when_it_is_woken(store):
    asked = threading.Semaphore(0)

    class Counting:
        def label(self, batch):
            for _ in batch:
                asked.release()
            return [0 for _ in batch]

    with store.database.write() as connection:
        labels.ensure_names(connection, ["a"])
    worker = labelling(store, Counting())
    worker.start()
    assert all(asked.acquire(timeout=10) for _ in range(7))
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message("cam-1", "sample", frame) for frame in sample_frames("cam-1", 99)])
    worker.wake()
    assert asked.acquire(timeout=10)
    worker.stop(timeout_s=10)
    assert in_force(store)[99] == 0


# --- a budget ---


def budgeted(store, now, **options) -> Labelling:
    return Labelling(store, Always(), name="test", batch=2, now_ms=lambda: now[0], **options)


@pytest.mark.parametrize("strategy", ["arrival", "gumbel"])
def test_no_24_hours_see_more_questions_than_the_budget(store, strategy):
    now = [NOW_MS]
    asked = budgeted(store, now, strategy=strategy, labels_per_day=3)
    assert [asked.step() for _ in range(3)] == [2, 1, 0]
    now[0] += DAY_MS - 1
    assert asked.step() == 0
    now[0] += 1
    assert [asked.step() for _ in range(3)] == [2, 1, 0]
    now[0] += DAY_MS
    assert [asked.step() for _ in range(2)] == [1, 0]
    assert len(in_force(store)) == 7


@pytest.mark.parametrize(
    ("strategy", "labels_per_day", "kept"),
    [("arrival", 0, {1.0}), ("gumbel", 0, {1.0}), ("arrival", 3, {None})],
)
def test_a_probability_is_kept_where_it_is_known(store, strategy, labels_per_day, kept):
    asked = budgeted(store, [NOW_MS], strategy=strategy, labels_per_day=labels_per_day)
    while asked.step():
        pass
    assert probabilities(store) == kept


def test_a_drawn_question_keeps_its_probability(store):
    asked = budgeted(store, [NOW_MS], strategy="gumbel", labels_per_day=3)
    while asked.step():
        pass
    assert all(0.0 < p < 1.0 for p in probabilities(store))


def test_what_was_drawn_is_asked_again_when_the_labeler_fails(store):
    class Once:
        calls: tuple = ()

        def label(self, batch):
            self.calls += (tuple(question.id for question in batch),)
            if len(self.calls) == 1:
                raise TimeoutError("no answer")
            return ["cat" for _ in batch]

    labeler = Once()
    asked = Labelling(store, labeler, name="test", batch=2, now_ms=lambda: NOW_MS, strategy="gumbel", labels_per_day=2)
    with pytest.raises(LabelError):
        asked.step()
    assert asked.step() == 2
    assert labeler.calls[0] == labeler.calls[1]


def probabilities(store) -> set:
    with store.database.read() as connection:
        return set(connection.execute(sa.select(label.c.probability)).scalars())
