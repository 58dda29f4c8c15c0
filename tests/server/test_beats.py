"""How each device has been: slices that are folded, with nothing lost but the detail."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from device_words import heartbeat
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.wire import DriftState
from server.store import beats
from server.store.beats import DAY_MS, FIGURES, STEPS_MS
from server.store.schema import beat
from server.store.spoken import Spoken
from server.store.store import Store

pytestmark = pytest.mark.catalogues

MIDNIGHT = 20_000 * DAY_MS
RATE, HEAT, DRIFT = (FIGURES.index(name) for name in ("samples_per_s", "temperature_c", "drift"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store.open(tmp_path_factory.mktemp("beats"))
    yield made
    made.close()


def say(connection, device: str, at_ms: int, **figures: object) -> None:
    said = msgspec.structs.replace(heartbeat("a"), **figures)
    beats.add(connection, [beats.of_heartbeat(Spoken(device, said, at_ms))])


def test_a_slice_has_the_mean_and_the_largest_of_those_who_said_something(store):
    with store.database.write() as connection:
        for second, heat in enumerate([None, 40.0, 60.0, None]):
            say(connection, "one", MIDNIGHT + second * 1000, samples_per_s=float(second), temperature_c=heat)
        found = beats.past(connection, "one", since_ms=0)
    assert found.start_ms.tolist() == [MIDNIGHT]
    assert (found.mean[0, RATE], found.largest[0, RATE]) == (1.5, 3.0)
    assert (found.mean[0, HEAT], found.largest[0, HEAT]) == (50.0, 60.0)
    assert np.isnan(found.mean[0, DRIFT])


def test_drift_is_told_as_a_share_of_its_threshold(store):
    drift = DriftState(epoch=0, watching=True, group_samples=1, statistic=3.0, threshold=4.0)
    with store.database.write() as connection:
        say(connection, "two", MIDNIGHT, drift=drift)
        say(connection, "two", MIDNIGHT, drift=msgspec.structs.replace(drift, watching=False, statistic=9.0))
        assert beats.past(connection, "two", since_ms=0).largest[0, DRIFT] == 0.75


def test_how_sure_the_model_was_is_a_mean_over_samples(store):
    with store.database.write() as connection:
        say(connection, "four", MIDNIGHT)
        for histogram, confidence in (([3, 0, 0, 1], [2.0, 0.5]), ([0, 4], [1.5, 0.0]), ([], [])):
            sums = {"utility_histogram": histogram, "confidence_sums": confidence}
            told = beats.of_scores("four", sums, at_ms=MIDNIGHT)
            beats.add(connection, [told] if told else [])
        found = beats.past(connection, "four", since_ms=0)
    assert found.start_ms.tolist() == [MIDNIGHT]
    utility, confidence = (FIGURES.index(name) for name in ("utility", "confidence"))
    assert found.mean[0, utility] == pytest.approx((3 * 0.125 + 0.875 + 4 * 0.75) / 8)
    assert found.largest[0, utility] == pytest.approx(0.75)
    assert found.mean[0, confidence] == pytest.approx(4.0 / 8)
    assert found.mean[0, RATE] == heartbeat("a").samples_per_s


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 100 * 24 * 12), min_size=1, max_size=40, unique=True).map(sorted), st.integers(0, 10**6))
def test_folding_keeps_every_sum_and_bounds_the_rows(store, slices, run):
    name = f"cam-{run}"
    rng = np.random.default_rng(run)
    rates = rng.integers(0, 100, len(slices)).astype(float)
    with store.database.write() as connection:
        connection.execute(sa.delete(beat).where(beat.c.device == name))
        for at, rate in zip(slices, rates, strict=True):
            say(connection, name, MIDNIGHT + at * STEPS_MS[0], samples_per_s=rate)
        rows = connection.execute(sa.select(beat).where(beat.c.device == name)).all()
        found = beats.past(connection, name, since_ms=0)
    last_ms = MIDNIGHT + slices[-1] * STEPS_MS[0]
    for row in rows:
        if row.step_ms == STEPS_MS[0]:
            assert row.start_ms >= last_ms - 2 * DAY_MS - STEPS_MS[1]
        if row.step_ms == STEPS_MS[1]:
            assert row.start_ms >= last_ms - 61 * DAY_MS
        assert row.start_ms % row.step_ms == 0
    figures = np.array([np.frombuffer(row.figures) for row in rows])
    assert figures[:, 0].sum() == len(slices)
    assert figures[:, len(FIGURES) + RATE].sum() == rates.sum()
    assert found.largest[:, RATE].max() == rates.max()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(-9, 9)), max_size=12), st.integers(0, 12))
def test_many_devices_at_once_are_as_one_after_the_other(store, said, at_once):
    with store.database.write() as connection:
        connection.execute(sa.delete(beat).where(beat.c.device.in_(list("abc"))))
        told = [beats.of_heartbeat(_hot(name, heat)) for name, heat in said]
        beats.add(connection, told[:at_once])
        beats.add(connection, told[at_once:])
        found = {name: beats.past(connection, name, since_ms=0) for name in "abc"}
    for name, past in found.items():
        mine = [heat for of, heat in said if of == name]
        warm = [heat for heat in mine if heat is not None]
        assert past.start_ms.tolist() == [MIDNIGHT] * bool(mine)
        assert past.mean[~np.isnan(past.mean[:, HEAT]), HEAT].tolist() == pytest.approx([np.mean(warm)] if warm else [])
        assert past.largest[~np.isnan(past.largest[:, HEAT]), HEAT].tolist() == ([max(warm)] if warm else [])


def _hot(name: str, heat: int | None) -> Spoken:
    return Spoken(name, msgspec.structs.replace(heartbeat("a"), temperature_c=heat), MIDNIGHT)


def test_no_number_that_a_device_may_claim_stands_in_the_way_of_others(store):
    with store.database.write() as connection:
        for _ in range(2):
            say(connection, "loud", MIDNIGHT, samples_per_s=1.7e308)
            say(connection, "loud", MIDNIGHT, samples_per_s=-1.7e308)
        say(connection, "quiet", MIDNIGHT, samples_per_s=5.0)
        assert beats.past(connection, "quiet", since_ms=0).mean[0, RATE] == 5.0


def test_a_device_nobody_heard_has_no_past(store):
    with store.database.read() as connection:
        assert beats.past(connection, "nobody", since_ms=0).mean.shape == (0, len(FIGURES))
