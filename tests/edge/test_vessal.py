from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.choose.acquisition import Scored, Scorer
from edge_agent.choose.rules import Rules
from edge_agent.choose.selector import Chosen, Selector
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.choose.strategy import make
from edge_agent.choose.vessal import RIDGE, SKETCH, Gradients, Vessal
from edge_agent.contract.errors import ConfigError

BLOCK = 32
CLASSES, DIMENSIONS = 5, 16
MARGIN = Scorer("margin")


def stream(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits with an uncertain burst in the middle, and embeddings in scenes of near-duplicates."""
    rng = np.random.default_rng(seed)
    logits = 3.0 * rng.normal(size=(count, CLASSES))
    logits[count // 2 : count // 2 + count // 10] *= 0.2
    scenes = rng.normal(size=(count // 20 + 1, DIMENSIONS))
    embedding = scenes[np.arange(count) // 20] + 0.05 * rng.normal(size=(count, DIMENSIONS))
    return logits.astype(np.float32), embedding.astype(np.float32)


def play(
    selector: Selector, logits: np.ndarray, embedding: np.ndarray, sizes: list[int], *, begin: int = 0
) -> list[Chosen]:
    """Offer a stream in blocks of the given sizes, each in a ring of BLOCK rows."""
    chosen, at, turn = [], begin, 0
    ring, seen = np.zeros((BLOCK, CLASSES), np.float32), np.zeros((BLOCK, DIMENSIONS), np.float32)
    while at < len(logits):
        count = min(sizes[turn % len(sizes)], len(logits) - at)
        ring[:count], seen[:count] = logits[at : at + count], embedding[at : at + count]
        found = selector.offer(MARGIN.score(ring), seen, count=count, sample_bytes=100)
        chosen += [Chosen(at + row, selection) for row, selection in found]
        at, turn = at + count, turn + 1
    return chosen


def vessal(share: float = 0.05, *, seed: int = 12_345, saved: bytes = b"", **rules: float) -> Selector:
    return make("vessal", Rules(label_share=share, **rules), SplitMix64(seed), saved=saved)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, BLOCK), min_size=1, max_size=8), st.integers(0, 1000))
def test_the_same_decisions_for_any_chunking(sizes: list[int], seed: int) -> None:
    logits, embedding = stream(800, seed=seed)
    assert play(vessal(seed=seed), logits, embedding, sizes) == play(vessal(seed=seed), logits, embedding, [BLOCK])


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 25), st.integers(0, 1000))
def test_the_same_decisions_after_a_restart(blocks: int, seed: int) -> None:
    logits, embedding = stream(800, seed=seed)
    whole = play(vessal(seed=seed), logits, embedding, [BLOCK])
    cut = blocks * BLOCK
    first = vessal(seed=seed)
    before = play(first, logits[:cut], embedding[:cut], [BLOCK])
    second = vessal(seed=999, saved=first.save())
    assert before + play(second, logits, embedding, [BLOCK], begin=cut) == whole


@settings(deadline=None, max_examples=15)
@given(st.sampled_from([0.01, 0.05, 0.2]), st.sampled_from([1.0, 5.0, 20.0]), st.integers(0, 10_000))
def test_no_window_exceeds_its_budget(share: float, depth: float, seed: int) -> None:
    logits, embedding = stream(2000, seed=seed)
    rows = [chosen.row for chosen in play(vessal(share, seed=seed, depth_labels=depth), logits, embedding, [BLOCK])]
    for i in range(len(rows)):
        for j in range(i, len(rows)):
            assert j - i + 1 <= share * (rows[j] - rows[i]) + depth + 1e-6


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_the_budget_is_spent(share: float) -> None:
    logits, embedding = stream(20_000, seed=3)
    chosen = play(vessal(share), logits, embedding, [BLOCK])
    assert 0.85 * share < len(chosen) / len(logits) < 1.1 * share


@pytest.mark.chance
def test_the_recorded_probability_is_the_one_that_decides() -> None:
    """Among samples selected with p, the weights 1/p must add up to the length of the stream (Horvitz-Thompson)."""
    logits, embedding = stream(4000, seed=1)
    estimates = [
        sum(1 / c.selection.probability for c in play(vessal(seed=seed), logits, embedding, [BLOCK])) / len(logits)
        for seed in range(40)
    ]
    standard_error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - 1.0) < 4 * standard_error


def test_every_sample_keeps_the_floor() -> None:
    logits, embedding = stream(20_000, seed=5)
    chosen = play(vessal(), logits, embedding, [BLOCK])
    assert min(c.selection.probability for c in chosen) >= 0.05 * 0.1 * (1 - 1e-9)
    assert {"explore", "random", "informative"} == {c.selection.reason for c in chosen}
    assert {c.selection.strategy for c in chosen} == {"vessal-1"}


def test_a_limit_a_day_makes_it_choose_no_worse() -> None:
    """Without, the median lies at .83 of the stream's utilities."""
    rng = np.random.default_rng(1)
    logits = (3.0 * rng.normal(size=(20_000, CLASSES))).astype(np.float32)
    embedding = rng.normal(size=(20_000, DIMENSIONS)).astype(np.float32)
    one, chosen = vessal(labels_per_day=80.0), []
    for begin in range(0, 20_000, 8):
        one.purse.pass_time(8 * 8.64)
        chosen += play(one, logits[: begin + 8], embedding, [8], begin=begin)
    utility = MARGIN.score(logits).utility
    informative = [utility[c.row] for c in chosen if c.selection.reason == "informative"]
    assert 50 < len(informative) < len(chosen) <= 160
    assert np.mean(utility < np.median(informative)) > 0.81


@pytest.mark.parametrize(("gap", "scale"), [(200.0, 1.0), (1.0, 0.0)])
def test_a_sample_without_a_gradient_keeps_the_floor_too(gap: float, scale: float) -> None:
    """So sure that nothing is left in float32, or an embedding of zeros: the audit must not miss them."""
    logits, embedding = stream(20_000, seed=5)
    sure = np.zeros_like(logits)
    sure[:, 0] = gap
    sure[::2] = logits[::2]
    seen = embedding.copy()
    seen[1::2] *= scale
    chosen = play(vessal(), sure, seen, [BLOCK])
    of_them = [c for c in chosen if c.row % 2]
    assert len(of_them) == pytest.approx(0.005 * 10_000, rel=0.4)
    assert {c.selection.reason for c in of_them} == {"explore", "random"}
    assert all(c.selection.probability == pytest.approx(0.005) for c in of_them)


def test_near_duplicates_of_what_was_sent_are_passed_over() -> None:
    """One uncertain scene shown for ever, against scenes that change: the second gets the labels."""
    rng = np.random.default_rng(0)
    count = 4000
    still = np.arange(count) % 2 == 0
    embedding = rng.normal(size=(count, DIMENSIONS)).astype(np.float32)
    embedding[still] = embedding[0] + 0.02 * rng.normal(size=(int(still.sum()), DIMENSIONS))
    logits = rng.normal(size=(count, CLASSES)).astype(np.float32)
    logits[still] = logits[0]
    rows = [c.row for c in play(vessal(), logits, embedding, [BLOCK])]
    assert sum(still[row] for row in rows) < 0.35 * len(rows)


def test_a_confident_model_is_not_asked_about() -> None:
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(4000, DIMENSIONS)).astype(np.float32)
    logits = rng.normal(size=(4000, CLASSES)).astype(np.float32)
    logits[::2, 0] += 12.0
    rows = [c.row for c in play(vessal(), logits, embedding, [BLOCK])]
    assert sum(row % 2 == 0 for row in rows) < 0.2 * len(rows)


def test_the_covariance_is_that_of_what_was_sent() -> None:
    """Sherman-Morrison in float32 against the inverse in float64."""
    rng = np.random.default_rng(0)
    sent = 0.1 * rng.normal(size=(500, SKETCH)).astype(np.float32)
    gradients = Gradients()
    for sketch in sent:
        gradients.remember(sketch)
    exact = np.linalg.inv(RIDGE * np.eye(SKETCH) + sent.astype(np.float64).T @ sent)
    x = rng.normal(size=(100, SKETCH)).astype(np.float32)
    assert gradients.distance(x) == pytest.approx(np.einsum("nd,de,ne->n", x, exact, x), rel=1e-2)


def test_the_sketch_keeps_the_products_of_gradients() -> None:
    """On average over projections: <x, y> = <g, g'> <h, h'> of the outer products they stand for."""
    rng = np.random.default_rng(0)
    scored = MARGIN.score(rng.normal(size=(2, CLASSES)).astype(np.float32))
    h = rng.normal(size=(2, DIMENSIONS)).astype(np.float32)
    g = scored.exp * scored.confidence[:, None] - np.eye(CLASSES)[scored.label]  # type: ignore[operator]
    unit = h / np.linalg.norm(h, axis=1)[:, None]
    products = [(lambda x: float(x[0] @ x[1]))(Gradients(seed=seed).sketch(scored, h)) for seed in range(400)]
    error = np.std(products) / np.sqrt(len(products))
    assert abs(np.mean(products) - float(g[0] @ g[1]) * float(unit[0] @ unit[1])) < 4 * error


def test_a_block_that_could_not_be_scored_selects_nothing() -> None:
    failed = Scored(np.full(BLOCK, np.nan, np.float32), np.zeros(BLOCK, np.intp), np.zeros(BLOCK, np.float32))
    embedding = np.ones((BLOCK, DIMENSIONS), np.float32)
    assert not [c for _ in range(100) for c in vessal(0.2).offer(failed, embedding, count=BLOCK, sample_bytes=1)]


def test_invalid_samples_are_never_selected_and_harm_no_other() -> None:
    logits, embedding = stream(2000, seed=0)
    logits[::2] = np.nan
    rows = [c.row for c in play(vessal(0.2), logits, embedding, [BLOCK])]
    assert len(rows) > 0.8 * 0.2 * 1000
    assert all(row % 2 for row in rows)


def test_a_new_model_does_not_change_the_rate() -> None:
    logits, embedding = stream(20_000, seed=2)
    logits[10_000:] *= 3.0
    one = vessal()
    play(one, logits[:10_000], embedding[:10_000], [BLOCK])
    one.model_changed()
    chosen = play(one, logits, embedding, [BLOCK], begin=10_000)
    assert 0.04 < len(chosen) / 10_000 < 0.06


@pytest.mark.parametrize(("before", "after"), [("novelty_quantile", "vessal"), ("vessal", "novelty_quantile")])
def test_another_strategy_begins_afresh_but_with_the_tokens_that_are_left(before: str, after: str) -> None:
    logits, embedding = stream(2000, seed=0)
    rules = Rules(label_share=0.05)
    first = make(before, rules, SplitMix64(0))
    play(first, logits, embedding, [BLOCK])
    second = make(after, rules, SplitMix64(0), saved=first.save())
    assert second.purse.label_tokens == first.purse.label_tokens
    assert play(second, logits, embedding, [BLOCK])


def test_an_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'vessal'"):
        make("vesal", Rules(label_share=0.05), SplitMix64(0))
    assert isinstance(vessal(), Vessal)
