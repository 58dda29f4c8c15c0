"""Is the audit left whole, is nothing paid for twice, and are sums of label / probability those of what waited?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.label.choice import STRATEGIES
from server.label.plan import Evidence, Labelled, Waiting, favoured, plan, price_of

NOBODY = Labelled([], np.zeros((0, 4), np.float32))


def waiting(size=60, seed=0, audit=6, things=None, unknown=0) -> Waiting:
    """`things`: how many different ones are shown; None: all differ."""
    rng = np.random.default_rng(seed)
    shown = np.arange(size) if things is None else rng.integers(0, things, size)
    looks = rng.normal(size=(size, 4))[shown] + rng.normal(0, 1e-3, (size, 4))
    encoded = np.ones(size, np.bool_)
    encoded[rng.choice(size, unknown, replace=False)] = False
    probabilities = rng.dirichlet(np.ones(3), size)
    return Waiting(
        audit=np.isin(np.arange(size), rng.choice(size, audit, replace=False)),
        utility=rng.random(size).astype(np.float32),
        bodies=[f"body {i}" for i in range(size)],
        encoded=encoded,
        embeddings=(looks * encoded[:, None]).astype(np.float32),
        probabilities=(probabilities * encoded[:, None]).astype(np.float32),
    )


def planned(
    made: Waiting, count: int, labelled: Labelled = NOBODY, *, seed=0, strategy="margin_k_centre", cosine=0.995
):
    rng = np.random.default_rng(seed)
    return plan(made, labelled, count, strategy=strategy, rng=rng, exploration=0.2, min_cosine=cosine)


@given(st.sampled_from(STRATEGIES), st.integers(0, 70), st.integers(1, 20), st.integers(0, 60), st.integers(0, 60))
def test_a_plan_holds_each_once_and_fills_its_room(strategy, count, things, audit, unknown):
    made = waiting(things=things, audit=audit, unknown=unknown)
    found = planned(made, count, strategy=strategy)
    assert len(set(found.rows.tolist())) == len(found.rows) == len(found.probability)
    heads = (found.stands_with == np.arange(60)) & ~made.audit
    assert len(found.rows) == min(count, audit + heads.sum())
    assert (found.probability > 0).all()
    assert (found.stands_with[found.rows] == found.rows).all()
    assert (found.stands_with[found.stands_with] == found.stands_with).all()


def test_the_audit_comes_first_alike_and_is_never_spared():
    made = waiting(audit=8)
    made = made._replace(embeddings=np.ones_like(made.embeddings), bodies=["same"] * 60)  # all show one thing
    labelled = Labelled(["same"], np.ones((1, 4), np.float32))
    few = planned(made, 4, labelled)
    assert made.audit[few.rows].all()
    assert few.probability.tolist() == [0.5] * 4
    many = planned(made, 20, labelled)
    assert set(many.rows.tolist()) == set(np.flatnonzero(made.audit).tolist())
    assert many.probability.tolist() == [1.0] * 8
    assert (many.stands_with[~made.audit] >= 60).all()


def test_of_several_that_show_the_same_one_stands_for_all_any_of_them():
    made = waiting(size=40, audit=0, things=5)
    shown = np.unique(np.round(made.embeddings, 1), axis=0, return_inverse=True)[1].ravel()
    stood: set[int] = set()
    for seed in range(60):
        found = planned(made, 40, seed=seed)
        assert sorted(shown[found.rows].tolist()) == sorted(set(shown.tolist()))
        np.testing.assert_allclose(1 / found.probability, np.bincount(shown)[shown[found.rows]])
        assert (shown[found.stands_with] == shown).all()
        stood |= set(found.rows.tolist())
    assert len(stood) == 40


def test_beside_an_audit_sample_or_a_label_nothing_that_shows_the_same_is_asked():
    made = waiting(size=30, audit=0)
    made.audit[3] = True
    made.embeddings[4] = made.embeddings[3] * 2
    labelled = Labelled(["body 7", "old"], np.concatenate([np.zeros((1, 4)), made.embeddings[9:10]]).astype(np.float32))
    found = planned(made, 30, labelled)
    assert found.stands_with[[4, 7, 9]].tolist() == [3, 30, 31]
    assert set(found.rows.tolist()) == set(range(30)) - {4, 7, 9}


def test_without_a_likeness_nothing_is_spared():
    made = waiting(size=20, things=3)
    assert len(planned(made, 20, cosine=None).rows) == 20


def test_what_the_champion_cannot_see_has_its_share_by_what_devices_said():
    made = waiting(size=60, audit=0, unknown=20)
    found = planned(made, 12)
    assert (~made.encoded[found.rows]).sum() == 4
    assert planned(waiting(size=60, audit=0, unknown=60), 12).rows.shape == (12,)
    assert (~made.encoded[planned(made, 2).rows]).sum() == 1


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("strategy", ["margin_k_centre", "badge", "gumbel", "balanced"])
def test_sums_of_label_over_probability_are_those_of_all_that_waited(strategy, count):
    """Duplicates, the audit and what the champion cannot see included."""
    made = waiting(size=30, seed=2, audit=2, things=20, unknown=6)
    made = made._replace(audit=np.zeros(30, np.bool_)) if count <= 2 else made
    values = np.column_stack([np.ones(30), made.utility])
    sums, beside = [], np.zeros(30, np.bool_)
    for seed in range(700):
        found = planned(made, count, seed=seed, strategy=strategy)
        sums.append((values[found.rows] / found.probability[:, None]).sum(axis=0))
        beside = made.audit[found.stands_with] & ~made.audit  # spared for good: nobody stands for them
    error = np.std(sums, axis=0) / len(sums) ** 0.5
    assert (np.abs(np.mean(sums, axis=0) - values[~beside].sum(axis=0)) <= 4 * error + 1e-9).all()


def test_what_the_strategy_goes_by():
    pool = np.full((9, 3), 1 / 3, np.float32)
    assert favoured(pool, Evidence(0.3, np.array([500, 500, 500]))) == "typical"
    assert favoured(pool, Evidence(None, np.array([0, 0, 0]))) == "typical"
    assert favoured(pool, Evidence(None, np.array([20, 20, 20]))) == "margin_k_centre"
    assert favoured(pool, Evidence(0.9, np.array([400, 10, 0]))) == "balanced"
    assert favoured(pool, Evidence(0.9, np.array([40, 10, 0]))) == "margin_k_centre"
    assert favoured(pool[:0], Evidence(0.9, np.array([0, 0, 0]))) == "margin_k_centre"


def test_a_price_is_the_expected_time_of_an_answer():
    p = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], np.float32)
    np.testing.assert_allclose(price_of(p, np.array([2.0, 6.0])), [0.5, 1.0, 1.5])
