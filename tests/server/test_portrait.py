"""Is what people are shown of a model's answers what its gates judge?"""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.teach.gates.answers import Said, ece
from server.teach.gates.held import Held
from server.teach.gates.portrait import Portrait, portraits

NAMES = np.array(["boot", "coat", "bag"])


def answered(seed: int, n: int, *, stream: float = 0.5) -> tuple[Held, Said]:
    """Held-out samples of which some came with a small probability, and what a model said of them."""
    rng = np.random.default_rng(seed)
    label, predicted = rng.choice(NAMES, n), rng.choice([*NAMES, ""], n, p=[0.3, 0.3, 0.3, 0.1])
    predicted = np.where(rng.random(n) < 0.6, label, predicted)
    origin = rng.random(n) < stream
    probability = np.where(origin, rng.choice([0.01, 0.05], n), 1.0)
    held = Held(predicted == label, np.zeros(n, np.bool_), origin, probability, np.repeat("cam-1", n), label)
    return held, Said(predicted, rng.uniform(0.3, 1.0, n), np.zeros(n), np.zeros(n))


@given(st.integers(0, 1000), st.integers(1, 200))
def test_every_sample_is_in_one_cell_and_one_bin(seed, n) -> None:
    held, said = answered(seed, n)
    found = portraits(held, said)
    assert sum(count for one in found.values() for _, _, count, _ in one.cells) == n
    assert sum(part.n for one in found.values() for part in one.bins) == n
    for origin, rows in (("stream", held.stream), ("import", ~held.stream)):
        if origin not in found:
            assert not rows.any()
            continue
        one, weight = found[origin], held.weight[rows]
        right = sum(mass for truth, told, _, mass in one.cells if truth == told)
        assert np.isclose(right / weight.sum(), np.average(held.candidate[rows], weights=weight))
        apart = sum(part.share * abs(part.accuracy - part.confidence) for part in one.bins)
        assert np.isclose(apart, ece(held.candidate[rows], said.confidence[rows], weight)[0])
        assert all(0.0 <= part.interval[0] <= part.accuracy <= part.interval[1] <= 1.0 for part in one.bins)


def test_it_is_kept_and_read_again_as_it_was() -> None:
    (one,) = portraits(*answered(1, 60, stream=1.0)).values()
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(one)), type=Portrait) == one
    assert "" in one.names  # no answer is a column of its own
