"""The rules of fleet drift alone: how often are they wrong while nothing moves, and what do they see?"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.drift import fleet as rules
from server.drift.accuracy import Believed, Withheld, without_labels
from server.drift.fleet import calibrated, e_bh, judge
from server.drift.series import LEAST_MS, Moved, Series, moved
from server.drift.shift import LEAST_PER_CLASS, Known, Seen, describe, tell

HOUR_MS = 3_600_000
K, C = 8, 4


def series(rng, *, spans=40, samples=150.0, rho=0.0, offset=None) -> Series:
    """A stream with a level of its own; `rho`: correlation of neighbouring spans. offset: (spans, 3 + K)."""
    noise = rng.normal(size=(spans, 3 + K))
    for i in range(1, spans):
        noise[i] = rho * noise[i - 1] + math.sqrt(1.0 - rho * rho) * noise[i]
    means = rng.normal(size=3 + K) + noise / math.sqrt(samples) + (0.0 if offset is None else offset)
    shares = rng.multinomial(int(samples), [1 / C] * C, size=spans) / samples
    return Series(np.arange(spans) * HOUR_MS, np.full(spans, samples), np.concatenate([means, shares], axis=1), C)


def step(spans: int, at: int, by: np.ndarray) -> np.ndarray:
    return (np.arange(spans) >= at)[:, None] * by


# --- e-values


def test_a_calibrated_p_value_is_an_e_value():
    """Its mean over uniform p is 1: by substitution p = exp(-s), so that the peak at 0 is seen."""
    s = np.linspace(1e-4, 600.0, 600_001)
    mean = np.trapezoid([calibrated(float(p)) * p for p in np.exp(-s)], s)
    assert 0.98 < mean <= 1.001  # what is missing lies below exp(-600): 1/600 of it


@given(st.floats(1e-200, 1.0), st.floats(1e-200, 1.0))
def test_less_probable_is_more_evidence(p, q):
    assert calibrated(min(p, q)) >= calibrated(max(p, q)) - 1e-6
    assert calibrated(1.0) == 0.5


def test_e_bh_flags_nothing_without_evidence_and_all_with_enough():
    assert e_bh([], alpha=0.1, tests=5) == 0
    assert e_bh([10.0] * 5, alpha=0.1, tests=5) == 5
    assert e_bh([9.9] * 5, alpha=0.1, tests=5) == 0
    assert e_bh([50.0, 9.0], alpha=0.1, tests=5) == 1


# --- one stream


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_a_stream_that_does_not_move_is_rarely_said_to(rho):
    rng = np.random.default_rng(1)
    found = [moved(series(rng, spans=96, rho=rho)) for _ in range(300)]
    p = [one.p for one in found if isinstance(one, Moved)]
    assert len(p) > 240  # the others still resembled each other when they were too few to go on
    assert sum(x <= 0.05 for x in p) <= 0.05 * len(found)


def test_a_step_is_found_with_its_time_signal_and_size():
    by = np.zeros(3 + K)
    by[5] = 0.5
    found = moved(series(np.random.default_rng(2), offset=step(40, 27, by)))
    assert isinstance(found, Moved)
    assert (found.signal, found.begun_ms) == (5, 27 * HOUR_MS)
    assert found.p < 1e-8
    assert found.shift[5] == pytest.approx(0.5, abs=0.1)


def test_what_is_over_does_not_count():
    by = np.full(3 + K, 0.5)
    passing = step(40, 20, by) - step(40, 26, by)
    found = moved(series(np.random.default_rng(3), offset=passing))
    assert isinstance(found, str) or found.p > 0.01


def test_too_few_spans_are_said_to_be():
    found = moved(series(np.random.default_rng(4), spans=30))
    assert isinstance(found, str)
    assert f"{LEAST_MS // HOUR_MS} are needed" in found


def test_a_class_never_seen_before_is_evidence_only_when_there_are_enough_of_it():
    one = series(np.random.default_rng(5))
    one.means[:, -1] = 0.0
    one.means[-1, -1] = 1 / 150
    found = moved(one)
    assert isinstance(found, Moved)
    assert found.p > 0.01


# --- the fleet


def fleet(rng, devices, **how) -> dict[str, Series]:
    return {f"cam-{i}": series(rng, **how) for i in range(devices)}


def test_verdicts_on_a_fleet_that_does_not_move():
    rng = np.random.default_rng(6)
    wrong = sum(judge(fleet(rng, 8), {}, alpha=0.1).who != "nobody" for _ in range(150))
    assert wrong <= 15


def test_a_majority_that_moves_is_the_fleet_and_the_rest_stands_out():
    rng = np.random.default_rng(7)
    by = step(40, 25, rng.choice([-0.3, 0.3], size=3 + K))
    devices = {f"cam-{i}": series(rng, offset=by if i < 8 else None) for i in range(9)}
    found = judge(devices, {}, alpha=0.01)
    assert (found.who, found.flagged) == ("fleet", ("cam-8",))


def test_a_season_and_a_bad_lens_at_once():
    rng = np.random.default_rng(8)
    by = step(40, 25, np.where(np.arange(3 + K) < 6, 0.3, 0.0))
    lens = step(40, 30, np.where(np.arange(3 + K) >= 6, 0.6, 0.0))
    devices = {f"cam-{i}": series(rng, offset=by + (lens if i == 2 else 0.0)) for i in range(9)}
    found = judge(devices, {}, alpha=0.01)
    assert (found.who, found.flagged) == ("fleet", ("cam-2",))


def test_a_minority_in_one_direction_is_not_the_fleet():
    rng = np.random.default_rng(9)
    by = step(40, 25, np.full(3 + K, 0.4))
    found = judge({f"cam-{i}": series(rng, offset=by if i < 3 else None) for i in range(10)}, {}, alpha=0.01)
    assert (found.who, set(found.flagged), found.alike) == ("several devices", {"cam-0", "cam-1", "cam-2"}, True)


def test_devices_that_came_later_are_judged_by_what_there_is_of_them():
    rng = np.random.default_rng(10)
    devices = fleet(rng, 5, spans=70)
    late = series(rng, spans=38)
    devices["late"] = late._replace(start_ms=late.start_ms + 32 * HOUR_MS)
    found = judge(devices, {}, alpha=0.01)
    assert found.who == "nobody"
    assert isinstance(found.devices["late"], Moved)


def test_the_devices_own_evidence_counts():
    devices = fleet(np.random.default_rng(11), 4)
    assert judge(devices, {"cam-1": 1e6}, alpha=0.01).flagged == ("cam-1",)


# --- the kind of shift, and the accuracy

CENTRES = np.random.default_rng(12).normal(size=(C, K)) * 0.9
EVEN = np.full(C, 1 / C)
SKEWED = np.array([0.55, 0.15, 0.15, 0.15])


def looks(rng, count, shares=EVEN, *, noise=1.0, gain=1.0):
    """(signals (n, 3 + K), predicted, true) of a model that is right about the clouds when noise and gain are 1."""
    true = rng.choice(C, count, p=shares)
    x = gain * (CENTRES[true] + noise * rng.normal(size=(count, K)))
    logits = x @ CENTRES.T - 0.5 * np.square(CENTRES).sum(axis=1)
    top = logits.max(axis=1)
    total = np.exp(logits - top[:, None]).sum(axis=1)
    scalars = (1.0 / total, -(top + np.log(total)), np.log(np.square(x).mean(axis=1)))
    return np.column_stack([*scalars, np.clip(x, -4.0, 4.0)]), logits.argmax(axis=1), true


def reference(rng, count=1500) -> Known:
    return Known(*looks(rng, count), C)


def window(rng, *, spans=24, samples=100, bursts=1, **how) -> tuple[Seen, float]:
    """And the true accuracy. `bursts`: every sample comes so often."""
    means, right = [], []
    for _ in range(spans):
        values, predicted, true = (np.repeat(part, bursts, axis=0) for part in looks(rng, samples // bursts, **how))
        means.append(np.concatenate([values.mean(axis=0), np.bincount(predicted, minlength=C) / len(predicted)]))
        right.append(float((predicted == true).mean()))
    return Seen(np.full(spans, float(samples)), np.array(means), np.arange(spans) % 2), float(np.mean(right))


def verdicts(runs=60, **how) -> tuple[dict[str, int], list[bool]]:
    """How often each kind was told; and of every accuracy that was given, whether the truth lay in its interval."""
    kinds: dict[str, int] = {}
    covered = []
    for seed in range(runs):
        rng = np.random.default_rng([13, seed])
        known = reference(rng)
        model = describe(known)
        seen, truth = window(rng, **how)
        shift = tell(model, seen)
        kinds[shift.kind] = kinds.get(shift.kind, 0) + 1
        given = without_labels(known, model, seen, shift)
        assert isinstance(given, Believed) == (shift.kind in ("none", "label shift"))
        if isinstance(given, Believed):
            covered.append(given.low <= truth <= given.high)
    return kinds, covered


@pytest.mark.parametrize("bursts", [1, 5])
def test_clean_data_are_called_clean_and_the_accuracy_is_covered(bursts):
    kinds, covered = verdicts(bursts=bursts)
    assert kinds.get("none", 0) >= 58
    assert np.mean(covered) >= 0.88


@pytest.mark.parametrize("bursts", [1, 5])
def test_label_shift_is_called_that_and_the_accuracy_is_covered(bursts):
    kinds, covered = verdicts(shares=SKEWED, bursts=bursts)
    assert kinds.get("label shift", 0) >= 57
    assert np.mean(covered) >= 0.88


@pytest.mark.parametrize("how", [{"noise": 1.25}, {"gain": 0.8}, {"noise": 1.25, "shares": SKEWED}])
def test_other_looks_are_called_that_and_the_accuracy_is_withheld(how):
    kinds, covered = verdicts(**how)
    assert kinds == {"covariate or concept shift": 60}
    assert covered == []


def test_the_class_shares_are_in_their_intervals():
    inside = []
    for seed in range(60):
        rng = np.random.default_rng([14, seed])
        shift = tell(describe(reference(rng)), window(rng, shares=SKEWED)[0])
        if shift.shares is not None:
            inside.append((shift.shares.low <= SKEWED) & (shift.shares.high >= SKEWED))
    assert np.mean(inside) >= 0.9
    assert len(inside) >= 55


def test_devices_that_differ_are_not_called_the_world():
    """Six devices, each with a tint of its own that is nothing on average."""
    rng = np.random.default_rng(15)
    known = reference(rng)
    parts = []
    for tint in np.linspace(-0.3, 0.3, 6):
        seen, _ = window(rng, spans=12)
        seen.means[:, 3 : 3 + K] += tint
        parts.append(seen)
    pooled = Seen(
        np.concatenate([part.samples for part in parts]),
        np.concatenate([part.means for part in parts]),
        np.repeat(np.arange(6), 12),
    )
    assert tell(describe(known), pooled).kind != "covariate or concept shift"


def test_what_cannot_be_told_is_said_with_the_reason():
    rng = np.random.default_rng(16)
    known = reference(rng)
    few = tell(describe(known), window(rng, spans=4)[0])
    assert (few.kind, "spans" in few.why) == ("cannot tell", True)
    rare = Known(*(part[known.true != 2] for part in known[:3]), C)
    seen, _ = window(rng, shares=SKEWED)
    unknown = tell(describe(rare, ["cat", "dog", "fox", "hen"]), seen)
    said = f"class fox has 0 held-out samples, {LEAST_PER_CLASS} are needed"
    assert (unknown.kind, unknown.why) == ("cannot tell", said)
    confused = known._replace(predicted=np.where(known.predicted == 3, 2, known.predicted))
    shift = tell(describe(confused), seen)
    assert (shift.kind, "confused" in shift.why) == ("cannot tell", True)
    given = without_labels(confused, describe(confused), seen, shift)
    assert isinstance(given, Withheld)
    assert "confused" in given.reason


def test_cohort_is_the_median_of_those_who_were_there(monkeypatch):
    """Against the plain way, with devices that come late, leave early and miss hours; in blocks that do not fit."""
    monkeypatch.setattr(rules, "AT_ONCE", 7)
    rng = np.random.default_rng(5)
    devices = {}
    for i in range(9):
        whole = series(rng, spans=40)
        kept = np.flatnonzero((np.arange(40) >= i) & (rng.random(40) < 0.6))
        devices[str(i)] = Series(whole.start_ms[kept], whole.samples[kept], whole.means[kept], C)
    cohort = rules._cohort(devices)
    levels = {name: np.average(one.means, axis=0, weights=one.samples) for name, one in devices.items()}
    for start, samples, mean in zip(cohort.start_ms, cohort.samples, cohort.means, strict=True):
        there = {name: np.flatnonzero(one.start_ms == start) for name, one in devices.items()}
        away = [devices[name].means[at[0]] - levels[name] for name, at in there.items() if len(at)]
        assert len(away) >= rules.COHORT
        np.testing.assert_allclose(mean, np.median(away, axis=0) + np.median(list(levels.values()), axis=0))
        assert samples == 150.0 * len(away)
    starts = np.concatenate([one.start_ms for one in devices.values()])
    assert len(cohort.start_ms) == sum((starts == start).sum() >= rules.COHORT for start in np.unique(starts))


def test_what_moved_keeps_no_more_than_it_says():
    """Of 1,000 devices the rest was 400 MB."""
    found = moved(series(np.random.default_rng(0)))
    assert all(part.base is None for part in (found.level, found.shift, found.t))
