"""Are labelers, models and guesses measured as they should be?"""

from __future__ import annotations

import pytest
from device_words import FLEET, uploads

from server.collect.ingest import Ingest
from server.errors import ServerConfigError
from server.label import quality
from server.label.prices import parse
from server.store import labels, questions
from server.store.labels import CANNOT_TELL, Label
from server.store.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message for seq in range(20) for message in uploads("cam-1", seq)])
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat", "dog"])
    yield store
    store.close()


def give(store, *answers: tuple) -> None:
    with store.database.write() as connection:
        labels.add(
            connection, [Label(f"cam-1.main.1.{seq}", k, who, 1, kind="human", **how) for seq, k, who, how in answers]
        )


def test_what_a_guess_sways(store):
    shown = [(seq, 0, "ann", {"guess": 0 if seq < 8 else 1, "shown": True}) for seq in range(10)]
    blind = [(seq, 0, "ann", {"guess": 0 if seq < 15 else 1, "shown": False}) for seq in range(10, 20)]
    give(store, *shown, *blind)
    with store.database.read() as connection:
        found = quality.of_guesses(connection)
    assert (found["shown"], found["blind"], found["sway"]) == (0.8, 0.5, pytest.approx(0.3))


def test_neither_models_nor_answers_that_were_taken_back_say_what_guesses_sway(store):
    seen = {"guess": 0, "shown": True}
    give(store, (0, 0, "ann", seen), (1, 1, "ann", seen), (2, CANNOT_TELL, "ann", seen))
    with store.database.write() as connection:
        labels.add(connection, [Label("cam-1.main.1.3", 1, "net", 1, kind="teacher", **seen)])
        questions.take_back(connection, questions.last_given(connection, "ann").id, now_ms=2)
        questions.take_back(connection, questions.last_given(connection, "ann").id, now_ms=2)
        found = quality.of_guesses(connection)
    assert (found["shown"], found["shown_n"]) == (1.0, 1)


def test_those_who_agree_with_others_and_those_who_cannot_tell(store):
    give(store, *[(seq, seq % 2, who, {}) for seq in range(10) for who in ("ann", "bob")])
    give(
        store,
        *[(seq, (seq + 1) % 2, "cyd", {}) for seq in range(5)],
        *[(seq, CANNOT_TELL, "dan", {}) for seq in range(5)],
    )
    give(store, *[(seq, 0, "eve", {}) for seq in range(15, 20)])
    with store.database.read() as connection:
        rows = {row["labeler"]: row for row in quality.of_labelers(connection)}
    assert (rows["ann"]["in_force"], rows["ann"]["in_force_n"]) == (1.0, 10)
    assert (rows["cyd"]["in_force"], rows["cyd"]["in_force_n"]) == (0.0, 5)
    assert (rows["dan"]["in_force"], rows["dan"]["estimated_accuracy"]) == (None, None)
    assert (rows["eve"]["in_force"], rows["eve"]["gold"]) == (None, None)  # nobody else was asked
    assert rows["ann"]["estimated_accuracy"] > 0.9 > 0.3 > rows["cyd"]["estimated_accuracy"]


@pytest.mark.parametrize("line", ["human", "human=", "human=-1", "human=3/min", "=3"])
def test_a_price_that_is_none(line):
    with pytest.raises(ServerConfigError, match="expected 'human=30/h'"):
        parse([line])
