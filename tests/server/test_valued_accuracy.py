"""Is the fleet's mean score what it is said to be, where devices say numbers? A planted one, through the real store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_fleet_accuracy import BLOCK, FLOOR, NOW_MS, Planted, evidence, holds

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.selector import Chosen
from edge_agent.contract.task import Said, Value
from server import config
from server.audit import accuracy, bias
from server.audit.yields import against_random
from server.store import labels, versions
from server.store.store import Store
from server.teach.outlook import harm

SCALE = 4.0


class Numbers(Planted):
    """Says 10 of everything; what is true is off by what it expects, or more."""

    def __init__(self, name: str, *, seed: int, worse: float = 1.0) -> None:
        super().__init__(name, skill=1.0, seed=seed)
        self.scores: list[float] = []
        self.values: dict[str, float] = {}
        self._worse = worse

    def _block(self) -> None:
        rng = self._rng
        spread = rng.beta(1.0, 4.0, BLOCK)  # of the scale
        off = spread * SCALE * self._worse * np.abs(rng.normal(size=BLOCK))
        utility = (spread / (1.0 + spread)).astype(np.float32)
        sure, p, draw = 1.0 - spread, np.clip(FLOOR + 0.9 * utility**2, 0.0, 1.0), rng.random(BLOCK)
        zeros, chosen = np.zeros(BLOCK, np.intp), []
        for row in np.flatnonzero(draw < p):
            sample = self._sample(int(row), utility, zeros, sure, p, draw)
            said = Said(values=(Value(0, 10.0, float(spread[row] * SCALE)),))
            self.sent.append(sample._replace(prediction=sample.prediction._replace(said=said)))
            chosen.append(Chosen(int(row), sample.selection))
            self.values[str(sample.id)] = 10.0 + float(off[row])
        self.seq += BLOCK
        self.scores += np.maximum(0.0, 1.0 - off / SCALE).tolist()
        scored = Scored(utility, zeros, sure.astype(np.float32))
        self.tally.count(scored, chosen, count=BLOCK, through_seq=self.seq)


def told(store: Store, device: Numbers) -> None:
    made = versions.Version(1, "m", 0, "", None, "0" * 64, 1, NOW_MS, "", {"scale/0": SCALE})
    with store.database.write() as connection:
        if versions.get(connection, 1) is None:
            versions.insert(connection, made)
        labels.ensure_names(connection, ["speed"])
        truth = ((name, {"values": [[0, value]]}) for name, value in device.values.items())
        labels.add(connection, [labels.Label(name, labels.VALUED, "t", NOW_MS, truth=one) for name, one in truth])


@pytest.fixture
def store(tmp_path: Path):
    store = Store.open(tmp_path / "data")
    yield store
    store.close()


def test_the_mean_score_of_the_stream_is_estimated_from_what_was_hard(store: Store) -> None:
    device = Numbers("cam", seed=1)
    device.see(6000)
    device.send(store)
    told(store, device)
    found, true = evidence(store), float(np.mean(device.scores))
    assert holds(accuracy.fleet(found), true)
    assert found.right.mean() < true - 0.05  # what plain counting would say
    assert accuracy.table(found, "class", names=("speed",)) == []
    (row,) = accuracy.table(found, "device", names=("speed",))
    assert row["accuracy"] == pytest.approx(accuracy.fleet(found)["accuracy"])
    with store.database.read() as connection:
        shown = bias.report(bias.gather(connection, now_ms=NOW_MS), names=("speed",))
        chosen = against_random(connection)
    assert shown["accuracy"]["plain"]["value"] == pytest.approx(found.right.mean())
    assert shown["true_class"] == []
    assert chosen.ratio is not None
    assert chosen.ratio > 1.2  # what is asked about lacks more of a full score than what comes at random


def test_larger_errors_are_harm_and_as_large_ones_are_not(store: Store) -> None:
    rules = config.Teach(harm_labels=200, harm_tolerance=0.02)
    for name, worse in (("same", 1.0), ("worse", 3.0)):  # the one, and then the other beside it
        device = Numbers(name, seed=2, worse=worse)
        device.see(9000)
        device.send(store)
        told(store, device)
        with store.database.read() as connection:
            version = versions.get(connection, 1)
            assert version is not None
            found = harm(connection, version, rules)
        assert (found.alarm_at is not None) == (worse > 1.0), found
