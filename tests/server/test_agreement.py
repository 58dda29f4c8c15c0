"""Do several answers come to the class that is likeliest, as published and as brute force has it?"""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.store.agreement import Answers, accuracy_of, dawid_skene, posterior_of, rates

# Table 1 of Dawid and Skene (1979): 45 patients, five anaesthetists, the first of whom looked three times.
PATIENTS = """
1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111 2223212 1211111
1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111 1111111 1121121
1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222
""".split()  # noqa: SIM905 - a table
OBSERVERS = (0, 0, 0, 1, 2, 3, 4)


def published() -> Answers:
    triples = [(i, OBSERVERS[j], int(said) - 1) for i, row in enumerate(PATIENTS) for j, said in enumerate(row)]
    return Answers(*np.array(triples).T)


def test_the_published_example_comes_out_as_published():
    found = dawid_skene(published(), items=45, labelers=5, classes=4, prior=0.0)
    assert found.share.round(2).tolist() == [0.40, 0.42, 0.11, 0.07]
    first = rates(found.counts, prior=0.0)[0]
    expected = [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]]
    np.testing.assert_allclose(first, expected, atol=0.006)


def test_the_likelihood_never_falls():
    found = dawid_skene(published(), items=45, labelers=5, classes=4, prior=0.0).log_likelihood
    assert len(found) > 3
    assert all(later >= before - 1e-9 for before, later in itertools.pairwise(found))


questions = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=5)


@given(questions, st.integers(0, 1000))
def test_a_posterior_is_that_of_bayes(said, seed):
    rng = np.random.default_rng(seed)
    table, share = rng.dirichlet(np.ones(3), (3, 3)), rng.dirichlet(np.ones(3))
    joint = [share[k] * math.prod(table[j, k, answer] for j, answer in said) for k in range(3)]
    np.testing.assert_allclose(posterior_of(said, table, share), np.array(joint) / sum(joint), atol=1e-12)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=7))
def test_of_labelers_that_nobody_knows_the_majority_is_likeliest(answers):
    """And of equally many answers, the classes are equally likely."""
    table = rates(np.zeros((len(answers), 4, 4)))
    found = posterior_of(list(enumerate(answers)), table, np.full(4, 0.25))
    votes = np.bincount(answers, minlength=4)
    assert set(np.flatnonzero(found >= found.max() - 1e-12)) == set(np.flatnonzero(votes == votes.max()))


def by_loops(triples: list[tuple[int, int, int]], rounds: int) -> np.ndarray:
    """EM as the paper writes it: 4 items, 3 labelers, 2 classes, sums over everything."""
    posterior = np.array([[sum(s == k for at, _, s in triples if at == i) for k in (0, 1)] for i in range(4)], float)
    posterior /= posterior.sum(axis=1, keepdims=True)
    for _ in range(rounds):
        share = posterior.mean(axis=0)
        counts = np.zeros((3, 2, 2))
        for i, j, s in triples:
            counts[j, :, s] += posterior[i]
        table = rates(counts)
        for i in range(4):
            joint = [share[k] * math.prod(table[j, k, s] for at, j, s in triples if at == i) for k in (0, 1)]
            posterior[i] = np.array(joint) / sum(joint)
    return posterior


@given(st.integers(0, 1000))
def test_em_by_loops_gives_the_same(seed):
    rng = np.random.default_rng(seed)
    triples = [(i, j, int(rng.integers(2))) for i in range(4) for j in range(3) if rng.random() < 0.8 or j == 0]
    fit = dawid_skene(Answers(*np.array(triples).T), items=4, labelers=3, classes=2)
    np.testing.assert_allclose(fit.posterior, by_loops(triples, len(fit.log_likelihood)), atol=1e-9)


def test_a_careless_majority_loses_to_a_careful_labeler_and_gold_helps_to_see_who_is():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 400)
    accuracy = (0.97, 0.45, 0.45)
    said = [np.where(rng.random(400) < p, truth, rng.integers(0, 4, 400)) for p in accuracy]
    answers = Answers(np.tile(np.arange(400), 3), np.repeat(np.arange(3), 400), np.concatenate(said))
    votes = np.stack([np.bincount([column[i] for column in said], minlength=4) for i in range(400)])
    majority = (votes.argmax(axis=1) == truth).mean()
    found = dawid_skene(answers, items=400, labelers=3, classes=4)
    assert (found.posterior.argmax(axis=1) == truth).mean() > majority + 0.1
    assert accuracy_of(found.counts)[0] > accuracy_of(found.counts)[1:].max() + 0.2
    gold = {i: int(truth[i]) for i in range(40)}
    known = dawid_skene(answers, items=400, labelers=3, classes=4, known=gold)
    assert known.posterior[:40].argmax(axis=1).tolist() == truth[:40].tolist()
    assert (known.posterior.argmax(axis=1) == truth).mean() >= (found.posterior.argmax(axis=1) == truth).mean()


def test_nobody_is_judged_by_nothing():
    assert np.isnan(accuracy_of(np.zeros((1, 3, 3)))).all()
    np.testing.assert_allclose(rates(np.zeros((1, 3, 3)), prior=0.0), np.full((1, 3, 3), 1 / 3))
