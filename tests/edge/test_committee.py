"""Do the committee's scores equal their definitions, and what do plug-ins have to keep?"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.choose import acquisition
from edge_agent.choose.committee import bald, consensus_entropy, epig, kl_max, logits_of, vote_entropy
from edge_agent.contract.types import Reading
from edge_agent.source import Fit
from edge_agent.source.kinds import open_source
from edge_agent.source.options import Source
from edge_agent.testing import check_acquisition, check_source

LOGITS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 6)),
    elements=st.one_of(st.floats(-30, 30, width=32), st.just(np.float32(0.0))),
)
SCORES = {"vote": vote_entropy, "consensus": consensus_entropy, "kl": kl_max, "bald": bald}


def nats(p):
    return -sum(v * math.log(v) for v in p if v > 0)


def softmax64(z):
    e = np.exp(z.astype(np.float64) - z.max())
    return e / e.sum()


def definition(name, members):
    """One sample, (T, C) logits; loops and float64."""
    members_count, classes = members.shape
    p = np.stack([softmax64(z) for z in members])
    mean = p.mean(axis=0)
    either = min(members_count, classes)
    if name == "vote":
        return over(nats(np.bincount(members.argmax(axis=1), minlength=classes) / members_count), either)
    if name == "consensus":
        return over(nats(mean), classes)
    if name == "bald":
        return over(nats(mean) - np.mean([nats(row) for row in p]), either)
    kl = [sum(a * math.log(a / b) for a, b in zip(row, mean, strict=True) if a > 0) for row in p]
    return over(max(kl), members_count)


def over(value, ways):
    return value / math.log(ways) if ways > 1 else 0.0


def epig_definition(logits, targets):
    p = np.apply_along_axis(softmax64, 2, logits)
    q = np.apply_along_axis(softmax64, 2, targets)
    members, samples, classes = p.shape
    found = np.zeros(samples)
    for n in range(samples):
        for m in range(q.shape[1]):
            joint = sum(np.outer(p[t, n], q[t, m]) for t in range(members)) / members
            apart = np.outer(p[:, n].mean(axis=0), q[:, m].mean(axis=0))
            found[n] += sum(j * math.log(j / a) for j, a in zip(joint.flat, apart.flat, strict=True) if j > 0)
    return np.array([over(value, min(members, classes)) for value in found / q.shape[1]])


@given(LOGITS)
def test_scores_equal_their_definitions_in_float64(logits):
    for name, score in SCORES.items():
        expected = [definition(name, logits[:, n]) for n in range(logits.shape[1])]
        found = score(logits)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
        assert ((found >= 0) & (found <= 1)).all()


@given(LOGITS, st.integers(1, 4))
def test_epig_equals_its_definition(logits, count):
    targets = np.resize(logits[:, ::-1, ::-1], (len(logits), count, logits.shape[2]))
    np.testing.assert_allclose(epig(logits, targets), epig_definition(logits, targets), atol=1e-5)


@given(LOGITS, st.randoms(use_true_random=False))
def test_the_order_of_members_and_classes_does_not_matter(logits, random):
    members = random.sample(range(logits.shape[0]), logits.shape[0])
    classes = random.sample(range(logits.shape[2]), logits.shape[2])
    shuffled = logits[members][:, :, classes]
    for name, score in SCORES.items():
        if name != "vote" or not ties(logits):  # of equal logits the first has the vote
            np.testing.assert_allclose(score(logits), score(shuffled), atol=2e-6, err_msg=name)
    np.testing.assert_allclose(epig(logits, logits), epig(shuffled, shuffled), atol=2e-6)


def ties(logits):
    return bool(((logits == logits.max(axis=2, keepdims=True)).sum(axis=2) > 1).any())


def test_closed_forms():
    one_hot = logits_of(np.eye(3, dtype=np.float32))[:, None, :]  # three members, each sure of another class
    agreeing = np.repeat(one_hot[:1], 3, axis=0)
    uniform = np.zeros((3, 1, 3), np.float32)
    for score in (vote_entropy, consensus_entropy, kl_max, bald):
        assert score(one_hot) == pytest.approx(1.0, abs=1e-6)
        assert score(agreeing) == 0.0
    assert consensus_entropy(uniform) == pytest.approx(1.0)
    assert vote_entropy(uniform) == kl_max(uniform) == bald(uniform) == 0.0
    assert epig(one_hot, one_hot) == pytest.approx(1.0, abs=1e-6)  # the label says which member is right
    assert epig(one_hot, uniform) == pytest.approx(0.0, abs=1e-6)


def test_probabilities_are_as_good_as_logits():
    p = np.random.default_rng(0).dirichlet(np.ones(4), (3, 9)).astype(np.float32)
    expected = [definition("bald", np.log(p[:, n])) for n in range(9)]
    np.testing.assert_allclose(bald(logits_of(p)), expected, atol=1e-5)


def test_one_member_and_one_class():
    logits = np.random.default_rng(0).normal(size=(1, 4, 3)).astype(np.float32)
    for score in (vote_entropy, kl_max, bald):
        assert score(logits).tolist() == [0.0] * 4
    np.testing.assert_allclose(consensus_entropy(logits), acquisition.entropy(logits[0]), atol=1e-6)
    assert epig(logits, logits).tolist() == [0.0] * 4
    for score in SCORES.values():
        assert score(logits[:, :, :1].repeat(3, axis=0)).tolist() == [0.0] * 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_unusable_member_makes_the_sample_unusable_and_no_other(bad):
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    whole = {name: score(logits) for name, score in SCORES.items()} | {"epig": epig(logits, logits)}
    spoilt = logits.copy()
    spoilt[1, 2, 3] = bad
    spoilt[0, 0, :] = -np.inf
    for name, score in (SCORES | {"epig": lambda z: epig(z, logits)}).items():
        found = score(spoilt)
        assert np.isnan(found).tolist() == [True, False, True, False]
        np.testing.assert_allclose(found[[1, 3]], whole[name][[1, 3]], atol=1e-6)


def test_a_masked_class_is_as_if_it_were_not_there():
    logits = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    masked = np.concatenate([logits, np.full((3, 6, 1), -np.inf, np.float32)], axis=2)
    for score in (vote_entropy, kl_max, bald):  # 3 members: fewer than classes, so over the same logarithm
        np.testing.assert_allclose(score(masked), score(logits), atol=1e-6)


def test_targets_must_fit():
    logits = np.zeros((3, 2, 4), np.float32)
    with pytest.raises(ValueError, match=r"expected \(3, M, 4\)"):
        epig(logits, np.zeros((2, 2, 4), np.float32))
    with pytest.raises(ValueError, match="no usable target"):
        epig(logits, np.full((3, 2, 4), np.nan, np.float32))


# --- what plug-ins keep ---


@pytest.mark.parametrize("name", acquisition.BUILT_IN)
def test_the_built_in_acquisition_functions_keep_the_contract(name):
    check_acquisition(getattr(acquisition, name))
    check_acquisition(lambda logits: acquisition.Scorer(name, temperature=2.0).score(logits).utility, classes=2)


def writes(logits):
    logits -= logits.max(axis=1, keepdims=True)
    return acquisition.margin(logits)


def raises_on_one(logits):
    return acquisition.margin(logits) if len(logits) > 1 else 1 / 0


class Buffer:
    """Gives the same array every time."""

    def __init__(self):
        self.kept = np.zeros(37, np.float32)

    def __call__(self, logits):
        self.kept[: len(logits)] = acquisition.margin(logits)
        return self.kept[: len(logits)]


def overflows(logits):
    p = np.exp(logits)
    return 1.0 - p.max(axis=1) / p.sum(axis=1)


def noisy():
    rng = np.random.default_rng(0)
    return lambda z: acquisition.margin(z) + rng.normal(0, 1e-3, len(z))


def entropy_unmasked(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return -(p * np.log(p)).sum(axis=1)  # 0 * log 0


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda z: acquisition.margin(z)[:5], r"shape \(5,\)"),
        (lambda z: acquisition.margin(z).sum(), r"shape \(\)"),
        (lambda z: [str(v) for v in acquisition.margin(z)], "expected floating"),
        (lambda z: acquisition.margin(z) - acquisition.margin(z).mean(), "in batches of 1"),
        (lambda z: acquisition.margin(z) * np.float32(z.max() > 5), "in batches of 1"),
        (raises_on_one, r"\(1, 5\) float32: it raised ZeroDivisionError"),
        (noisy(), "when asked again"),
        (entropy_unmasked, "masked class"),
        (overflows, "in the hundreds"),
        (lambda z: acquisition.margin(z) / 0.0 * 0.0, "NaN or inf"),
        (lambda z: z.max(axis=1), "larger = ask"),
        (writes, "writes into its input"),
        (lambda z: acquisition.margin(z)[:, None], r"shape \(37, 1\)"),
        (lambda z: z.argmax(axis=1), "expected floating"),
        (lambda z: np.log(np.minimum(acquisition.margin(z), 0)), "NaN or inf"),
        (lambda z: acquisition.margin(z) / len(z), "in batches of 1"),
        (lambda z: 1 - acquisition.margin(z), "larger = ask"),
        (lambda z: np.full(len(z), 0.5), "larger = ask"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_what_breaks_the_contract_is_named(function, said):
    with pytest.raises(AssertionError, match=said):
        check_acquisition(function)


def test_a_function_may_keep_its_array_and_give_doubles():
    check_acquisition(Buffer())
    check_acquisition(lambda z: acquisition.margin(z).astype(np.float64))


def test_the_replay_keeps_the_contract(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(40, dtype=np.float32).reshape(20, 2))
    check_source(lambda: open_source(Source(kind="replay", path=str(tmp_path / "a.npz")), fit=Fit((2,), "float32")))


class Numbers:
    def __init__(self, *, step=1, resumes=True, width=1):
        self.step, self.resumes, self.width = step, resumes, width

    def readings(self, start):
        for seq in range(start.seq if self.resumes else 0, 20):
            yield None
            yield Reading(np.full(1 + seq * (self.width - 1), seq), seq * self.step)


def test_a_source_that_breaks_the_contract_is_named():
    check_source(Numbers)
    with pytest.raises(AssertionError, match="expected to grow"):
        check_source(lambda: Numbers(step=0))
    with pytest.raises(AssertionError, match="other numbers"):
        check_source(lambda: Numbers(resumes=False))
    with pytest.raises(AssertionError, match="one shape"):
        check_source(lambda: Numbers(width=2))
