from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.novelty import Projection
from edge_agent.choose.quantile import LATELY, NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.scenes import Before
from edge_agent.choose.selector import Chosen, Selector, State
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.contract.errors import ConfigError

BLOCK = 32
DIMENSIONS = 16


def stream(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Utilities with a burst in the middle, and embeddings in scenes of near-duplicates."""
    rng = np.random.default_rng(seed)
    utility = rng.beta(1, 6, count).astype(np.float32)
    utility[count // 2 : count // 2 + count // 10] += 0.4
    scenes = rng.normal(size=(count // 20 + 1, DIMENSIONS))
    embedding = scenes[np.arange(count) // 20] + 0.05 * rng.normal(size=(count, DIMENSIONS))
    return utility, embedding.astype(np.float32)


def play(
    selector: Selector, utility: np.ndarray, embedding: np.ndarray, sizes: list[int], *, begin: int = 0
) -> list[Chosen]:
    """Offer a stream in blocks of the given sizes, each in a ring of BLOCK rows."""
    chosen, at, turn = [], begin, 0
    ring = np.zeros((BLOCK, DIMENSIONS), np.float32)
    scores = np.zeros(BLOCK, np.float32)
    while at < len(utility):
        count = min(sizes[turn % len(sizes)], len(utility) - at)
        ring[:count], scores[:count] = embedding[at : at + count], utility[at : at + count]
        scored = Scored(scores.copy(), np.zeros(BLOCK, np.intp), np.ones(BLOCK, np.float32))
        for row, selection in selector.offer(scored, ring, count=count, sample_bytes=100):
            chosen.append(Chosen(at + row, selection))
        at, turn = at + count, turn + 1
    return chosen


def selector(share: float = 0.05, *, seed: int = 12_345, saved: bytes = b"", **rules: float) -> Selector:
    return NoveltyQuantile(Rules(label_share=share, **rules), SplitMix64(seed), saved=saved)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, BLOCK), min_size=1, max_size=8), st.integers(0, 1000))
def test_the_same_decisions_for_any_chunking(sizes: list[int], seed: int) -> None:
    utility, embedding = stream(800, seed=seed)
    assert play(selector(seed=seed), utility, embedding, sizes) == play(
        selector(seed=seed), utility, embedding, [BLOCK]
    )


@pytest.mark.chance
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="kernels of one processor")
@pytest.mark.parametrize("kernels", ["Haswell"])
def test_the_same_decisions_for_any_chunking_on_processors_that_round_by_the_row(kernels: str) -> None:
    """Haswell's matrix product gives a row other last bits at another place of its block."""
    folder = Path(__file__).parent
    files = [str(folder / name) for name in ("test_selector.py", "test_vessal.py", "test_loop.py", "test_targets.py")]
    argv = [sys.executable, "-m", "pytest", "-q", "-k", "any_chunking and not round_by or any_blocks", *files]
    environment = {**os.environ, "OPENBLAS_CORETYPE": kernels, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, env=environment, cwd=folder.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 25), st.integers(0, 1000))
def test_the_same_decisions_after_a_restart(blocks: int, seed: int) -> None:
    utility, embedding = stream(800, seed=seed)
    whole = play(selector(seed=seed), utility, embedding, [BLOCK])
    cut = blocks * BLOCK
    first = selector(seed=seed)
    before = play(first, utility[:cut], embedding[:cut], [BLOCK])
    second = selector(seed=999, saved=first.save())
    assert before + play(second, utility, embedding, [BLOCK], begin=cut) == whole


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([0.01, 0.05, 0.2]), st.sampled_from([1.0, 5.0, 20.0]), st.integers(0, 10_000))
def test_no_window_exceeds_its_budget(share: float, depth: float, seed: int) -> None:
    utility, embedding = stream(2000, seed=seed)
    rows = [chosen.row for chosen in play(selector(share, seed=seed, depth_labels=depth), utility, embedding, [BLOCK])]
    for i in range(len(rows)):
        for j in range(i, len(rows)):
            assert j - i + 1 <= share * (rows[j] - rows[i]) + depth + 1e-6


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_the_budget_is_spent(share: float) -> None:
    utility, embedding = stream(20_000, seed=3)
    chosen = play(selector(share), utility, embedding, [BLOCK])
    assert 0.9 * share < len(chosen) / len(utility) < 1.1 * share


@pytest.mark.chance
def test_the_recorded_probability_is_the_one_that_decides() -> None:
    """Among samples selected with p, the weights 1/p must add up to the length of the stream (Horvitz-Thompson)."""
    estimates = []
    for seed in range(40):
        utility, embedding = stream(4000, seed=1)
        chosen = play(selector(0.05, seed=seed), utility, embedding, [BLOCK])
        estimates.append(sum(1 / c.selection.probability for c in chosen) / len(utility))
    standard_error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - 1.0) < 4 * standard_error


def test_the_floor_is_never_starved_on_a_burst() -> None:
    """Every sample, however dull, keeps a chance: else the fleet's accuracy cannot be estimated."""
    utility, embedding = stream(20_000, seed=5)
    chosen = play(selector(0.05), utility, embedding, [BLOCK])
    floor = 0.05 * 0.1
    assert min(c.selection.probability for c in chosen) >= floor * (1 - 1e-9)
    dull = {"explore", "random"} & {c.selection.reason for c in chosen}
    assert dull == {"explore", "random"}


def test_near_duplicates_of_what_was_sent_are_passed_over() -> None:
    """One scene shown for ever, as uncertain as can be, against scenes that change: the second gets the labels."""
    rng = np.random.default_rng(0)
    count = 4000
    still = np.arange(count) % 2 == 0
    embedding = rng.normal(size=(count, DIMENSIONS)).astype(np.float32)
    embedding[still] = embedding[0] + 0.02 * rng.normal(size=(int(still.sum()), DIMENSIONS))
    utility = rng.uniform(0.2, 0.6, count).astype(np.float32)
    rows = [c.row for c in play(selector(), utility, embedding, [BLOCK])]
    assert sum(still[row] for row in rows) < 0.25 * len(rows)


def scenes(count: int, *, seed: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Scenes of near samples: of a quarter the model is unsure throughout, of the rest it is sure."""
    rng = np.random.default_rng(seed)
    scene = np.arange(count) // length
    unsure = rng.random(count // length + 1) < 0.25
    utility = np.where(unsure[scene], rng.uniform(0.3, 0.9, count), rng.beta(1, 20, count))
    centres = rng.normal(size=(count // length + 1, DIMENSIONS))
    embedding = centres[scene] + 0.2 * rng.normal(size=(count, DIMENSIONS))
    return utility.astype(np.float32), embedding.astype(np.float32)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000))
def test_scenes_are_told_from_a_stream_without_order(seed: int) -> None:
    utility, embedding = scenes(2000, seed=seed, length=25)
    ordered, mixed = selector(seed=seed), selector(seed=seed)
    order = np.random.default_rng(seed).permutation(2000)
    play(ordered, utility, embedding, [BLOCK])
    play(mixed, utility[order], embedding[order], [BLOCK])
    assert ordered._state.alike > 0.3
    assert abs(mixed._state.alike) < 0.15


def test_scenes_that_the_model_is_sure_of_are_asked_about_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be sure and wrong: a threshold as sharp as for an unordered stream would leave most of them out."""

    def covered() -> int:
        return sum(
            len({c.row // 25 for c in play(selector(seed=seed), *scenes(4000, seed=seed, length=25), [BLOCK])})
            for seed in range(6)
        )

    with_scenes = covered()
    monkeypatch.setattr("edge_agent.choose.quantile.CALM", 0.0)
    assert with_scenes > 1.1 * covered()


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_what_a_scene_showed_is_not_asked_about_again_while_another_waits(share: float) -> None:
    """Measured by the mean of all samples, nothing is a near-duplicate once most scenes were asked about."""
    rng = np.random.default_rng(0)
    scene = np.arange(4000) // 20
    utility = np.clip(rng.random(200)[scene] + 0.1 * rng.normal(size=4000), 0.0, 1.0).astype(np.float32)
    embedding = rng.normal(size=(200, DIMENSIONS))[scene] + 0.2 * rng.normal(size=(4000, DIMENSIONS))
    rows = [chosen.row for chosen in play(selector(share), utility, embedding.astype(np.float32), [BLOCK])]
    asked = len({row // 20 for row in rows})
    assert asked > 0.78 * min(200, len(rows))


def test_how_new_a_sample_usually_is_does_not_change_with_how_long_scenes_last() -> None:
    def usual(length: int) -> float:
        rng = np.random.default_rng(1)
        centres = rng.normal(size=(300, DIMENSIONS))
        shown = np.repeat(centres, length, axis=0)
        embedding = (shown + 0.05 * rng.normal(size=shown.shape)).astype(np.float32)
        one = selector()
        play(one, rng.random(len(shown)).astype(np.float32), embedding, [BLOCK])
        return one._state.mean_novelty

    assert usual(20) > 0.5 * usual(1)


def test_the_sample_before_is_known_across_blocks_and_restarts_and_not_across_models() -> None:
    sketches = Projection(0)(np.random.default_rng(0).normal(size=(10, DIMENSIONS)).astype(np.float32))
    whole = Before().distance(sketches, 10)
    assert whole[0] == np.inf
    np.testing.assert_allclose(whole[1:], 1.0 - np.sum(sketches[1:] * sketches[:-1], axis=1), atol=1e-6)
    one = Before()
    first = one.distance(sketches, 4)
    two = Before(saved=one.save())
    assert np.concatenate([first, two.distance(sketches[4:], 6)]).tolist() == whole.tolist()
    two.forget()
    assert two.distance(sketches, 1).tolist() == [np.inf]
    assert Before(saved=Before().save()).distance(sketches, 1).tolist() == [np.inf]


def test_without_an_embedding_utility_alone_decides() -> None:
    rng = np.random.default_rng(0)
    one, utilities = selector(), []
    for block in range(250):
        utility = rng.uniform(0, 1, BLOCK).astype(np.float32)
        scored = Scored(utility, np.zeros(BLOCK, np.intp), np.ones(BLOCK, np.float32))
        chosen = one.offer(scored, None, count=BLOCK, sample_bytes=100)
        utilities += [c.selection.utility for c in chosen if block > 30 and c.selection.reason == "informative"]
    assert len(utilities) > 200
    assert np.mean(utilities) > 0.9


def test_a_model_that_lost_its_embedding_under_the_same_version_goes_on() -> None:
    """As when it is brought anew while the device keeps its state: what was sent has sketches, what comes has none."""
    utility, embedding = stream(1000, seed=2)
    one = selector(0.2)
    assert play(one, utility, embedding, [BLOCK])
    two = selector(0.2, saved=one.save())
    scored = Scored(utility[:BLOCK].copy(), np.zeros(BLOCK, np.intp), np.ones(BLOCK, np.float32))
    for _ in range(10):
        assert all(c.selection.novelty == 1.0 for c in two.offer(scored, None, count=BLOCK, sample_bytes=100))


def test_invalid_samples_are_never_selected() -> None:
    utility, embedding = stream(2000, seed=0)
    utility[::2] = np.nan
    rows = [c.row for c in play(selector(0.2), utility, embedding, [BLOCK])]
    assert rows
    assert all(row % 2 for row in rows)


def test_a_new_model_with_other_scores_does_not_change_the_rate() -> None:
    utility, embedding = stream(20_000, seed=2)
    utility[10_000:] *= 0.01
    one = selector()
    play(one, utility[:10_000], embedding[:10_000], [BLOCK])
    one.model_changed()
    chosen = play(one, utility, embedding, [BLOCK], begin=10_000)
    assert 0.04 < len(chosen) / 10_000 < 0.06


def unordered(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Utilities and embeddings of strangers."""
    rng = np.random.default_rng(seed)
    return rng.beta(1, 6, count).astype(np.float32), rng.normal(size=(count, DIMENSIONS)).astype(np.float32)


@pytest.mark.parametrize(("make", "fewest", "most"), [(unordered, 300, 700), (stream, 20, 90)])
def test_a_new_model_is_met_by_the_last_values_where_the_stream_has_no_order(
    make: Callable[..., tuple[np.ndarray, np.ndarray]], fewest: int, most: int
) -> None:
    """Half of what it sees first is above nearly all; in scenes, whose last values are of one, chance decides."""
    chosen = 0
    for seed in range(100):
        utility, embedding = make(410, seed=seed)
        one = selector(0.05, seed=seed)
        play(one, utility[:400], embedding[:400], [BLOCK])
        one.model_changed()
        utility[400:] = np.linspace(0.0, 1.0, 10, dtype=np.float32)
        chosen += len(play(one, utility, embedding, [BLOCK], begin=400))
    assert fewest < chosen < most


def test_the_values_of_the_model_before_make_room_for_its_own() -> None:
    utility, embedding = unordered(400, seed=1)
    one = selector()
    play(one, utility, embedding, [BLOCK])
    one.model_changed()
    utility, embedding = unordered(LATELY + 40, seed=2)
    utility -= 5.0
    play(one, utility[:10], embedding[:10], [BLOCK])
    assert sum(value < -1.0 for value in one._state.warm or []) == 10
    assert len(one._state.warm or []) == LATELY
    one = selector(saved=one.save())
    play(one, utility, embedding, [BLOCK], begin=10)
    assert len(one._state.warm or []) == LATELY + 40
    assert max(one._state.warm or [0.0]) < -1.0


def test_the_values_of_another_acquisition_are_not_gone_on_with() -> None:
    utility, embedding = unordered(400, seed=1)
    one = selector()
    one.meet(model="m 1", acquisition="margin")
    play(one, utility, embedding, [BLOCK])
    one.meet(model="m 2", acquisition="margin")
    assert len(one._state.warm or []) == LATELY
    one.meet(model="m 2", acquisition="entropy")
    assert one._state.warm == []


def test_of_an_older_rules_state_the_budgets_are_gone_on_with() -> None:
    utility, embedding = unordered(400, seed=1)
    one = selector()
    play(one, utility, embedding, [BLOCK])
    state = msgspec.msgpack.decode(one.save())
    older = {key: value for key, value in state.items() if key not in ("met", "lately")}
    two = selector(seed=9, saved=msgspec.msgpack.encode({**older, "strategy": "novelty-quantile-3"}))
    assert two.purse.label_tokens == one.purse.label_tokens
    assert two._rng.draw() == one._rng.draw()
    assert (two._state.warm, two._state.lately, two._state.met) == ([], [], 0)


def test_what_was_saved_before_the_generator_changed_is_gone_on_with() -> None:
    utility, embedding = stream(400, seed=1)
    one = selector()
    play(one, utility, embedding, [BLOCK])
    state = msgspec.msgpack.decode(one.save())
    generator = json.dumps(np.random.default_rng(3).bit_generator.state).encode()
    older = msgspec.msgpack.encode({"ring": state.pop("sketches"), **state, "generator": generator})
    two, three = selector(seed=8, saved=older), selector(seed=9, saved=older)
    assert (two._state.theta, two.purse.label_tokens) == (one._state.theta, one.purse.label_tokens)
    assert two._novelty.sent == 0  # sketches of before tell nothing
    assert play(two, utility, embedding, [BLOCK]) == play(three, utility, embedding, [BLOCK])


def test_bytes_a_day_are_kept_to() -> None:
    utility, embedding = stream(5000, seed=0)
    one = selector(0.2, bytes_per_day=10_000.0)  # 1,000 at once, and no time passes
    assert len(play(one, utility, embedding, [BLOCK])) <= 10
    assert one.purse.byte_tokens is not None
    assert one.purse.byte_tokens < 350  # a quarter of the bucket is left to the floor
    one.purse.pass_time(86_400)
    assert one.purse.byte_tokens == 1000.0


def through_days(**limits: float) -> tuple[list[Chosen], np.ndarray]:
    """Two days of 10,000 samples, as many an hour; what was chosen, and the utilities."""
    rng = np.random.default_rng(0)
    utility = rng.random(20_000).astype(np.float32)
    embedding = rng.normal(size=(len(utility), DIMENSIONS)).astype(np.float32)
    one, chosen = selector(0.05, **limits), []
    for begin in range(0, len(utility), 8):
        one.purse.pass_time(8 * 8.64)
        chosen += play(one, utility[: begin + 8], embedding, [8], begin=begin)
    return chosen, utility


@pytest.mark.parametrize("limits", [{"labels_per_day": 100.0}, {"bytes_per_day": 10_000.0}])
def test_a_limit_a_day_makes_it_choose_no_worse(limits: dict[str, float]) -> None:
    """The labels' bucket is full all the time then, and is not to be emptied at any price."""
    chosen, utility = through_days(**limits)
    informative = [utility[c.row] for c in chosen if c.selection.reason == "informative"]
    assert 80 < len(informative) < len(chosen) <= 200
    assert np.median(informative) > 0.93


@pytest.mark.parametrize("limits", [{"depth_labels": 1.0}, {"depth_labels": 1.3}, {"labels_per_day": 10.0}])
def test_where_little_more_than_one_may_go_at_once_it_chooses_all_the_same(limits: dict[str, float]) -> None:
    chosen, utility = through_days(**limits)
    informative = [utility[c.row] for c in chosen if c.selection.reason == "informative"]
    assert len(informative) > 0.6 * len(chosen) > 9
    assert np.median(informative) > 0.8


def test_the_same_decisions_for_any_chunking_under_limits_a_day() -> None:
    utility, embedding = stream(2000, seed=3)
    one, two = (selector(0.1, labels_per_day=1000.0, bytes_per_day=50_000.0) for _ in range(2))
    chosen = play(one, utility, embedding, [1, 7, BLOCK, 3])
    assert chosen == play(two, utility, embedding, [BLOCK])
    assert 30 < len(chosen) <= 50


def test_a_budget_that_can_never_pay_for_a_sample_is_refused() -> None:
    with pytest.raises(ConfigError, match="one sample costs 50000"):
        selector(bytes_per_day=10_000.0).purse.check(50_000)


def test_a_state_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="saved"):
        selector(saved=b"\x81\xa5theta\xc0")


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([0.01, 0.05, 0.2]),
    st.sampled_from([1.0, 20.0]),
    st.sampled_from([0.0, 5.0, 20.0]),
    st.sets(st.integers(0, 60), max_size=6),
    st.integers(0, 10_000),
)
def test_no_window_exceeds_its_budget_and_the_reserve(
    share: float, depth: float, reserve: float, grants: set[int], seed: int
) -> None:
    utility, embedding = stream(2000, seed=seed)
    one, chosen = selector(share, seed=seed, depth_labels=depth, reserve_labels=reserve), []
    for begin in range(0, 2000, BLOCK):
        if begin // BLOCK in grants:
            one.grant()
        chosen += play(one, utility[: begin + BLOCK], embedding, [BLOCK], begin=begin)
    rows = [c.row for c in chosen]
    for i in range(len(rows)):
        for j in range(i, len(rows)):
            assert j - i + 1 <= share * (rows[j] - rows[i]) + depth + reserve + 1e-6
    assert grants or not any(c.selection.reason == "drift" for c in chosen)


def test_a_grant_is_spent_once_and_soon_on_top_of_the_budget() -> None:
    utility, embedding = stream(6000, seed=4)
    one = selector(0.02, reserve_labels=20.0)
    play(one, utility[:3200], embedding, [BLOCK])
    assert one.grant() == 20.0
    assert one.grant() == 0.0
    drift = [c for c in play(one, utility, embedding, [BLOCK], begin=3200) if c.selection.reason == "drift"]
    assert len(drift) == 20
    assert drift[-1].row < 3200 + 500
    assert all(0.0 < c.selection.floor <= c.selection.probability for c in drift)


@pytest.mark.chance
def test_the_recorded_probability_holds_while_a_grant_is_spent() -> None:
    estimates = []
    for seed in range(60):
        utility, embedding = stream(2000, seed=1)
        one = selector(0.05, seed=seed, reserve_labels=40.0)
        one.grant()
        chosen = play(one, utility, embedding, [BLOCK])
        estimates.append(sum(1 / c.selection.probability for c in chosen) / len(utility))
    standard_error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - 1.0) < 4 * standard_error


def test_what_is_saved_for_a_change_is_the_same_for_any_chunking_and_after_a_restart() -> None:
    """0.006 labels a sample: 500 of them are 3, or a little less if each block is added by itself."""
    utility, embedding = stream(3000, seed=5)

    def run(size: int, *, restarted: bool = False) -> list[Chosen]:
        one, chosen = selector(0.3, reserve_labels=20.0), []
        for begin in range(0, 3000, 500):
            one.grant()
            for at in range(begin, begin + 500, size):
                chosen += play(one, utility[: min(at + size, begin + 500)], embedding, [size], begin=at)
                if restarted:
                    one = selector(0.3, seed=1, reserve_labels=20.0, saved=one.save())
        return chosen

    whole = run(BLOCK)
    assert sum(c.selection.reason == "drift" for c in whole) > 20 + 5
    assert run(7) == whole
    assert run(1) == whole
    assert run(13, restarted=True) == whole


def test_what_was_saved_up_stays_so_under_another_share() -> None:
    utility, embedding = stream(1000, seed=5)
    one = selector(0.5, reserve_labels=20.0)
    one.grant()
    one.purse.reserve.granted = 0.0
    play(one, utility, embedding, [BLOCK])
    one.change(Rules(label_share=0.01, reserve_labels=20.0))
    assert one.grant() == pytest.approx(0.01 * 1000)


def test_a_grant_survives_a_restart() -> None:
    utility, embedding = stream(2000, seed=2)
    one = selector(0.02, reserve_labels=20.0)
    one.grant()
    before = play(one, utility[:320], embedding, [BLOCK])
    two = selector(0.02, seed=1, reserve_labels=20.0, saved=one.save())
    rest = play(two, utility, embedding, [BLOCK], begin=320)
    assert before + rest == play(_granted(), utility, embedding, [BLOCK])


def _granted() -> Selector:
    one = selector(0.02, reserve_labels=20.0)
    one.grant()
    return one


def test_a_camera_that_shows_the_same_for_ever_harms_nothing() -> None:
    one = selector(0.05)
    utility = np.full(BLOCK, 0.3, np.float32)
    embedding = np.ones((BLOCK, DIMENSIONS), np.float32)
    scored = Scored(utility, np.zeros(BLOCK, np.intp), np.ones(BLOCK, np.float32))
    sent = [len(one.offer(scored, embedding, count=BLOCK, sample_bytes=100)) for _ in range(3000)]
    assert sum(sent[-100:]) <= 0.05 * 100 * BLOCK + 20


def test_a_share_of_one_takes_everything() -> None:
    utility, embedding = stream(1000, seed=4)
    chosen = play(selector(1.0), utility, embedding, [BLOCK])
    assert len(chosen) == len(utility)
    assert {c.selection.probability for c in chosen} == {1.0}
    assert {c.selection.reason for c in chosen} == {"informative", "explore", "random"}


def test_another_share_is_kept_to_from_the_next_sample_on() -> None:
    utility, embedding = stream(20_000, seed=6)
    one = selector(0.02)
    play(one, utility[:5000], embedding[:5000], [BLOCK])
    one.change(Rules(label_share=0.2))
    chosen = play(one, utility, embedding, [BLOCK], begin=5000)
    assert 0.18 < len(chosen) / 15_000 < 0.22


def test_energy_is_shared_by_inferring_and_sending_and_survives_a_restart() -> None:
    """100 J may go at once: of 800 samples inferring takes 80 J at 0.1 J each, and a sample of 100 bytes 1 J."""
    utility, embedding = stream(800, seed=3)
    energy = {"energy_per_day_j": 1000.0, "energy_per_byte_j": 0.01, "energy_per_sample_j": 0.1}
    free, bound = selector(0.5, depth_labels=400.0), selector(0.5, depth_labels=400.0, **energy)
    assert len(play(free, utility, embedding, [BLOCK])) > 200
    chosen = play(bound, utility, embedding, [BLOCK])
    assert 20 <= len(chosen) <= 100
    assert play(bound, utility, embedding, [BLOCK]) == []  # inferring alone overdraws it now
    again = selector(0.5, depth_labels=400.0, **energy, saved=bound.save())
    again.purse.pass_time(3600.0)  # 37 J, less than is owed
    assert play(again, utility[:BLOCK], embedding[:BLOCK], [BLOCK]) == []
    again.purse.pass_time(86_400.0)
    assert play(again, utility[:BLOCK], embedding[:BLOCK], [BLOCK])


def test_a_sample_that_takes_more_energy_than_may_go_at_once_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="costs 200 .*at most 100 may go at once"):
        selector(energy_per_day_j=1000.0, energy_per_byte_j=2.0).purse.check(100)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("warm", [False, True])
def test_an_embedding_that_is_not_finite_is_never_selected_and_harms_no_other(broken: float, warm: bool) -> None:
    utility, embedding = stream(1000, seed=0)
    at = 700 if warm else 0
    embedding[at : at + 200 : 2, 3] = broken
    one = selector(0.5, depth_labels=1000.0)
    chosen = play(one, utility, embedding, [BLOCK])
    assert any(at <= c.row < at + 200 for c in chosen)
    assert not any(at <= c.row < at + 200 and c.row % 2 == 0 for c in chosen)
    assert np.isfinite([[c.selection.novelty, c.selection.threshold] for c in chosen]).all()
    assert np.isfinite(one._novelty.memory).all()
    assert np.isfinite(one._state.mean_novelty)


def test_a_row_without_a_finite_embedding_is_marked_as_invalid_for_who_counts() -> None:
    scored = Scored(np.full(BLOCK, 0.5, np.float32), np.zeros(BLOCK, np.intp), np.ones(BLOCK, np.float32))
    embedding = np.ones((BLOCK, DIMENSIONS), np.float32)
    embedding[4] = np.nan
    selector().offer(scored, embedding, count=BLOCK, sample_bytes=100)
    assert np.flatnonzero(np.isnan(scored.utility)).tolist() == [4]


@pytest.mark.parametrize(
    ("model", "acquisition", "same"), [("m 1", "margin", True), ("m 2", "margin", False), ("m 1", "entropy", False)]
)
def test_the_scores_of_another_model_or_acquisition_begin_afresh(model: str, acquisition: str, same: bool) -> None:
    utility, embedding = stream(800, seed=1)
    one = selector()
    one.meet(model="m 1", acquisition="margin")
    play(one, utility, embedding, [BLOCK])
    saved = one.save()
    two = selector(seed=9, saved=saved)
    two.meet(model=model, acquisition=acquisition)
    assert (two.save() == saved) == same
    assert two.purse.label_tokens == one.purse.label_tokens
    assert two._rng.draw() == one._rng.draw()
    assert (two._state.warm == []) != same
    assert (two._novelty.sent == 0) != same


def test_the_quantile_of_another_share_is_not_gone_on_with() -> None:
    utility, embedding = stream(800, seed=1)
    one = selector(0.05)
    play(one, utility, embedding, [BLOCK])
    assert selector(0.05, saved=one.save())._state.warm is None
    assert selector(0.1, saved=one.save())._state.warm == []


def test_the_tokens_of_a_limit_survive_restarts_and_times_without_it() -> None:
    """100 a day, 10 at once, and no time passes: whatever happens, no more than 10."""
    utility, embedding = stream(2000, seed=2)
    one, sent = selector(0.2, labels_per_day=100.0, bytes_per_day=1e6), 0
    for _ in range(20):
        sent += len(play(one, utility, embedding, [BLOCK]))
        assert one.purse.byte_tokens is not None
        tokens = one.purse.byte_tokens
        one = selector(0.2, saved=one.save())
        one = selector(0.2, saved=one.save())
        assert one.purse.byte_tokens is None
        one.change(Rules(label_share=0.2, labels_per_day=100.0, bytes_per_day=1e6))
        assert one.purse.byte_tokens == tokens
    assert 5 <= sent <= 10


def test_a_share_of_nothing_sends_nothing() -> None:
    utility, embedding = stream(2000, seed=2)
    one = selector(0.0, reserve_labels=20.0)
    one.grant()
    assert play(one, utility, embedding, [BLOCK]) == []
    other = selector(0.1, reserve_labels=20.0)
    play(other, utility, embedding, [BLOCK])
    other.change(Rules(label_share=0.0, reserve_labels=20.0))
    other.grant()
    assert play(other, utility, embedding, [BLOCK]) == []


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, BLOCK), min_size=1, max_size=8), st.integers(0, 1000))
def test_energy_is_charged_alike_for_any_chunking(sizes: list[int], seed: int) -> None:
    utility, embedding = stream(800, seed=seed)
    energy = {"energy_per_day_j": 300.0, "energy_per_byte_j": 0.01, "energy_per_sample_j": 0.1}
    one, two = (selector(0.5, seed=seed, depth_labels=400.0, **energy) for _ in range(2))
    chosen = play(one, utility, embedding, sizes)
    assert chosen == play(two, utility, embedding, [BLOCK])
    assert 0 < len(chosen) < 35
    states = [msgspec.msgpack.decode(s.save(), type=State) for s in (one, two)]
    assert states[0].energy_tokens == states[1].energy_tokens
    assert states[0].energy_samples == states[1].energy_samples
