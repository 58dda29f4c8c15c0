"""Does a split stand for the stream, weighted by its probabilities?"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.config import Snapshot as Settings
from server.teach.splits import into_split, sort_out


def row(**changes):
    known = {"id": "a", "device": "cam-1", "stream": "main", "boot": 1, "seq": 0, "origin": "device", "split": "train"}
    return SimpleNamespace(**(known | {"received_at_ms": 0, "probability": 0.5, "floor": 0.1} | changes))


def test_both_splits_are_unbiased_for_the_stream():
    """20,000 samples of known values, selected as a device does: by the floor, held out; by the rule, asked about."""
    rng = np.random.default_rng(0)
    count, floor, asked = 20_000, 0.05, 0.5
    value = rng.random(count)
    probability = floor + 0.9 * value**2  # what is worth more comes more often
    draw = rng.random(count)
    totals = {"train": [], "holdout": []}
    for i in np.flatnonzero(draw < probability):
        split = "holdout" if draw[i] < floor else "train"
        if split == "holdout" or rng.random() < asked:
            one = row(split=split, probability=float(probability[i]), floor=floor)
            totals[split].append((into_split(one, asked), value[i]))
    for split, found in totals.items():
        p, of = np.array(found).T
        error = 4 * np.sqrt(((1 - p) * (of / p) ** 2).sum())
        assert abs((of / p).sum() - value.sum()) < error < 0.2 * value.sum(), split
    plain = np.mean([of for _, of in totals["train"]])
    assert plain > 1.3 * value.mean()


def test_imports_have_none_and_what_came_on_top_has_its_own():
    assert into_split(row(probability=None, floor=None), 1.0) is None
    assert into_split(row(probability=0.3, floor=0.0), 0.5) == 0.15  # requested, disagreement: no floor
    assert into_split(row(probability=0.1, floor=0.1), 0.5) == 0.05  # rounding must not make a weight infinite


runs = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.integers(0, 60), st.booleans()),
    unique_by=lambda one: one[:3],
    max_size=30,
)


@given(runs, st.integers(1, 8))
def test_the_embargo_holds_within_a_run_and_nowhere_else(samples, within):
    rows = [
        row(id=f"{d}.main.{b}.{s}", device=d, boot=b, seq=s, split="holdout" if held else "train")
        for d, b, s, held in samples
    ]
    held = [one for one in rows if one.split == "holdout"]
    found = {one.sample_id for one in sort_out(rows, held, [], Settings(embargo_samples=within))}
    for one in rows:
        near = any((o.device, o.boot) == (one.device, one.boot) and abs(o.seq - one.seq) <= within for o in held)
        assert (one.id in found) == (one.split == "train" and near)
