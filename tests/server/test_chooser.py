"""Does what is asked follow from what the champion sees, what is labelled and what there is room for?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import quadrants
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, SELECTION, frames, message

from server import status
from server.collect.ingest import Ingest
from server.config import ServerConfig
from server.label import chooser
from server.label.labelling import DAY_MS, Labelling
from server.release.registry import add_artifact
from server.store import labels, snapshots
from server.store.labels import Label
from server.store.schema import label, sample
from server.store.store import Store

STRATEGIES = ("auto", "gumbel", "margin_k_centre", "badge", "k_centre", "typical", "balanced")


@pytest.fixture
def store(tmp_path):
    store = opened(tmp_path)
    yield store
    store.close()


def opened(folder: Path) -> Store:
    store = Store.open(folder / "store")
    quadrants.artifact(folder / "artifact", version=1)
    add_artifact(store, folder / "artifact", weights=None, now_ms=NOW_MS)
    return store


class Truth:
    """Knows which quadrant is lit."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def label(self, batch):
        self.asked += [question.id for question in batch]
        lit = [question.array().reshape(2, 4, 2, 4).mean(axis=(1, 3)).argmax() for question in batch]
        return [int(quadrant) for quadrant in lit]


def take(store, device: str, x: np.ndarray, reason: str = "informative", start: int = 0) -> None:
    selection = msgspec.structs.replace(SELECTION, reason=reason)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    for seq, data in enumerate(x, start):
        ingest.take([message(device, "sample", f) for f in frames(device, seq, data=data, selection=selection)])


def labelling(store, labeler, *, labels_per_day: int, now=lambda: NOW_MS, **options) -> Labelling:
    return Labelling(store, labeler, name="test", batch=4, now_ms=now, labels_per_day=labels_per_day, **options)


def run(asked: Labelling) -> None:
    while asked.step():
        pass


def kept(store) -> dict[str, float | None]:
    with store.database.read() as connection:
        return dict(connection.execute(sa.select(label.c.sample_id, label.c.probability)).all())


def counts(store) -> labels.Counts:
    with store.database.read() as connection:
        return labels.counts(connection)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_spends_the_budget_and_says_how_likely_each_was(store, strategy):
    take(store, "cam-1", quadrants.images(40)[0])
    take(store, "cam-1", quadrants.images(3, seed=1)[0], "explore", start=100)
    truth = Truth()
    run(labelling(store, truth, labels_per_day=9, strategy=strategy, duplicate_cosine=2.0))
    assert len(truth.asked) == 9
    assert all(int(one.rsplit(".", 1)[1]) >= 100 for one in truth.asked[:3])
    found = kept(store)
    assert [found[one] for one in truth.asked[:3]] == [1.0] * 3
    assert all(p is not None and p > 0 for p in found.values())
    if strategy not in ("gumbel", "badge"):  # one of the six is explored with the chance 0.6: the rest are certain
        assert sum(p == 1.0 for p in found.values()) >= 7
    with store.database.read() as connection:
        assert {row.id for row in snapshots.labelled(connection)} == set(found)


def test_an_audit_that_falls_behind_is_said_and_starves_nobody(store, caplog):
    take(store, "cam-1", quadrants.images(20)[0])
    take(store, "cam-1", quadrants.images(20, seed=1)[0], "random", start=100)
    truth = Truth()
    run(labelling(store, truth, labels_per_day=8, strategy="gumbel", duplicate_cosine=2.0))
    assert sum(int(one.rsplit(".", 1)[1]) >= 100 for one in truth.asked) == 4
    assert "16 samples of the audit wait" in caplog.text


def test_two_devices_that_see_the_same_cost_one_label(store):
    x, _ = quadrants.images(12)
    take(store, "cam-1", x)
    take(store, "cam-2", x)
    truth = Truth()
    run(labelling(store, truth, labels_per_day=24, strategy="auto"))
    assert len(truth.asked) <= 12
    assert counts(store).waiting == 0
    assert counts(store).labelled + counts(store).duplicates == 24
    assert sum(1 / p for p in kept(store).values()) == pytest.approx(24)
    view = status.overview(ServerConfig(), store, now_ms=NOW_MS)
    assert view["labels"]["duplicates"] == counts(store).duplicates


def test_what_shows_the_same_as_something_labelled_is_spared_but_never_the_audit(store):
    x, _ = quadrants.images(6)
    take(store, "cam-1", x)
    run(labelling(store, Truth(), labels_per_day=100, duplicate_cosine=2.0))
    take(store, "cam-2", x)
    take(store, "cam-3", x, "random")
    truth = Truth()
    run(labelling(store, truth, labels_per_day=100, duplicate_cosine=2.0))
    assert {one.split(".")[0] for one in truth.asked} == {"cam-3"}
    assert counts(store) == (12, 0, 0, 6, 0)


def test_a_duplicate_waits_as_long_as_what_it_stands_with_has_no_answer(store):
    class Down:
        def label(self, batch):
            raise TimeoutError

    x, _ = quadrants.images(3)
    take(store, "cam-1", x)
    take(store, "cam-2", x)
    with pytest.raises(Exception, match="TimeoutError"):
        labelling(store, Down(), labels_per_day=6).step()
    assert counts(store) == (0, 0, 6, 0, 0)


def test_nothing_is_spared_beside_what_nobody_could_tell(store):
    class Nobody:
        def label(self, batch):
            return [None] * len(batch)

    x, _ = quadrants.images(3)
    take(store, "cam-1", x)
    take(store, "cam-2", x)
    labelling(store, Nobody(), labels_per_day=100).step()
    assert counts(store) == (0, 3, 3, 0, 0)
    run(labelling(store, Truth(), labels_per_day=100))
    assert counts(store) == (3, 3, 0, 0, 0)


def test_what_was_erased_or_answered_elsewhere_since_the_plan_is_not_asked(store):
    """And what is erased while it is asked about leaves nothing behind."""
    x, _ = quadrants.images(12)
    take(store, "cam-1", x)
    take(store, "cam-2", x)

    class Erasing(Truth):
        def label(self, batch):
            with store.database.write() as connection:
                connection.execute(sa.delete(sample).where(sample.c.id == batch[0].id))
            return super().label(batch)

    truth = Erasing()
    asked = labelling(store, truth, labels_per_day=24)
    asked.step()
    first = truth.asked[:4]
    elsewhere = asked._planned[0].row.id
    with store.database.write() as connection:
        labels.add(connection, [Label(elsewhere, 0, "ann", 1)])
    run(asked)
    assert elsewhere not in truth.asked
    assert first[0] not in kept(store)
    assert set(first[1:]) <= kept(store).keys()


def test_without_a_budget_everything_is_labelled(store):
    x, _ = quadrants.images(5)
    for strategy, device in (("auto", "cam-1"), ("margin_k_centre", "cam-2"), ("gumbel", "cam-3")):
        take(store, device, x)
        run(labelling(store, Truth(), labels_per_day=0, strategy=strategy))
    assert counts(store) == (15, 0, 0, 0, 0)
    assert set(kept(store).values()) == {1.0}


def test_room_is_not_spent_little_by_little(store):
    now = [NOW_MS]
    asked = labelling(store, Truth(), labels_per_day=96, now=lambda: now[0], strategy="gumbel")
    with store.database.write() as connection:
        connection.execute(sa.insert(sample), [imported(i) for i in range(96)])
        labels.add(connection, [Label(f"import.{i}", 0, "test", NOW_MS - (i == 0), kind="test") for i in range(96)])
    take(store, "cam-1", quadrants.images(5)[0])
    now[0] = NOW_MS + DAY_MS - 1  # one of 96 is a day old: half of what a plan is made for
    assert asked.step() == 0
    now[0] += 1
    assert asked.step() == 4


def imported(i: int) -> dict[str, object]:
    plain = {"stream": "x", "boot": 0, "seq": i, "ref": "", "origin": "import", "split": "train", "dtype": "uint8"}
    times = {"captured_at_ms": 0, "received_at_ms": 0, "shape": [8, 8], "encoding": "raw", "body_bytes": 0}
    return {"id": f"import.{i}", "device": "", "body_sha256": f"{i:064x}", **plain, **times}


def test_dear_classes_are_asked_about_less(tmp_path):
    x, y = quadrants.images(60, seed=3)
    share = {}
    for seconds in (0.0, 500.0):
        store = opened(tmp_path / f"{seconds}")
        take(store, "cam-1", x)
        with store.database.write() as connection:
            connection.execute(sa.insert(sample), [imported(i) for i in range(80)])
            timed = [
                Label(f"import.{i}", i % 4, "ann", 1, seconds if i % 4 == 0 else seconds / 500.0) for i in range(80)
            ]
            labels.add(connection, timed)
        truth = Truth()
        run(labelling(store, truth, labels_per_day=20, strategy="k_centre", exploration=0.0, duplicate_cosine=2.0))
        share[seconds] = sum(y[int(one.rsplit(".", 1)[1])] == 0 for one in truth.asked)
        store.close()
    assert share[500.0] < share[0.0]


def test_a_sample_of_another_shape_still_has_its_chance(store):
    take(store, "cam-1", quadrants.images(10)[0])
    take(store, "mic-1", np.random.default_rng(0).integers(0, 9, (10, 5), np.uint8))

    class Anything:
        asked: tuple = ()

        def label(self, batch):
            self.asked += tuple(question.id for question in batch)
            return [0] * len(batch)

    labeler = Anything()
    run(labelling(store, labeler, labels_per_day=8, strategy="margin_k_centre", duplicate_cosine=2.0))
    assert sum(one.startswith("mic") for one in labeler.asked) == 4


def test_what_came_last_is_chosen_from_where_more_waits_than_is_looked_at(store, monkeypatch):
    """Under over-selection most is never wanted: the oldest of it must not fill the list of candidates for ever."""
    monkeypatch.setattr(chooser, "CANDIDATES", 10)
    for start in range(0, 30, 10):
        take(store, "cam-1", quadrants.images(10, seed=start)[0], start=start)
    with store.database.write() as connection:  # as if they had come one after the other
        connection.execute(sa.update(sample).values(received_at_ms=sample.c.seq))
    truth = Truth()
    run(labelling(store, truth, labels_per_day=5, strategy="margin_k_centre"))
    assert all(int(one.rsplit(".", 1)[1]) >= 20 for one in truth.asked)
