"""The rules by which a new model is kept: beside the running one, and live."""

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from edge_agent.choose.confidence import Confidence, Mean
from edge_agent.update.probation import Commit, Figures, GoOn, Limits, Pass, Probation, Revert, Shadowing

CHAMPION = Figures(samples=900, latency_p95_ms=4.0)
RULE = Probation(min_samples=200, min_s=5.0, limits=Limits(), before=CHAMPION)
SHADOW = Shadowing(min_samples=200, max_s=120.0, limits=Limits(agreement=0.5))


@pytest.mark.parametrize(
    ("samples", "invalid", "elapsed_s", "p95_ms", "expected"),
    [
        (0, 0, 0.0, 0.0, GoOn),
        (199, 0, 60.0, 1.0, GoOn),  # whichever is later
        (9000, 0, 4.9, 1.0, GoOn),
        (200, 0, 5.0, 1.0, Commit),
        (200, 2, 5.0, 1.0, Commit),
        (200, 3, 5.0, 1.0, Revert),
        (3, 3, 0.1, 1.0, Revert),  # 3 of 200 are too many whatever comes
        (3, 2, 0.1, 1.0, GoOn),
        (9000, 90, 4.9, 1.0, GoOn),
        (9000, 91, 4.9, 1.0, Revert),
        (100, 0, 2.0, 900.0, GoOn),  # latency is judged at the end
        (200, 0, 5.0, 12.9, Commit),
        (200, 0, 5.0, 13.1, Revert),
        (200, 0, 5.0, float("nan"), Revert),
    ],
)
def test_probation(samples, invalid, elapsed_s, p95_ms, expected):
    verdict = RULE.judge(Figures(samples=samples, invalid=invalid, latency_p95_ms=p95_ms), elapsed_s=elapsed_s)
    assert isinstance(verdict, expected)


def test_latency_is_not_judged_without_a_reference():
    slow = Figures(samples=200, latency_p95_ms=900.0)
    assert msgspec.structs.replace(RULE, before=None).judge(slow, elapsed_s=5.0) == Commit()
    started = msgspec.structs.replace(RULE, before=Figures(samples=3, latency_p95_ms=4.0))
    assert started.judge(slow, elapsed_s=5.0) == Commit()  # it had hardly run


def test_a_revert_says_why_with_both_figures():
    verdict = RULE.judge(Figures(samples=200, latency_p95_ms=50.0), elapsed_s=5.0)
    assert verdict == Revert("95 % of the samples took up to 50 ms, at most 13 may")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(bad=st.sets(st.integers(1, 200), max_size=6))
def test_an_early_revert_is_never_wrong(bad):
    """Whatever is reverted before `min_samples` would have been reverted there as well, and nothing else is."""
    verdicts = [
        RULE.judge(Figures(samples=n, invalid=sum(at <= n for at in bad), latency_p95_ms=1.0), elapsed_s=5.0)
        for n in range(1, 201)
    ]
    assert isinstance(verdicts[-1], Revert if len(bad) > 2 else Commit)
    assert not any(isinstance(verdict, Commit) for verdict in verdicts[:-1])
    assert len(bad) > 2 or all(isinstance(verdict, GoOn) for verdict in verdicts[:-1])


# --- beside the running model ---


@pytest.mark.parametrize(
    ("figures", "elapsed_s", "agreed", "grew_mb", "expected"),
    [
        (Figures(samples=0), 119.0, 0, 0, GoOn),
        (Figures(samples=0), 120.0, 0, 0, Pass),  # a slow stream is not waited for
        (Figures(samples=199), 60.0, 199, 0, GoOn),
        (Figures(samples=200), 0.1, 200, 0, Pass),
        (Figures(samples=200), 0.1, 100, 0, Pass),
        (Figures(samples=200), 0.1, 99, 0, Revert),
        (Figures(samples=100), 120.0, 0, 0, Pass),  # too few to say how often they agree
        (Figures(samples=3, invalid=3), 0.1, 0, 0, Revert),
        (Figures(samples=200, invalid=2), 0.1, 200, 0, Pass),
        (Figures(samples=200, latency_p95_ms=12.9), 0.1, 200, 0, Pass),
        (Figures(samples=200, latency_p95_ms=13.1), 0.1, 200, 0, Revert),
        (Figures(samples=19, latency_p95_ms=900.0), 120.0, 19, 0, Pass),
        (Figures(samples=20, latency_p95_ms=900.0), 120.0, 20, 0, Revert),
        (Figures(samples=200), 0.1, 200, 94, Pass),
        (Figures(samples=200), 0.1, 200, 95, Revert),
        (Figures(samples=3), 120.0, 3, 95, Revert),
    ],
)
def test_shadow(figures, elapsed_s, agreed, grew_mb, expected):
    verdict = SHADOW.judge(
        figures, CHAMPION, elapsed_s=elapsed_s, agreed=agreed, grew_bytes=grew_mb * 10**6, champion_bytes=10**7
    )
    assert isinstance(verdict, expected)


def test_memory_is_not_judged_where_the_champions_is_not_known_or_it_is_off():
    grown = {"elapsed_s": 1.0, "agreed": 200, "grew_bytes": 10**10}
    assert SHADOW.judge(Figures(samples=200), CHAMPION, **grown) == Pass()
    off = msgspec.structs.replace(SHADOW, limits=Limits(memory_ratio=0.0))
    assert off.judge(Figures(samples=200), CHAMPION, champion_bytes=1, **grown) == Pass()


# --- confidence ---


def read(mean, *, expected, error=0.01):
    return Figures(samples=200, latency_p95_ms=4.0, confidence=mean, confidence_error=error, expected=expected)


@pytest.mark.parametrize(
    ("figures", "champion", "expected"),
    [
        (read(0.9, expected=0.9), read(0.9, expected=0.9), Commit),
        (read(0.3, expected=0.9), read(0.9, expected=0.9), Revert),  # collapsed
        (read(1.0, expected=0.8), read(0.8, expected=0.8), Revert),  # saturated
        (read(0.3, expected=0.9), read(0.35, expected=0.9), Commit),  # so does the champion
        (read(0.9, expected=0.9), read(0.3, expected=0.9), Commit),  # it knows the stream, the champion does not
        (read(0.3, expected=0.9, error=0.3), read(0.9, expected=0.9), Commit),  # it may be chance
        (read(0.3, expected=0.9), read(0.9, expected=0.9, error=0.3), Commit),
        (read(0.3, expected=0.9, error=None), read(0.9, expected=0.9), Commit),
        (read(0.3, expected=0.9), read(0.9, expected=0.9, error=None), Commit),
        (read(0.9999, expected=0.92, error=0.0), read(0.995, expected=0.9), Commit),  # an easy stream
        (read(0.3, expected=0.9), None, Commit),  # nobody knows whether it is the stream
    ],
)
def test_confidence(figures, champion, expected):
    rule = msgspec.structs.replace(RULE, before=champion)
    assert isinstance(rule.judge(figures, elapsed_s=5.0), expected)
    off = msgspec.structs.replace(rule, limits=Limits(confidence_shift=0.0))
    assert off.judge(figures, elapsed_s=5.0) == Commit()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    mean=st.floats(0, 1), expected=st.floats(0, 1), usual=st.floats(0, 1), its=st.floats(0, 1), error=st.floats(0, 0.2)
)
def test_a_model_that_is_no_farther_from_its_manifest_than_the_champion_is_kept(mean, expected, usual, its, error):
    new, champion = read(mean, expected=expected, error=error), read(usual, expected=its, error=error)
    if new.shift()[0] <= champion.shift()[1]:
        rule = msgspec.structs.replace(RULE, before=champion)
        assert rule.judge(new, elapsed_s=5.0) == Commit()
    assert 0.0 <= new.shift()[0] <= new.shift()[1]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 500), max_size=6), seed=st.integers(0, 9))
def test_the_mean_does_not_depend_on_the_blocks(cuts, seed):
    values = np.random.default_rng(seed).random(500).astype(np.float32)
    values[::7] = np.nan
    whole, parts = Confidence(), Confidence()
    whole.add(values)
    for part in np.split(values, sorted(cuts)):
        parts.add(part)
    assert whole.mean() == parts.mean()


def test_the_error_is_that_of_a_mean_of_samples_that_are_alike():
    """Scenes of 25 samples that look the same: 1,000 samples are worth 40."""
    rng, means, errors = np.random.default_rng(0), [], []
    for _ in range(300):
        one = Confidence()
        one.add(np.repeat(rng.random(40), 25).astype(np.float32))
        means.append(one.mean().value)
        errors.append(one.mean().error)
    assert np.std(means) == pytest.approx(np.mean(errors), rel=0.15)
    assert Confidence().mean() == Mean(0.0, None)
