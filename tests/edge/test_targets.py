"""Does EPIG on a stream equal its definition, whatever the blocks and restarts?"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_agent.choose.acquisition import Scorer
from edge_agent.choose.committee import bald, epig
from edge_agent.choose.targets import EPIG, EVERY, GRID, KEPT, OUTCOMES, State, Targets
from edge_agent.contract.errors import ConfigError

BLOCK = 32
COUNT = 6 * BLOCK


def stream(members: int, classes: int, *, seed: int, count: int = COUNT) -> np.ndarray:
    """Logits (T, N, C) of members that agree for the most part; some cannot be used, a class of some is masked."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 2.0, (1, count, classes)) + rng.normal(0.0, 1.0, (members, count, classes))
    logits[0, rng.random(count) < 0.1, 0] = np.nan
    logits[:, rng.random(count) < 0.1, -1] = -np.inf
    return logits.astype(np.float32)


def play(targets: Targets, logits: np.ndarray, sizes: list[int], *, restart: bool = False) -> np.ndarray:
    """Utilities, in blocks of the given sizes, each in a ring of BLOCK rows that still holds what came before."""
    found, at, turn = [], 0, 0
    ring = np.full((len(logits), BLOCK, logits.shape[2]), 7.0, np.float32)
    while at < logits.shape[1]:
        count = min(sizes[turn % len(sizes)], logits.shape[1] - at)
        ring[:, :count] = logits[:, at : at + count]
        found.append(targets.utility(ring, count=count)[:count])
        at, turn = at + count, turn + 1
        targets = Targets(saved=targets.save()) if restart else targets
        targets.meet("m 1")
    return np.concatenate(found)


def made() -> Targets:
    targets = Targets()
    targets.meet("m 1")
    return targets


def definition(logits: np.ndarray) -> np.ndarray:
    """By the offline `epig`, sample by sample, with targets picked by hand."""
    taken: list[int] = []
    found = np.zeros(logits.shape[1], np.float32)
    for row in range(logits.shape[1]):
        sample = logits[:, row : row + 1]
        sound = bool(np.isfinite(sample.max(axis=2)).all())
        found[row] = np.nan if not sound else epig(sample, logits[:, taken[-KEPT:]])[0] if taken else 0.0
        if sound and (not taken or row >= taken[-1] + EVERY):
            taken.append(row)
    return found


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 5), st.integers(2, OUTCOMES), st.integers(0, 1000))
def test_it_is_the_information_about_every_so_many_th_sample_of_late(members: int, classes: int, seed: int) -> None:
    logits = stream(members, classes, seed=seed, count=(KEPT + 3) * EVERY)
    np.testing.assert_allclose(play(made(), logits, [BLOCK]), definition(logits), atol=3e-6)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(1, BLOCK), min_size=1, max_size=8),
    st.integers(2, 5),
    st.sampled_from([2, 7, OUTCOMES, OUTCOMES + 1, 40]),
    st.integers(0, 1000),
)
@example([1], 5, 40, 0)
def test_the_same_utilities_for_any_chunking_and_after_any_restart(
    sizes: list[int], members: int, classes: int, seed: int
) -> None:
    logits = stream(members, classes, seed=seed)
    whole = play(made(), logits, [BLOCK])
    assert play(made(), logits, sizes).tobytes() == whole.tobytes()
    assert play(made(), logits, sizes, restart=True).tobytes() == whole.tobytes()


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 5), st.integers(OUTCOMES + 1, 60), st.integers(0, 1000))
def test_of_many_classes_it_is_a_lower_bound(members: int, classes: int, seed: int) -> None:
    logits = stream(members, classes, seed=seed)
    told = np.log(min(members, OUTCOMES)) / np.log(min(members, classes))
    found, exact = play(made(), logits, [BLOCK]), definition(logits)
    usable = np.isfinite(exact)
    assert (np.isfinite(found) == usable).all()
    assert (found[usable] * told <= exact[usable] + 3e-6).all()
    assert found[usable].sum() * told > 0.3 * exact[usable].sum()


def test_what_is_disputed_and_never_comes_is_not_asked_about() -> None:
    """Members dispute two questions alike, so that bald cannot tell them apart; the stream is about the first."""
    rng = np.random.default_rng(0)
    usual = np.zeros((4, 2), np.float32) + np.float32([[3, -3], [3, -3], [-3, 3], [-3, 3]])
    rare = np.zeros((4, 2), np.float32) + np.float32([[3, -3], [-3, 3], [3, -3], [-3, 3]])
    is_rare = rng.random(COUNT) < 0.1
    logits = np.where(is_rare[None, :, None], rare[:, None], usual[:, None]).astype(np.float32)
    disputed = bald(logits)
    assert np.ptp(disputed) < 1e-6
    found = play(made(), logits, [BLOCK])[4 * EVERY :]
    assert found[~is_rare[4 * EVERY :]].min() > 2.0 * found[is_rare[4 * EVERY :]].max()


def test_another_model_begins_with_no_target() -> None:
    logits = stream(3, 4, seed=1)
    one = made()
    first = play(one, logits, [BLOCK])
    one.meet("m 1")
    assert play(one, logits, [BLOCK]).tobytes() != first.tobytes()
    one.meet("m 2")
    assert one.save() == b""
    one.meet("m 1")
    assert play(one, logits, [BLOCK]).tobytes() == first.tobytes()


def test_the_state_stays_small_and_what_cannot_be_read_is_refused() -> None:
    one = made()
    play(one, stream(5, 400, seed=0), [BLOCK])
    assert len(one.save()) < 5 * KEPT * OUTCOMES * 4 + 100
    assert Targets(saved=one.save()).save() == one.save()
    for wrong in (b"no", one.save()[:-9]):
        with pytest.raises(ConfigError, match="saved targets of epig"):
            Targets(saved=wrong)


@pytest.mark.parametrize("classes", [OUTCOMES, 40])
def test_sums_of_products_are_exact_in_any_order(classes: int) -> None:
    """Or a processor that sums in another order would choose other samples."""
    one = made()
    play(one, stream(5, classes, seed=0), [BLOCK])
    state = msgspec.msgpack.decode(one.save(), type=State)
    steps = np.frombuffer(state.ring, np.float32).astype(np.float64) * GRID
    assert (steps == np.rint(steps)).all()
    assert 0.0 <= steps.min() <= steps.max() <= GRID
    assert 512 * GRID**2 <= 2.0**53


def test_the_scorer_takes_it_by_name_and_counts_only_what_is_new() -> None:
    logits = stream(3, 4, seed=2, count=BLOCK)
    by_rows = np.ascontiguousarray(logits.transpose(1, 0, 2))
    targets = made()
    scorer = Scorer(EPIG, members=3, targets=targets)
    first = scorer.score(by_rows, count=5).utility[:5]
    rest = scorer.score(np.roll(by_rows, -5, axis=0), count=BLOCK - 5).utility[: BLOCK - 5]
    assert np.concatenate([first, rest]).tobytes() == play(made(), logits, [BLOCK]).tobytes()
    assert "margin stands in" in Scorer(EPIG, members=1).complaint
    assert Scorer(EPIG, members=0).complaint == ""
