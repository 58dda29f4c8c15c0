from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.selector import Chosen
from edge_agent.choose.tally import BINS, CUTS, Tally, bin_of
from edge_agent.contract.types import Selection
from edge_agent.contract.wire import JSON_MAX_BYTES

SELECTION = Selection(
    reason="informative", probability=0.5, utility=0.5, novelty=1.0, threshold=0.4, tokens=3.0, strategy="test"
)


blocks_of = st.lists(st.lists(st.tuples(st.floats(-2, 2) | st.just(np.nan), st.booleans()), max_size=20), max_size=10)


def make() -> Tally:
    return Tally(stream="main", version=1, classes=3)


def play(tally: Tally, block: list[tuple[float, bool]], *, through_seq: int = 0) -> None:
    utility = np.array([u for u, _ in block], np.float32)
    chosen = [Chosen(i, SELECTION) for i, (u, wanted) in enumerate(block) if wanted and u == u]
    scored = Scored(utility, np.arange(len(block)) % 3, np.full(len(block), 0.5, np.float32))
    tally.count(scored, chosen, count=len(block), through_seq=through_seq)


@given(blocks_of)
def test_every_sample_is_counted_once(blocks: list[list[tuple[float, bool]]]) -> None:
    tally = make()
    for block in blocks:
        play(tally, block)
    tally.skip()
    counts = tally.counts()
    selected = sum(counts.selected.values())
    unsent = counts.scored - selected
    assert counts.read == sum(map(len, blocks)) + 1 == counts.scored + counts.invalid
    assert sum(counts.unsent_utility_histogram) == sum(counts.unsent_classes) == unsent
    assert sum(counts.utility_histogram) == sum(counts.classes) == counts.scored
    assert counts.unsent_confidence_sum == unsent * 0.5
    assert counts.confidence_sums == tuple(n * 0.5 for n in counts.utility_histogram)


@given(st.lists(blocks_of, min_size=1, max_size=5))
def test_the_counts_of_each_model_can_be_told_apart(epochs: list[list[list[tuple[float, bool]]]]) -> None:
    tally, seq, ends = make(), -1, []
    for version, blocks in enumerate(epochs, 1):
        if version > 1:
            tally.model_changed(version=version, classes=3)
        for block in blocks:
            seq += len(block)
            play(tally, block, through_seq=seq)
        ends.append(tally.counts())
    unsent: dict = {"unsent_classes": (), "unsent_utility_histogram": (), "unsent_confidence_sum": 0.0}
    assert tally.cuts() == tuple(msgspec.structs.replace(end, **unsent) for end in ends[:-1][-CUTS:])
    for epoch, end in enumerate(ends):
        assert (end.epoch, end.model_version) == (epoch, epoch + 1)
        assert end.through_seq == sum(len(block) for blocks in epochs[: epoch + 1] for block in blocks) - 1


def test_a_model_with_more_classes_makes_room() -> None:
    tally = make()
    tally.model_changed(version=2, classes=4)
    tally.model_changed(version=3, classes=3)
    counts = tally.counts()
    assert len(counts.classes) == len(counts.unsent_classes) == 4


@given(st.floats(0, 1, width=32))
def test_a_bin_is_the_same_after_the_wire(utility: float) -> None:
    """Where the device rounded to float32 the server must too: 0.15 is in bin 3 as the one and in 2 as the other."""
    said = float(np.float32(utility))
    assert bin_of(np.array([utility], np.float32)) == bin_of(np.array([said])) <= BINS - 1


def test_the_counts_of_2000_classes_fit_a_heartbeat() -> None:
    """Of a million samples of each class by then, and after two changes of the model."""
    tally = Tally(stream="main", version=1, classes=2000)
    for version in (2, 3, 4):
        tally._scored.classes += 330_000
        tally.model_changed(version=version, classes=2000)
    size = len(msgspec.json.encode((tally.counts(), tally.cuts())))
    assert size < JSON_MAX_BYTES - 4096


def test_more_classes_than_fit_a_heartbeat_are_not_counted_one_by_one() -> None:
    tally = Tally(stream="main", version=1, classes=3)
    play(tally, [(0.5, False), (0.5, True)])
    for version in (2, 3):
        tally.model_changed(version=version, classes=10_000)
        scored = Scored(np.full(9, 0.5, np.float32), np.arange(9) * 1000, np.full(9, 0.5, np.float32))
        tally.count(scored, [], count=9, through_seq=99 * version)
    counts = tally.counts()
    assert (counts.scored, sum(counts.utility_histogram), counts.classes) == (20, 20, (1, 1, 0))
    assert len(msgspec.json.encode((counts, tally.cuts()))) < JSON_MAX_BYTES - 4096
    tally.model_changed(version=4, classes=3)
    play(tally, [(0.5, False)])
    assert tally.counts().classes == (2, 1, 0)
    alone = Tally(stream="main", version=1, classes=10_000)
    alone.count(scored, [], count=9, through_seq=9)
    assert alone.counts().classes == alone.counts().unsent_classes == ()
