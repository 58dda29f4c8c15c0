"""Do the rules see what is so?"""

from __future__ import annotations

import numpy as np
import pytest
import quadrants
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, uploads

from server import config
from server.collect.ingest import Ingest
from server.release.registry import add_artifact
from server.store import labels, runs, versions
from server.store.labels import Label
from server.store.schema import sample, version
from server.store.store import Store
from server.teach import outlook
from server.teach.harm import allowed_error
from server.teach.snapshot import freeze

RULES = config.Teach(labels_per_round=100, harm_labels=1000.0)
COUNT = 400


@pytest.fixture
def store(tmp_path):
    """Version 1 runs on a camera that is looked at often, and on one that is looked at seldom and hard to read."""
    store = Store.open(tmp_path / "store")
    quadrants.artifact(tmp_path / "1", version=1)
    add_artifact(store, tmp_path / "1", weights=None, now_ms=NOW_MS)
    rng = np.random.default_rng(1)
    seldom = rng.random(COUNT) < 0.2
    wrong = rng.random(COUNT) < np.where(seldom, 0.5, 0.02)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take([message for seq in range(COUNT) for message in uploads("cam-1", seq)])
    with store.database.write() as connection:
        index = labels.ensure_names(connection, ["a"])
        for seq in range(COUNT):
            chance = 0.002 if seldom[seq] else 0.02
            drawn = {"reason": "random", "split": "holdout", "model_version": 1, "predicted": 4 - int(wrong[seq])}
            values = drawn | {"floor": chance, "probability": chance}
            connection.execute(sa.update(sample).where(sample.c.id == name(seq)).values(values))
        labels.add(connection, [Label(name(seq), index["a"], "ann", NOW_MS, kind="human") for seq in range(COUNT)])
    yield store
    store.close()


def name(seq: int) -> str:
    return f"cam-1.main.1.{seq}"


def look(store) -> outlook.Look:
    with store.database.read() as connection:
        return outlook.look(connection, RULES, now_ms=NOW_MS)


def test_a_stream_that_stays_as_it_was_does_no_harm_though_its_hard_part_is_seen_seldom(store):
    """Of the labels some 10 % are errors, of the stream some 35 %: allowed is what is so of the stream."""
    harm = look(store).harm
    assert harm.alarm_at is None
    assert harm.errors / harm.labels < 0.2 < 0.3 < harm.allowed


def test_what_tells_nothing_of_this_version_is_no_evidence(store):
    """What another version said, what nobody could tell, and what was chosen for being hard."""
    with store.database.write() as connection:
        for first, change in ((0, {"model_version": 2}), (30, {"reason": "informative"})):
            ids = [name(seq) for seq in range(first, first + 10)]
            connection.execute(sa.update(sample).where(sample.c.id.in_(ids)).values(change))
        unclear = [Label(name(seq), labels.CANNOT_TELL, "ann", NOW_MS, kind="human") for seq in range(60, 70)]
        labels.add(connection, unclear)
    assert look(store).harm.labels == COUNT - outlook.LEARNED - 30


def test_what_was_judged_on_few_that_count_allows_more(store):
    """80 of 400 held-out samples weigh ten times as much as the others: they say as much as some 150."""
    snapshot = freeze(store, now_ms=NOW_MS)
    judged = {"snapshot_id": snapshot.id, "metrics": {"candidate_stream_accuracy": 0.7}}
    with store.database.write() as connection:
        connection.execute(sa.update(version).values(judged))
    allowed = look(store).harm.allowed
    assert allowed_error(0.3, 200, RULES.harm_tolerance) < allowed < allowed_error(0.3, 110, RULES.harm_tolerance)


def test_a_version_that_a_round_has_set_out_from_was_tried(store):
    snapshot = freeze(store, now_ms=NOW_MS)
    assert not look(store).tried
    for champion, tried in ((1, True), (0, False)):
        with store.database.write() as connection:
            run_id = runs.insert(
                connection, snapshot_id=snapshot.id, champion=champion, recipe="", report={}, now_ms=NOW_MS
            )
            runs.finish(connection, run_id, state="rejected", report={}, now_ms=NOW_MS)
        assert look(store).tried == tried
    with store.database.read() as connection:
        assert versions.champion(connection).number == 1
