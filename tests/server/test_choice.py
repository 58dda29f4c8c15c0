"""Do picks equal their definitions, and is the probability that is kept with them true?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.label.choice import (
    ORDERS,
    STRATEGIES,
    Badge,
    choose,
    foremost,
    gumbel_top_k,
    lure_weights,
    utility,
    with_exploration,
)
from server.label.coverage import Pool, nearest_of, representatives, typical_order

FAIR = [name for name in STRATEGIES if name not in ("gumbel", "uniform")]  # those that need exploration to be so


def pool(size=60, seed=0, labelled=7, width=8, classes=4, price=None) -> Pool:
    rng = np.random.default_rng(seed)
    return Pool(
        rng.normal(size=(size, width)).astype(np.float32),
        rng.dirichlet(np.ones(classes), size).astype(np.float32),
        rng.normal(size=(labelled, width)).astype(np.float32),
        price,
    )


def permuted(made: Pool, order) -> Pool:
    price = None if made.price is None else made.price[order]
    return made._replace(embeddings=made.embeddings[order], probabilities=made.probabilities[order], price=price)


def rows(name, made, count=10, seed=0, exploration=0.0):
    return choose(name, made, count, rng=np.random.default_rng(seed), exploration=exploration).rows.tolist()


def margin64(made):
    ordered = np.sort(made.probabilities.astype(np.float64), axis=1)
    return 1 - (ordered[:, -1] - ordered[:, -2])


def k_centre64(made, count, among):
    """Every distance anew at every pick."""
    x, centres = made.embeddings.astype(np.float64), list(made.labelled.astype(np.float64))
    price = np.ones(len(x)) if made.price is None else made.price.astype(np.float64)
    picked: list[int] = []
    if not centres:
        picked.append(max(among, key=lambda i: ((x[i] - x.mean(axis=0)) ** 2).sum() / price[i]))
    while len(picked) < count:
        have = [*centres, *x[picked]]
        free = [i for i in among if i not in picked]
        picked.append(max(free, key=lambda i: min(((x[i] - c) ** 2).sum() for c in have) / price[i]))
    return picked


def margin_k_centre64(made, count):
    price = 1.0 if made.price is None else made.price
    return k_centre64(made, count, np.argsort(-margin64(made) / price)[: 10 * count].tolist())


def margin_order64(made, count):
    return np.argsort(-margin64(made) / (1.0 if made.price is None else made.price))[:count].tolist()


def balanced64(made, count):
    """Turn after turn, class after class: the nearest to the class's boundary of what no turn before has named."""
    p = made.probabilities.astype(np.float64)
    price = np.ones(len(p)) if made.price is None else made.price.astype(np.float64)
    named: list[int] = []
    orders = []
    for c in range(p.shape[1]):
        rival = np.delete(p, c, axis=1).max(axis=1)
        orders.append(np.argsort(-(1 - np.abs(p[:, c] - rival)) / price, kind="stable"))
    for turn in range(len(p)):
        named += [int(order[turn]) for order in orders]
    return list(dict.fromkeys(named))[:count]


BRUTE = {
    "margin": margin_order64,
    "margin_k_centre": margin_k_centre64,
    "k_centre": lambda made, count: k_centre64(made, count, range(len(made.embeddings))),
    "balanced": balanced64,
}  # badge and typical draw: below


def test_every_strategy_is_held_against_its_definition():
    assert {*BRUTE, "badge", "typical", "gumbel", "uniform"} == set(STRATEGIES)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("labelled", [0, 7])
@pytest.mark.parametrize("priced", [False, True])
@pytest.mark.parametrize("name", BRUTE)
def test_picks_equal_brute_force_whatever_the_order_of_rows(name, seed, labelled, priced):
    price = np.random.default_rng([seed, 1]).uniform(0.2, 5.0, 120).astype(np.float32) if priced else None
    made = pool(size=120, seed=seed, labelled=labelled, price=price)
    expected = BRUTE[name](made, 6)
    assert rows(name, made, 6) == expected
    order = np.random.default_rng(seed).permutation(120)
    assert [int(order[row]) for row in rows(name, permuted(made, order), 6)] == expected


@pytest.mark.parametrize("name", [*BRUTE, "typical"])
def test_what_is_labelled_may_stand_before_the_pool_in_one_array(name):
    """A view into rows of a larger array gives positions in the pool, never in that array (small-text's mistake)."""
    made = pool(size=80, seed=2)
    whole = np.concatenate((made.labelled, made.embeddings))
    assert rows(name, made._replace(embeddings=whole[7:], labelled=whole[:7])) == rows(name, made)


def test_typical_equals_its_definition():
    made = pool(size=90, seed=4)  # and 7 that are labelled: a cluster for each, and for each of 6 picks
    order = typical_order(made, 6, np.random.default_rng(3))
    mean = made.embeddings.astype(np.float64).mean(axis=0)
    x = np.concatenate((made.embeddings, made.labelled)) - mean
    centres = x[np.sort(np.random.default_rng(3).choice(97, 13, replace=False))]
    for _ in range(3):
        home = ((x[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
        centres = np.array([x[home == c].mean(axis=0) if (home == c).any() else centres[c] for c in range(13)])
    table = ((x[:, None] - centres[None]) ** 2).sum(axis=2)
    turns = np.bincount(table[90:].argmin(axis=1), minlength=13)
    table = table[:90]
    home = table.argmin(axis=1)
    keys = {}
    for c in range(13):
        own = sorted(np.flatnonzero(home == c), key=lambda i: table[i, home[i]])
        keys |= {int(i): (turns[c] + turn, -len(own), table[i, c]) for turn, i in enumerate(own)}
    expected = sorted(keys, key=lambda i: keys[i])
    assert order.tolist() == expected


@pytest.mark.parametrize("at_once", [1, 10])
def test_first_rounds_cover_the_clusters_however_few_picks_there_are_at_once(at_once):
    rng = np.random.default_rng(0)
    home = rng.permutation(np.repeat(np.arange(10), 60))
    looks = (np.eye(10, dtype=np.float32)[home] * 8 + rng.normal(0, 1, (600, 10))).astype(np.float32)
    left, picked = np.arange(600), np.zeros(0, np.intp)
    while len(picked) < 50:
        made = Pool(looks[left], np.full((len(left), 10), 0.1, np.float32), looks[picked])
        best = left[typical_order(made, at_once, rng)[:at_once]]
        picked, left = np.concatenate((picked, best)), np.setdiff1d(left, best)
    per_cluster = np.bincount(home[picked], minlength=10)
    assert per_cluster.min() >= 2
    assert per_cluster.max() <= 12


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, float("nan")]), max_size=12), st.integers(0, 15))
def test_the_foremost_are_those_that_a_stable_order_has_first(values, count):
    value = np.array(values, np.float32)
    assert foremost(value, count).tolist() == np.argsort(-value, kind="stable")[:count].tolist()


def test_a_price_is_divided_by():
    price = np.random.default_rng(1).uniform(0.1, 10.0, 60).astype(np.float32)
    made = pool(price=price)
    np.testing.assert_allclose(utility(made), margin64(made) / price, rtol=1e-5)
    assert rows("margin", made) == np.argsort(-margin64(made) / price)[:10].tolist()
    dear = pool(price=np.where(np.arange(60) < 30, 1e6, 1.0).astype(np.float32))
    for name in ("margin", "margin_k_centre", "k_centre", "balanced", "badge", "gumbel"):
        assert min(rows(name, dear)) >= 30


def gradients64(made):
    left = made.probabilities.astype(np.float64)
    left = left - np.eye(left.shape[1])[left.argmax(axis=1)]
    return np.einsum("nc,nd->ncd", left, made.embeddings.astype(np.float64)).reshape(len(left), -1)


def test_badge_proposes_by_the_distance_of_gradients_it_never_builds():
    made, g = pool(), gradients64(pool())
    rule, free, picked = Badge(made), np.ones(60, bool), []
    first = rule.chance(free)
    assert np.flatnonzero(first).tolist() == [np.square(g).sum(axis=1).argmax()]
    for row in (int(first.argmax()), 5, 17, 40):
        rule.took(row)
        picked.append(row)
        free[row] = False
        nearest = np.min([np.square(g - g[i]).sum(axis=1) for i in picked], axis=0) * free
        np.testing.assert_allclose(rule.chance(free), nearest / nearest.sum(), atol=1e-6)


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


@given(st.sampled_from(STRATEGIES), st.integers(1, 40), st.integers(0, 45), st.integers(0, 9), st.floats(0, 1))
def test_picks_are_rows_of_the_pool_each_once_with_a_probability(name, size, count, seed, exploration):
    made = pool(size=size, seed=seed)
    choice = choose(name, made, count, rng=np.random.default_rng(seed), exploration=exploration)
    assert len(choice.rows) == len(choice.probability) == min(size, count)
    assert len(set(choice.rows.tolist())) == len(choice.rows)
    assert set(choice.rows.tolist()) <= set(range(size))
    assert (choice.probability > 0).all()
    if name != "badge":
        assert (choice.probability <= 1 + 1e-12).all()
    if name in ORDERS:
        assert (choice.probability >= exploration * min(count, size) / size - 1e-9).all()


@pytest.mark.parametrize("name", FAIR)
def test_exploring_all_the_time_is_a_uniform_draw(name):
    choice = choose(name, pool(), 15, rng=np.random.default_rng(0), exploration=1.0)
    np.testing.assert_allclose(choice.probability, 15 / 60)


@pytest.mark.parametrize("count", [1, 4, 14])
@pytest.mark.parametrize("name", STRATEGIES)
def test_sums_of_label_over_probability_are_those_of_the_whole(name, count):
    """Of anything: how many there are, and something that goes with what the strategies look for."""
    made = pool(size=40, seed=3)
    values = np.column_stack([np.ones(40), utility(made) + np.random.default_rng(0).uniform(0, 1, 40)])
    rng = np.random.default_rng(1)
    sums = []
    for _ in range(1500):
        choice = choose(name, made, count, rng=rng, exploration=0.3)
        sums.append((values[choice.rows] / choice.probability[:, None]).sum(axis=0))
    error = np.std(sums, axis=0) / len(sums) ** 0.5
    assert (np.abs(np.mean(sums, axis=0) - values.sum(axis=0)) <= 4 * error + 1e-9).all()


@pytest.mark.parametrize(("count", "exploration"), [(5, 0.2), (10, 0.3), (1, 1.0)])
def test_where_the_exploration_is_a_whole_number_the_weights_add_up_exactly(count, exploration):
    for seed in range(20):
        choice = with_exploration(np.arange(count), 37, rng=np.random.default_rng(seed), exploration=exploration)
        assert (1 / choice.probability).sum() == pytest.approx(37)
        assert (choice.probability < 1).sum() == count * exploration


def test_what_is_explored_stands_anywhere_in_the_batch():
    places = [
        with_exploration(np.arange(10), 50, rng=np.random.default_rng(seed), exploration=0.1).probability.argmin()
        for seed in range(300)
    ]
    assert np.bincount(places, minlength=10).min() >= 10


def test_lure_weights_are_even_for_a_uniform_draw():
    np.testing.assert_allclose(lure_weights(1.0 / np.arange(30, 20, -1), 30), 3.0)


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
