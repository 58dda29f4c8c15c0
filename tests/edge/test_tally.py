from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.selector import Chosen
from edge_agent.choose.tally import Tally
from edge_agent.contract.types import Selection

SELECTION = Selection(
    reason="informative", probability=0.5, utility=0.5, novelty=1.0, threshold=0.4, tokens=3.0, strategy="test"
)


@given(st.lists(st.lists(st.tuples(st.floats(-2, 2) | st.just(np.nan), st.booleans()), max_size=20), max_size=10))
def test_every_sample_is_counted_once(blocks: list[list[tuple[float, bool]]]) -> None:
    tally = Tally(classes=3)
    for block in blocks:
        utility = np.array([u for u, _ in block], np.float32)
        chosen = [Chosen(i, SELECTION) for i, (u, wanted) in enumerate(block) if wanted and u == u]
        scored = Scored(utility, np.arange(len(block)) % 3, np.full(len(block), 0.5, np.float32))
        tally.count(scored, chosen, count=len(block))
    tally.skip()
    counts = tally.counts()
    selected = sum(counts.selected.values())
    unsent = counts.scored - selected
    assert counts.read == sum(map(len, blocks)) + 1 == counts.scored + counts.invalid
    assert sum(counts.unsent_utility_histogram) == sum(counts.unsent_classes) == unsent
    assert counts.unsent_confidence_sum == unsent * 0.5


def test_a_model_with_more_classes_makes_room() -> None:
    tally = Tally(classes=2)
    tally.grow(4)
    tally.grow(3)
    assert len(tally.counts().unsent_classes) == 4
