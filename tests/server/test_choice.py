"""Do picks equal their definitions, and is the probability that is kept with them true?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.label.choice import STRATEGIES, Badge, audit_first, choose, gumbel_top_k, uniform, utility
from server.label.coverage import Pool, nearest_of, representatives

NAMES = [*STRATEGIES, "gumbel", "uniform"]


def pool(size=60, seed=0, labelled=7, width=8, classes=4, price=None) -> Pool:
    rng = np.random.default_rng(seed)
    return Pool(
        rng.normal(size=(size, width)).astype(np.float32),
        rng.dirichlet(np.ones(classes), size).astype(np.float32),
        rng.normal(size=(labelled, width)).astype(np.float32),
        price,
    )


def permuted(made: Pool, order) -> Pool:
    return made._replace(embeddings=made.embeddings[order], probabilities=made.probabilities[order])


def rows(name, made, count=10, seed=0, exploration=0.0):
    return choose(name, made, count, rng=np.random.default_rng(seed), exploration=exploration).rows.tolist()


def margin64(made):
    ordered = np.sort(made.probabilities.astype(np.float64), axis=1)
    return 1 - (ordered[:, -1] - ordered[:, -2])


def k_centre64(made, count, among):
    """Every distance anew at every pick."""
    x, centres = made.embeddings.astype(np.float64), list(made.labelled.astype(np.float64))
    picked: list[int] = []
    if not centres:
        picked.append(max(among, key=lambda i: ((x[i] - x.mean(axis=0)) ** 2).sum()))
    while len(picked) < count:
        have = [*centres, *x[picked]]
        free = [i for i in among if i not in picked]
        picked.append(max(free, key=lambda i: min(((x[i] - c) ** 2).sum() for c in have)))
    return picked


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("labelled", [0, 7])
def test_k_centre_equals_brute_force_whatever_the_order_of_rows(seed, labelled):
    made = pool(seed=seed, labelled=labelled)
    expected = k_centre64(made, 10, range(60))
    assert rows("k_centre", made) == expected
    order = np.random.default_rng(seed).permutation(60)
    assert [int(order[row]) for row in rows("k_centre", permuted(made, order))] == expected


@pytest.mark.parametrize("seed", range(4))
def test_margin_then_k_centre_equals_brute_force_whatever_the_order_of_rows(seed):
    made = pool(size=200, seed=seed)
    among = np.argsort(-margin64(made))[:50].tolist()
    expected = k_centre64(made, 5, among)
    assert rows("margin_k_centre", made, 5) == expected
    order = np.random.default_rng(seed).permutation(200)
    assert [int(order[row]) for row in rows("margin_k_centre", permuted(made, order), 5)] == expected


def test_margin_takes_the_narrowest():
    made = pool()
    assert rows("margin", made) == np.argsort(-margin64(made))[:10].tolist()


def test_a_price_is_divided_by():
    price = np.random.default_rng(1).uniform(0.1, 10.0, 60).astype(np.float32)
    made = pool(price=price)
    np.testing.assert_allclose(utility(made), margin64(made) / price, rtol=1e-5)
    assert rows("margin", made) == np.argsort(-margin64(made) / price)[:10].tolist()
    dear = pool(price=np.where(np.arange(60) < 30, 1e6, 1.0).astype(np.float32))
    for name in ("margin", "balanced", "badge", "gumbel"):
        assert min(rows(name, dear)) >= 30


def gradients64(made):
    left = made.probabilities.astype(np.float64)
    left = left - np.eye(left.shape[1])[left.argmax(axis=1)]
    return np.einsum("nc,nd->ncd", left, made.embeddings.astype(np.float64)).reshape(len(left), -1)


def test_badge_proposes_by_the_distance_of_gradients_it_never_builds():
    made, g = pool(), gradients64(pool())
    rule, free, picked = Badge(made), np.ones(60, bool), []
    first = rule.propose(free)
    assert first.rows.tolist() == [np.square(g).sum(axis=1).argmax()]
    for row in (int(first.rows[0]), 5, 17, 40):
        rule.took(row)
        picked.append(row)
        free[row] = False
        nearest = np.min([np.square(g - g[i]).sum(axis=1) for i in picked], axis=0) * free
        np.testing.assert_allclose(rule.propose(free).chance, nearest / nearest.sum(), atol=1e-6)


def test_badge_goes_on_when_all_coincide():
    same = Pool(np.ones((9, 3), np.float32), np.full((9, 2), 0.5, np.float32), np.zeros((0, 3), np.float32))
    assert len(set(rows("badge", same, 8))) == 8


def test_a_first_round_takes_one_typical_sample_of_every_cluster():
    rng = np.random.default_rng(0)
    centres = np.eye(6, dtype=np.float32)[:4] * 20
    home = rng.permutation(np.repeat(np.arange(4), 100))
    made = Pool(
        (centres[home] + rng.normal(0, 1, (400, 6))).astype(np.float32),
        np.full((400, 4), 0.25, np.float32),
        np.zeros((0, 6), np.float32),
    )
    picked = rows("typical", made, 16)
    assert set(home[picked].tolist()) == {0, 1, 2, 3}
    own = np.linalg.norm(made.embeddings - centres[home], axis=1)
    assert own[picked].mean() < own.mean()


def test_nearest_equals_its_definition():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    table = ((a[:, None] - b[None]) ** 2).sum(axis=2)
    home, distance = nearest_of(a, b)
    assert home.tolist() == table.argmin(axis=1).tolist()
    np.testing.assert_allclose(distance, table.min(axis=1), atol=1e-5)


def test_under_imbalance_a_rare_class_has_its_turns():
    rng = np.random.default_rng(0)
    common = np.column_stack([rng.uniform(0.5, 0.55, 490), np.zeros(490)])
    p = np.vstack([common, [[0.3, 0.45]] * 10])
    p = np.column_stack([p, 1 - p.sum(axis=1)]).astype(np.float32)
    made = Pool(rng.normal(size=(500, 3)).astype(np.float32), p, np.zeros((0, 3), np.float32))
    rare = [sum(row >= 490 for row in rows(name, made, 20)) for name in ("margin", "balanced")]
    assert rare[0] == 0
    assert rare[1] >= 5


# --- probability ---


@given(st.sampled_from(NAMES), st.integers(1, 40), st.integers(0, 45), st.integers(0, 9), st.floats(0, 1))
def test_picks_are_rows_of_the_pool_each_once_with_a_probability(name, size, count, seed, exploration):
    made = pool(size=size, seed=seed)
    choice = choose(name, made, count, rng=np.random.default_rng(seed), exploration=exploration)
    assert len(choice.rows) == len(choice.probability) == min(size, count)
    assert len(set(choice.rows.tolist())) == len(choice.rows)
    assert set(choice.rows.tolist()) <= set(range(size))
    assert ((choice.probability > 0) | (exploration < 1e-9)).all()
    assert (choice.probability <= 1 + 1e-12).all()
    if name not in ("gumbel", "uniform") and size > count:
        least = 1 - np.prod(1 - exploration / (size - np.arange(count)))
        assert (choice.probability >= least - 1e-9).all()


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_exploring_all_the_time_is_a_uniform_draw(name):
    choice = choose(name, pool(), 15, rng=np.random.default_rng(0), exploration=1.0)
    np.testing.assert_allclose(choice.probability, 15 / 60)


def test_gumbel_weighs_back_to_the_whole_without_bias():
    rng = np.random.default_rng(0)
    weight = rng.uniform(0.01, 1.0, 50).astype(np.float32)
    value = weight + rng.uniform(0.0, 1.0, 50)
    sums = []
    for _ in range(4000):
        choice = gumbel_top_k(weight, 12, rng=rng)
        sums.append((value[choice.rows] / choice.probability).sum())
    error = np.std(sums) / len(sums) ** 0.5
    assert np.mean(sums) == pytest.approx(value.sum(), abs=4 * error)


def test_gumbel_is_a_draw_in_proportion_to_the_weight():
    rng = np.random.default_rng(0)
    firsts = np.bincount([gumbel_top_k(np.array([1, 2, 5], np.float32), 1, rng=rng).rows[0] for _ in range(4000)])
    np.testing.assert_allclose(firsts / 4000, [0.125, 0.25, 0.625], atol=0.03)


def test_the_audit_comes_first_and_is_drawn_alike():
    audit = np.array([False, True, False, True, True])
    weight = np.ones(5, np.float32)
    rng = np.random.default_rng(0)
    two = audit_first(audit, weight, 2, rng=rng)
    assert audit[two.rows].all()
    assert two.probability.tolist() == [2 / 3, 2 / 3]
    four = audit_first(audit, weight, 4, rng=rng)
    assert set(four.rows[:3].tolist()) == {1, 3, 4}
    assert four.probability[:3].tolist() == [1, 1, 1]
    assert four.rows[3] in (0, 2)
    assert audit_first(audit, weight, 9, rng=rng).probability.tolist() == [1.0] * 5
    assert uniform(0, 3, rng=rng).rows.tolist() == []


# --- duplicates ---


def representatives64(embeddings, value, bodies, limit):
    kept, stands = [], {}
    x = embeddings.astype(np.float64)
    for i in sorted(range(len(x)), key=lambda i: (-value[i], i)):
        for k in kept:
            cosine = x[i] @ x[k] / max(np.linalg.norm(x[i]) * np.linalg.norm(x[k]), 1e-30)
            if bodies[i] == bodies[k] or cosine >= limit:
                stands[i] = k
                break
        else:
            kept.append(i)
            stands[i] = i
    return stands


@pytest.mark.parametrize("block", [2, 512])
@pytest.mark.parametrize("seed", range(5))
def test_what_stands_for_what_equals_brute_force(seed, block, monkeypatch):
    monkeypatch.setattr("server.label.coverage._BLOCK", block)
    rng = np.random.default_rng(seed)
    things = rng.normal(size=(6, 3))
    embeddings = (things[rng.integers(0, 6, 40)] + rng.normal(0, 0.05, (40, 3))).astype(np.float32)
    value = rng.random(40).astype(np.float32)
    bodies = [f"{i}" for i in range(40)]
    found = representatives(embeddings, value, min_cosine=0.99)
    expected = representatives64(embeddings, value, bodies, 0.99)
    assert {i for i in range(40) if found[i] == i} == {i for i in range(40) if expected[i] == i}
    assert all(found[found[i]] == found[i] and value[found[i]] >= value[i] for i in range(40))


def test_the_same_body_needs_no_second_label_and_zero_is_like_nothing():
    embeddings = np.array([[1, 0], [0, 1], [0, 0], [0, 0], [2, 0]], np.float32)
    value = np.array([1, 2, 3, 4, 0], np.float32)
    found = representatives(embeddings, value, bodies=["a", "a", "b", "c", "d"])
    assert found.tolist()[:4] == [1, 1, 2, 3]
    assert found[4] == 4  # its like was itself a duplicate of another thing
