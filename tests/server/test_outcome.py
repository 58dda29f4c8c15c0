"""Is it said what a round's labels did, and whose they were?"""

from __future__ import annotations

import pytest
from device_words import FLEET, uploads

from server.collect.ingest import Ingest
from server.store import labels, runs
from server.store.labels import Label
from server.store.store import Store
from server.teach import outcome
from server.teach.snapshot import freeze

GATE = {"name": "stream", "state": "passed", "figure": 0.03, "interval": [0.01, 0.05], "limit": 0.0, "n": 90}


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path)
    Ingest(store, fleet=FLEET, offline_after_s=90.0).take([one for seq in range(9) for one in uploads("cam-1", seq)])
    with store.database.write() as connection:
        labels.ensure_names(connection, ["cat"])
    yield store
    store.close()


def judged(store, said: list[tuple[str, str]], *, at_ms: int, state: str = "passed", **figures: float) -> None:
    with store.database.write() as connection:
        first = labels.last_id(connection)
        given = [Label(f"cam-1.main.1.{first + n}", 0, who, at_ms - 1, kind=kind) for n, (who, kind) in enumerate(said)]
        labels.add(connection, given)
    frozen = freeze(store, now_ms=at_ms)
    report = {"figures": figures, "verdict": {"passed": state == "passed", "gates": [GATE]}}
    with store.database.write() as connection:
        run = runs.insert(connection, snapshot_id=frozen.id, champion=1, recipe="r", report={}, now_ms=at_ms)
        runs.finish(connection, run, state=state, report=report, now_ms=at_ms + 5)


def test_each_round_has_the_labels_since_the_one_before(store):
    people = [("ann", "human"), ("bob", "human"), ("ann", "human")]
    judged(store, people, at_ms=100, candidate_import_accuracy=0.7)
    judged(
        store, [("ann", "human"), ("clip", "teacher")], at_ms=200, state="rejected",
        champion_stream_accuracy=0.81, candidate_stream_accuracy=0.84, candidate_import_accuracy=0.9,
    )  # fmt: skip
    newest, first = outcome.rounds(store, "ann")
    assert (first["labels"], first["mine"], first["before"], first["after"]) == (3, 2, None, 0.7)
    assert (newest["labels"], newest["mine"], newest["before"], newest["after"]) == (1, 1, 0.81, 0.84)
    assert (newest["interval"], newest["state"], newest["version"]) == ((0.01, 0.05), "rejected", None)
    assert first["interval"] is None  # of the stream, of which nothing was held out
    assert outcome.rounds(store, "eve")[0]["mine"] == 0
    assert len(outcome.rounds(store, "ann", most=1)) == 1


def test_labels_of_a_round_that_came_to_nothing_are_those_of_the_next_that_is_judged(store):
    judged(store, [("ann", "human")], at_ms=100, candidate_import_accuracy=0.7)
    with store.database.write() as connection:
        labels.add(connection, [Label("cam-1.main.1.7", 0, "ann", 150, kind="human")])
    frozen = freeze(store, now_ms=160)
    for error in ("the disk is full", runs.INTERRUPTED):
        with store.database.write() as connection:
            run = runs.insert(connection, snapshot_id=frozen.id, champion=1, recipe="r", report={}, now_ms=160)
            runs.fail(connection, run, error=error, now_ms=161)
    judged(store, [], at_ms=200, candidate_import_accuracy=0.8)  # on the same snapshot
    newest = outcome.rounds(store, "ann")[0]
    assert (newest["labels"], newest["mine"]) == (1, 1)


def test_before_the_first_round_there_is_nothing_to_say(store):
    assert outcome.rounds(store, "ann") == []
