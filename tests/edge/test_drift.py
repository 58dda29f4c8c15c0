from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quadrants import ARTIFACT

from edge_agent.choose.acquisition import Scorer
from edge_agent.choose.chart import Charts
from edge_agent.choose.drift import COMPARED, HELD, MONTH_S, Alarm, Watch
from edge_agent.contract.artifact import Manifest, Reference, Tensor, read_artifact
from edge_agent.contract.errors import ConfigError

D, C, BLOCK = 8, 3, 32
EVERY = 3000.0  # samples between false alarms
WEIGHTS = np.random.default_rng(7).normal(size=(D, C)).astype(np.float32)
SCORER = Scorer("margin")


def centre(embedding: np.ndarray, some: np.ndarray) -> np.ndarray:
    return embedding[some if some.any() else slice(None)].mean(axis=0)


def reference_of(embedding: np.ndarray, weights: np.ndarray = WEIGHTS) -> Reference:
    """What a manifest says when this is what the model was made for."""
    logits, classes = embedding @ weights, weights.shape[1]
    scored = SCORER.score(logits)
    return Reference(
        embedding_mean=Tensor.of(embedding.mean(axis=0)),
        embedding_sd=Tensor.of(embedding.std(axis=0)),
        class_centres=Tensor.of(np.stack([centre(embedding, scored.label == c) for c in range(classes)])),
        class_share=tuple((np.bincount(scored.label, minlength=classes) / len(embedding)).tolist()),
        confidence_mean=float(scored.confidence.mean()),
        energy_mean=float(-np.log(np.exp(logits).sum(axis=1)).mean()),
        utility_quantiles=(0.0,) * 21,
        samples=len(embedding),
    )


def manifest(version: int = 1, reference: Reference | None = None) -> Manifest:
    shipped, _ = read_artifact(ARTIFACT)
    reference = reference or reference_of(steady(2000, 99))
    names = tuple("abc")
    return msgspec.structs.replace(shipped, version=version, classes=names, reference=reference, temperature=1.0)


def watch(saved: bytes = b"", *, version: int = 1, every: float = EVERY) -> Watch:
    """At one sample a second, one false alarm in `every` samples."""
    return Watch(manifest(version), false_alarms_per_month=MONTH_S / every, embedding=True, saved=saved)


def play(one: Watch, embedding: np.ndarray, sizes: list[int], *, begin: int = 0) -> list[tuple[int, Alarm]]:
    """Alarms with the sample that ended their block."""
    alarms, at, turn = [], begin, 0
    ring = np.zeros((BLOCK, D), np.float32)
    while at < len(embedding):
        count = min(sizes[turn % len(sizes)], len(embedding) - at)
        ring[:count] = embedding[at : at + count]
        logits = ring @ WEIGHTS
        one.pass_time(count)
        alarm = one.look(SCORER.score(logits), logits, ring, count=count)
        at, turn = at + count, turn + 1
        if alarm:
            alarms.append((at, alarm))
    return alarms


def steady(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, D)).astype(np.float32)


def autocorrelated(count: int, seed: int, phi: float = 0.9) -> np.ndarray:
    noise = steady(count, seed) * np.float32(np.sqrt(1 - phi * phi))
    for row in range(1, count):
        noise[row] += phi * noise[row - 1]
    return noise


def bursty(count: int, seed: int) -> np.ndarray:
    """Scenes of 20 samples on average, of near-duplicates."""
    rng = np.random.default_rng(seed)
    lengths = rng.geometric(0.05, size=count // 5)
    scenes = np.repeat(rng.normal(size=(len(lengths), D)), lengths, axis=0)[:count]
    return (scenes + 0.3 * rng.normal(size=scenes.shape)).astype(np.float32)


def heavy_tailed(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(2, size=(count, D)).astype(np.float32)


def dead_units(count: int, seed: int) -> np.ndarray:
    """One never fires, one nearly never, two seldom."""
    rng, embedding = np.random.default_rng(seed), steady(count, seed)
    embedding[:, 0] = 0.0
    embedding[:, 1] = np.where(rng.random(count) < 0.002, 50.0, 0.0)
    embedding[:, 2:4] = np.where(rng.random((count, 2)) < 0.03, 5.0, 0.0)
    return embedding


def tied(count: int, seed: int) -> np.ndarray:
    """Few values, so that most scores tie."""
    return np.sign(steady(count, seed))


def mostly_dead(count: int, seed: int) -> np.ndarray:
    """All but one unit are 0 nearly always, and so is all but one class."""
    sparks = np.where(np.random.default_rng(seed + 50).random((count, D)) < 0.003, 2.0, 0.0)
    sparks[:, 0] = 3.0 + 0.1 * steady(count, seed)[:, 0]
    return sparks.astype(np.float32)


STREAMS = (steady, autocorrelated, bursty, heavy_tailed, dead_units, mostly_dead, tied)


@pytest.mark.chance
@pytest.mark.parametrize("stream", STREAMS)
def test_false_alarms_are_no_more_frequent_than_stated(stream) -> None:
    """Of the samples that are watched: those that make a level cannot raise an alarm."""
    watched = alarms = 0
    for seed in range(4):
        one, embedding = watch(), stream(30_000, seed)
        for begin in range(0, len(embedding), BLOCK):
            watched += BLOCK * one.watching
            found = play(one, embedding[: begin + BLOCK], [BLOCK], begin=begin)
            alarms += sum(alarm.kind == "moved" for _, alarm in found)
    expected = watched / EVERY
    assert watched > 10_000
    assert alarms <= expected + 3 * np.sqrt(expected)


@pytest.mark.chance
def test_evidence_reaches_c_no_sooner_than_after_c_scores_on_average() -> None:
    """Whatever the distribution: heavy tails, ties throughout, a centre that is wrong."""
    runs = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        charts = Charts(np.array([0.0, 3.0]), np.array([1.0, 0.1]), two_sided=1, seed=seed)
        while not charts.step(np.array([[rng.standard_t(2), float(rng.integers(0, 2))]]), 100.0):
            pass
        runs.append(charts.closed)
    assert np.mean(runs) > 100.0 - 3 * np.std(runs) / np.sqrt(len(runs))


@pytest.mark.parametrize(("shift", "spread"), [(1.0, 1.0), (0.0, 2.0)])
def test_a_change_is_found_soon_and_says_since_when(shift: float, spread: float) -> None:
    embedding = steady(12_000, 5)
    embedding[8000:] = embedding[8000:] * spread + shift
    at, alarm = next(found for found in play(watch(every=1e6), embedding, [BLOCK]) if found[0] > 8000)
    assert at < 8600
    assert abs(at - alarm.since - 8000) < 200
    assert alarm.statistic >= alarm.threshold == pytest.approx(1e6)
    assert alarm.signal in ("embedding", "distance", "energy", "confidence", "classes")
    assert alarm.before != alarm.after


def test_a_change_that_stays_is_told_once_and_its_end_again() -> None:
    embedding = steady(24_000, 6)
    embedding[8000:16_000] += 1.0
    one = watch(every=1e6)
    found = play(one, embedding, [BLOCK])
    assert [at // 8000 for at, _ in found] == [1, 2]
    assert [alarm.epoch for _, alarm in found] == [0, 1]
    assert one.state.epoch == 2


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(1, BLOCK), min_size=1, max_size=6), st.integers(0, 100))
def test_the_same_state_for_any_chunking(sizes: list[int], seed: int) -> None:
    embedding = steady(3000, seed)
    whole, parts = watch(), watch()
    play(whole, embedding, [BLOCK])
    play(parts, embedding, sizes)
    assert parts.save() == whole.save()


@pytest.mark.parametrize("cut", [64, 1024, 2080])
def test_a_restart_goes_on_as_if_nothing_had_happened(cut: int) -> None:
    embedding = steady(4000, 9)
    embedding[3000:] += 1.0
    whole, first = watch(), watch()
    expected = play(whole, embedding, [BLOCK])
    before = play(first, embedding[:cut], [BLOCK])
    second = watch(first.save())
    assert before + play(second, embedding, [BLOCK], begin=cut) == expected
    assert second.save() == whole.save()
    assert expected


def test_a_new_model_starts_a_new_level() -> None:
    one = watch(every=1e6)
    play(one, steady(3000, 1), [BLOCK])
    assert one.watching
    one.model_changed(manifest(2), embedding=True)
    assert not one.watching
    assert one.state.epoch == 1


def of_the_first_level(seed: int, samples: int, stream=steady) -> list[Alarm]:
    """Alarms of a model whose reference has so many samples, on a stream like it."""
    made = manifest(reference=reference_of(steady(samples, 1000 + seed)))
    one = Watch(made, false_alarms_per_month=1.0, embedding=True)
    return [alarm for _, alarm in play(one, stream(COMPARED, seed), [BLOCK])]


@pytest.mark.chance
@pytest.mark.parametrize("samples", [100, 500])
def test_a_stream_like_the_reference_does_not_differ_from_it(samples: int) -> None:
    assert not [alarm for seed in range(100) for alarm in of_the_first_level(seed, samples)]


def test_drift_that_was_there_from_the_start_is_told_once() -> None:
    embedding = steady(6000, 2) + np.float32(0.6) * np.eye(D, dtype=np.float32)[0]
    one = watch(every=1e6)
    found = play(one, embedding[:3000], [BLOCK])
    again = watch(one.save(), every=1e6)
    found += play(again, embedding, [BLOCK], begin=3000)
    ((at, alarm),) = found
    assert (alarm.kind, alarm.signal, alarm.unit, alarm.before) == ("differs", "embedding", "sd", 0.0)
    assert alarm.after == pytest.approx(0.6, abs=0.2)
    assert at <= COMPARED + BLOCK
    assert again.state.differs == ("embedding",)
    assert again.state.embedding_offset == pytest.approx(0.6, abs=0.1)


def test_another_mix_of_the_same_classes_shows_but_is_no_alarm() -> None:
    towards = 8.0 * np.linalg.pinv(WEIGHTS)
    made_for = np.concatenate([steady(1500, 3) + way for way in towards[:2]]).astype(np.float32)
    here = np.concatenate([steady(1700, 4) + towards[0], steady(300, 5) + towards[1]]).astype(np.float32)
    one = Watch(manifest(reference=reference_of(made_for)), false_alarms_per_month=1.0, embedding=True)
    found = play(one, np.random.default_rng(0).permutation(here), [BLOCK])
    assert [alarm.signal for _, alarm in found if alarm.signal == "embedding"] == []
    assert "classes" in one.state.differs
    assert one.state.classes_offset > 0.2
    assert "embedding" not in one.state.differs


def test_the_state_of_another_model_is_not_taken_up() -> None:
    one = watch(every=1e6)
    play(one, steady(3000, 1), [BLOCK])
    assert watch(one.save()).watching
    assert not watch(one.save(), version=2).watching


WIDE = 40  # dimensions, more than directions are looked along


def wide(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, WIDE)).astype(np.float32)


def watch_of_drawn_directions(saved: bytes = b"") -> Watch:
    """Of a manifest that has none."""
    weights = np.random.default_rng(7).normal(size=(WIDE, C)).astype(np.float32)
    made = manifest(reference=reference_of(wide(2000, 99), weights))
    return Watch(made, false_alarms_per_month=MONTH_S / 1e6, embedding=True, saved=saved)


def look_at(one: Watch, embedding: np.ndarray) -> list[Alarm]:
    logits = embedding[:, :C]
    found = []
    for begin in range(0, len(embedding), BLOCK):
        rows = slice(begin, begin + BLOCK)
        one.pass_time(BLOCK)
        alarm = one.look(SCORER.score(logits[rows]), logits[rows], embedding[rows], count=len(embedding[rows]))
        found += [alarm] if alarm else []
    return found


def test_a_wide_embedding_is_watched_along_drawn_directions() -> None:
    one = watch_of_drawn_directions()
    look_at(one, wide(64 * BLOCK, 1))
    moved = wide(32 * BLOCK, 2)
    moved[:, C:] += np.float32(0.5)  # not what logits and confidence come from
    assert [alarm.signal for alarm in look_at(one, moved) if alarm.kind == "moved"] == ["embedding"]


def test_a_state_along_directions_that_were_drawn_otherwise_begins_afresh_and_says_so() -> None:
    one = watch_of_drawn_directions()
    look_at(one, wide(64 * BLOCK, 1))
    assert watch_of_drawn_directions(one.save()).watching
    older = msgspec.msgpack.decode(one.save())
    del older["drawn"]
    with pytest.raises(ConfigError, match="directions .* drawn otherwise"):
        watch_of_drawn_directions(msgspec.msgpack.encode(older))


def test_a_state_of_before_is_gone_on_with_where_no_directions_are_drawn() -> None:
    one = watch(every=1e6)
    play(one, steady(3000, 1), [BLOCK])
    older = msgspec.msgpack.decode(one.save())
    del older["drawn"]
    assert watch(msgspec.msgpack.encode(older), every=1e6).save() == one.save()


def test_a_state_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="remove it"):
        watch(b"\x81\xa5model\xc0")


def test_what_is_not_finite_never_counts() -> None:
    embedding = steady(3000, 3)
    dirty = np.repeat(embedding, 2, axis=0)
    dirty[::2] = np.nan
    clean, one = watch(every=1e6), watch(every=1e6)
    play(clean, embedding, [BLOCK // 2])
    play(one, dirty, [BLOCK])
    assert clean.watching
    assert one.state.statistic == clean.state.statistic


def test_a_dead_unit_that_sparks_once_raises_no_alarm() -> None:
    embedding = steady(8000, 4)
    embedding[:, 0] = 0.0
    embedding[6000, 0] = 1e6
    assert not play(watch(every=1e6), embedding, [BLOCK])


def test_without_an_embedding_the_logits_are_watched() -> None:
    one = Watch(manifest(), false_alarms_per_month=1.0, embedding=False)
    embedding = steady(8000, 2)
    embedding[5000:] *= 3.0
    found = None
    for begin in range(0, 8000, BLOCK):
        logits = embedding[begin : begin + BLOCK] @ WEIGHTS
        one.pass_time(BLOCK)
        found = found or one.look(SCORER.score(logits), logits, None, count=BLOCK)
    assert found is not None
    assert found.signal in ("confidence", "energy", "classes")


def test_a_quick_stream_is_judged_a_little_later_and_nothing_is_lost_by_a_restart() -> None:
    """At 100,000 samples a second several blocks are held; what they show is told after a restart too."""
    embedding = steady(4000, 8)
    embedding[3000:] += 3.0

    def quick(saving: bool) -> list[tuple[int, Alarm]]:
        one, alarms = Watch(manifest(), false_alarms_per_month=1e6, embedding=True), []
        for begin in range(0, len(embedding), BLOCK):
            block = embedding[begin : begin + BLOCK]
            one.pass_time(BLOCK * 1e-5)
            if alarm := one.look(SCORER.score(block @ WEIGHTS), block @ WEIGHTS, block, count=len(block)):
                alarms.append((begin, alarm))
            if saving:
                one = Watch(manifest(), false_alarms_per_month=1e6, embedding=True, saved=one.save())
        return [found for found in alarms if found[1].kind == "moved"]

    ((at, alarm), *_), ((restarted_at, restarted), *_) = quick(saving=False), quick(saving=True)
    assert 3000 < at < 3000 + 2 * HELD
    assert 3000 < restarted_at < 3000 + 2 * HELD
    assert (restarted.signal, restarted.after, restarted.since) == (alarm.signal, alarm.after, alarm.since)


def test_of_a_thousand_classes_the_state_stays_small() -> None:
    many = 1000
    weights = np.random.default_rng(1).normal(size=(D, many)).astype(np.float32)
    made = msgspec.structs.replace(
        manifest(),
        classes=tuple(f"c{index}" for index in range(many)),
        reference=reference_of(steady(2000, 99), weights),
    )
    one = Watch(made, false_alarms_per_month=1.0, embedding=True)
    embedding = steady(3000, 2)
    for begin in range(0, len(embedding) - BLOCK, BLOCK):
        logits = embedding[begin : begin + BLOCK] @ weights
        one.pass_time(BLOCK)
        assert one.look(SCORER.score(logits), logits, embedding[begin : begin + BLOCK], count=BLOCK) is None
        assert len(one.save()) < 64_000
    assert one.watching
    assert one.state.differs == ()


def test_the_stated_rate_is_one_of_time() -> None:
    fast = Watch(manifest(), false_alarms_per_month=2.0, embedding=True)
    play(fast, steady(320, 1), [BLOCK])
    assert fast.samples_per_false_alarm == pytest.approx(MONTH_S / 2.0)
