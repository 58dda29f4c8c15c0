"""Do the figures of the gates mean what they say: intervals, levels, curves, budgets?"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config import Gates
from server.errors import ServerConfigError
from server.teach.gates import answers, budgets, hardship, paired, trust
from server.teach.gates.answers import Said
from server.teach.gates.budgets import Cost
from server.teach.gates.hardship import Disturbed, Strange
from server.teach.gates.held import Held
from server.teach.gates.judge import Against, Evidence, Forgotten, Int8, judge
from server.teach.gates.slices import holm, judge_slices, thirds
from server.teach.gates.trust import Labelled
from server.teach.gates.verdict import Gate, at_least, at_most

RULES = Gates()
TRUE = 0.05  # of the outcomes below
OUTCOMES = {"p": [0.05, 0.85, 0.10]}  # of -1, 0, 1


# --- intervals ---


def misses(seed: int, wrong) -> bool:
    """Whether, looking after every twentieth of 400 samples, the true value is ever found to be impossible."""
    values = np.random.default_rng(seed).choice([-1, 0, 1], size=400, **OUTCOMES)
    return any(wrong(values[:n]) for n in range(20, 401, 20))


def test_a_growing_set_may_be_looked_at_as_often_as_one_likes() -> None:
    def ever(values) -> bool:
        ones = np.ones(len(values))
        below = paired.anytime_below(values, ones, TRUE)
        return min(below, paired.anytime_below(-values, ones, -TRUE)) < 0.025

    def at_some_look(values) -> bool:
        found = paired.fixed(values, np.ones(len(values)), confidence=0.95)
        return not found.low <= TRUE <= found.high

    assert np.mean([misses(seed, ever) for seed in range(120)]) <= 0.05
    assert np.mean([misses(seed, at_some_look) for seed in range(120)]) > 0.15  # why the other is needed


def test_figures_that_are_no_means_may_be_looked_at_as_often_as_one_likes_too() -> None:
    rng, looks = np.random.default_rng(0), range(40, 1001, 20)

    def missed(growing: bool) -> float:
        ever = 0
        for values in rng.normal(0.0, 0.3, size=(200, 1000)):
            parts = (values[:n] for n in looks)
            found = (
                paired.of_parts(part.mean(), part - part.mean(), np.ones(len(part)), confidence=0.95, growing=growing)
                for part in parts
            )
            ever += any(not one.low <= 0.0 <= one.high for one in found)
        return ever / 200

    assert missed(growing=True) <= 0.03
    assert missed(growing=False) > 0.15
    # Theorem 2.2, written out: t, rho and alpha as there.
    t, rho2, alpha = 200.0, (-2 * math.log(0.05) + math.log(-2 * math.log(0.05)) + 1) / 500.0, 0.05
    half = math.sqrt(2 * (t * rho2 + 1) / (t**2 * rho2) * math.log(math.sqrt(t * rho2 + 1) / alpha))
    values = np.resize([1.0, -1.0], 200)
    found = paired.of_parts(0.0, values, np.ones(200), confidence=0.95, growing=True)
    assert found.high == pytest.approx(half, rel=0.01)


@given(st.integers(0, 1000), st.integers(5, 300), st.sampled_from([0.9, 0.95]), st.floats(-0.5, 0.5))
def test_a_value_is_outside_the_interval_just_when_it_is_refuted(seed, n, confidence, limit) -> None:
    rng = np.random.default_rng(seed)
    values, weight = rng.choice([-1, 0, 1], size=n, **OUTCOMES), rng.choice([1.0, 5.0], size=n)
    for interval, below in ((paired.anytime, paired.anytime_below), (paired.fixed, paired.fixed_below)):
        found = interval(values, weight, confidence=confidence)
        if abs(found.high - limit) > 1e-6:
            assert (found.high < limit) == (below(values, weight, limit) < (1.0 - confidence) / 2.0)


def test_weights_bring_the_mean_of_the_stream_back() -> None:
    """A tenth of the stream, where the candidate loses, is taken ten times as often as the rest, where it gains."""
    rng = np.random.default_rng(0)
    rare = rng.random(4000) < 0.1 * 10 / (0.1 * 10 + 0.9)
    values = np.where(rare, -1.0 * (rng.random(4000) < 0.3), 1.0 * (rng.random(4000) < 0.2))
    found = paired.anytime(values, np.where(rare, 0.1, 1.0), confidence=0.95)
    assert found.low < 0.9 * 0.2 - 0.1 * 0.3 < found.high
    assert found.high - found.low < 0.1
    assert values.mean() < found.low  # what plain counting would say


def test_an_anytime_interval_shrinks_with_what_is_known() -> None:
    values = np.resize([1, 0, 0, 0, 0, -1, 0, 0, 0, 0], 4000)
    widths = [paired.anytime(values[:n], np.ones(n), confidence=0.95) for n in (100, 400, 1600)]
    first, second, third = (found.high - found.low for found in widths)
    assert 1.6 < first / second < 2.4
    assert 1.6 < second / third < 2.4


def test_an_anytime_interval_is_narrow_at_the_ends_too() -> None:
    found = paired.anytime(np.tile(np.repeat([1, -1], [97, 3]), 10), np.ones(1000), confidence=0.95)
    assert 0.85 < found.low < 0.94 < found.high < 0.98


@pytest.mark.parametrize("turn", [at_least, at_most])
def test_as_many_labels_more_as_are_said_to_be_missing_settle_it(turn) -> None:
    values = np.repeat([1, 0, -1], [9, 86, 5])

    def seen(times: int) -> Gate:
        found = paired.fixed(np.tile(values, times), np.ones(100 * times), confidence=0.95)
        return turn("x", found, 0.0, min_samples=30)

    enough = 1 + math.ceil(seen(1).missing / 100)
    assert seen(1).missing > 100
    assert seen(enough).state != "too_little_evidence"
    assert seen(enough // 2).state == "too_little_evidence"


# --- many at once ---


@given(st.lists(st.floats(0.0, 1.0), max_size=30), st.floats(0.001, 0.2))
def test_holm_rejects_what_bonferroni_does_and_nothing_that_alone_would_stand(values, alpha) -> None:
    p = np.array(values)
    rejected = p < holm(p, alpha)
    assert (rejected >= (p < alpha / max(1, len(p)))).all()
    assert (rejected <= (p < alpha)).all()
    if rejected.any():  # in order: none is rejected that is likelier than one that stands
        assert p[rejected].max() <= p[~rejected].min(initial=1.0)


def test_holm_seldom_rejects_any_of_many_true_ones() -> None:
    rng = np.random.default_rng(1)
    assert np.mean([(p < holm(p, 0.05)).any() for p in rng.random((2000, 25))]) < 0.065


@given(st.lists(st.floats(-100.0, 100.0), max_size=60))
def test_thirds_are_ordered(values) -> None:
    array = np.array(values)
    found = thirds(array)
    ends = [array[found == name] for name in ("low", "middle", "high")]
    for lower, upper in itertools.pairwise(ends):
        if len(lower) and len(upper):
            assert lower.max() <= upper.min()


def narrowly_worse(n: int, limit: float) -> np.ndarray:
    """(n,) 0 and -1, so that the loss is sure alone, and not among six."""
    for losses in range(n):
        values = -(np.arange(n) < losses).astype(np.int8)
        if (p := paired.fixed_below(values, np.ones(n), limit)) < 0.02:
            break
    assert 0.025 / 6 < p < 0.02
    return values


def test_a_loss_that_one_of_many_slices_shows_by_chance_does_not_block() -> None:
    change = narrowly_worse(200, -RULES.max_drop)

    def failed(classes: int) -> list[str]:
        label = np.repeat([f"c{k}" for k in range(classes)], 200)
        rows = held(np.r_[change == 0, np.ones(200 * (classes - 1), bool)], np.ones(200 * classes, bool))
        gates = [gate for gate in judge_slices(replace(rows, label=label), RULES) if "/class" in gate.name]
        narrow = next(gate for gate in gates if gate.name == "import/class c0")
        assert (narrow.interval[1] < narrow.limit) == (narrow.state == "failed")  # what is shown is what it was held to
        return [gate.name for gate in gates if gate.state == "failed"]

    assert failed(1) == ["import/class c0"]
    assert failed(6) == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_slice_fails_just_when_its_interval_at_the_level_of_all_lies_beyond(stream) -> None:
    rng, seen = np.random.default_rng(9), set()
    for _ in range(60):
        label = np.repeat([f"c{k}" for k in range(5)], 150)
        losses = np.repeat(rng.uniform(0.0, 0.4, 5), 150)
        rows = held(rng.random(750) >= losses, np.ones(750, bool), stream=stream)
        gates = [one for one in judge_slices(replace(rows, label=label), RULES) if "/class c" in one.name]
        below = paired.anytime_below if stream else paired.fixed_below
        parts = [rows.candidate[label == f"c{k}"].astype(int) - 1 for k in range(5)]
        p = np.array([below(part, np.ones(150), -RULES.max_drop) for part in parts])
        assert [gate.state == "failed" for gate in gates] == (p < holm(p, 0.025)).tolist()
        seen.add(int((p < 0.025).sum()))
    assert len(seen) > 2


def test_holm_stops_at_the_first_that_stands() -> None:
    p = np.array([0.001, 0.02, 0.024])  # against 1/3, then 1/2 of 0.025; the last alone would be below its level
    assert (p < holm(p, 0.025)).tolist() == [True, False, False]


def test_a_loss_that_one_of_many_corruptions_shows_by_chance_does_not_block() -> None:
    change = narrowly_worse(200, -RULES.max_corruption_drop)

    def failed(corruptions: int) -> set[str]:
        right = np.ones((corruptions, 200), bool)
        right[0] = change == 0
        names = tuple(f"k{k}" for k in range(corruptions))
        gates = hardship.judge_disturbed(Disturbed(names, right, np.ones_like(right)), RULES)
        return {gate.name for gate in gates if gate.state == "failed" and "/" in gate.name}

    assert failed(1) == {"robustness/k0"}
    assert failed(6) == set()


# --- answers ---


def test_influence_is_what_one_sample_more_does() -> None:
    rng = np.random.default_rng(2)
    label, weight = rng.choice(["a", "b", "c"], 60), rng.uniform(0.5, 2.0, 60)
    said = np.where(rng.random(60) < 0.7, label, rng.choice(["a", "b", "c"], 60))
    figure, influence = answers.macro_f1(label, said, weight)
    for row in range(0, 60, 7):
        more = weight.copy()
        more[row] *= 1.0 + 1e-6
        moved = answers.macro_f1(label, said, more)[0] - figure
        assert moved == pytest.approx(1e-6 * weight[row] / weight.sum() * influence[row], rel=1e-3, abs=1e-12)


def test_a_class_of_a_few_samples_has_no_f1() -> None:
    label = np.repeat(["a", "b", "c"], [10, 10, 2])
    taken_for_a = answers.macro_f1(label, np.where(label == "c", "a", label), np.ones(22))[0]
    assert taken_for_a == pytest.approx((20 / 22 + 1.0) / 2)
    assert answers.macro_f1(label, label, np.ones(22))[0] == 1.0


def test_chance_is_what_a_calibrated_model_shows() -> None:
    rng = np.random.default_rng(3)
    shown, said = [], []
    for _ in range(60):
        sure = rng.uniform(0.4, 1.0, 300)
        error, chance, _ = answers.ece(rng.random(300) < sure, sure, np.ones(300))
        shown.append(error)
        said.append(chance)
    assert np.mean(said) == pytest.approx(np.mean(shown), rel=0.1)


def test_what_a_calibrated_model_shows_by_chance_is_no_rise() -> None:
    rng, changes, raw = np.random.default_rng(8), [], []
    for _ in range(40):
        ours, theirs = (rng.random(300) < sure for sure in (0.5, 0.99))
        said = [said_by(right, sure) for right, sure in ((ours, 0.5), (theirs, 0.99))]
        changes.append(answers.ece_change(held(ours, theirs), *said, confidence=0.95).figure)
        raw.append(answers.ece(ours, said[0].confidence, np.ones(300))[0])
    assert np.mean(raw) > 0.08
    assert abs(np.mean(changes)) < 0.02


def held(right, before, *, stream: bool = False) -> Held:
    n = len(right)
    name = np.full(n, "x")
    return Held(np.asarray(right), np.asarray(before), np.full(n, stream), np.ones(n), name, name)


def said_by(right, sure) -> Said:
    n = len(right)
    brier = (np.asarray(right) - sure) ** 2 * 2
    return Said(np.where(right, "x", "y"), np.full(n, sure), np.broadcast_to(brier, n), np.full(n, 0.1))


@pytest.mark.parametrize(("sure", "state"), [(0.8, "passed"), (0.99, "failed")])
def test_calibration_is_judged_by_how_sure_it_is(sure, state) -> None:
    right = np.arange(2000) % 5 < 4
    rows = held(right, right)
    evidence = Against(np.array(["x"]), said_by(right, sure), said_by(right, 0.8))
    gates = {gate.name: gate for gate in judge(Evidence(held=rows, against=evidence), rules=RULES).gates}
    assert gates["import/calibration"].state == state
    assert gates["import/negative flips"].figure == 0.0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("n", "state"), [(40, "too_little_evidence"), (4000, "passed")])
def test_a_few_answers_that_did_not_change_show_nothing_surely(stream, n, state) -> None:
    right = np.arange(n) % 5 < 4
    said = said_by(right, 0.8)
    evidence = Evidence(
        held=held(right, right, stream=stream), against=Against(np.array(["x"]), said, said), int8=Int8(1.0, 0.0, n)
    )
    gates = {gate.name: gate for gate in judge(evidence, rules=RULES).gates}
    origin = "stream" if stream else "import"
    names = ("macro F1", "calibration", "Brier")
    assert {gates[f"{origin}/{name}"].state for name in names} == {state}
    assert gates["int8_accuracy"].state == state


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("flips", "state"), [(10, "passed"), (80, "too_little_evidence"), (200, "failed")])
def test_negative_flips_count_though_as_many_are_gained(stream, flips, state) -> None:
    before, right = np.arange(1000) < 600, np.arange(1000) < 600
    right[:flips], right[-flips:] = False, True
    evidence = Against(np.array(["x"]), said_by(right, 0.6), said_by(before, 0.6))
    verdict = judge(Evidence(held=held(right, before, stream=stream), against=evidence), rules=RULES)
    name = f"{'stream' if stream else 'import'}/negative flips"
    gate = next(gate for gate in verdict.gates if gate.name == name)
    assert (gate.figure, gate.state) == (pytest.approx(flips / 1000), state)


def test_each_gate_goes_by_its_own_limit() -> None:
    rules = Gates(
        max_drop=0.029, min_gain=0.001, max_negative_flips=0.048, max_ece_rise=0.046, max_brier_rise=0.047,
        max_corrupted_drop=0.044, max_corruption_drop=0.245, max_ood_drop=0.043, max_forgotten=0.041,
        min_int8_agreement=0.96, max_int8_drop=0.012, max_label_disagreement=0.049, min_samples=31,
    )  # fmt: skip
    right = np.ones(200, bool)
    disturbed = Disturbed(("noise",), right[None], right[None])
    strange = Strange((np.zeros(200), np.zeros(200)), (np.ones(200), np.ones(200)))
    against = Against(
        np.array(["x"]), said_by(right, 0.9), said_by(right, 0.9), disturbed, strange, [Forgotten(1, np.zeros(200))]
    )
    stream = np.arange(200) < 100
    evidence = Evidence(
        held=replace(held(right, right), stream=stream),
        against=against,
        int8=Int8(1.0, 0.0, 200),
        labelled=[labelled(liars=0)],
    )
    limits = {gate.name: gate.limit for gate in judge(evidence, rules=rules).gates}
    found = {name: limit for name, limit in limits.items() if not name.startswith("labels/")}
    assert found.pop("stream/device x") == found.pop("import/class x") == -0.029
    for origin in ("stream", "import"):
        each = [found.pop(f"{origin}/{name}") for name in ("macro F1", "calibration", "Brier", "negative flips")]
        assert each == [-0.029, 0.046, 0.047, 0.048]
    assert found == {
        "held_out": 31.0, "stream": 0.001, "import": -0.029, "robustness": -0.044, "robustness/noise": -0.245,
        "strangers": -0.043, "forgetting/version 1": -0.041, "int8_agreement": 0.96, "int8_accuracy": -0.012,
    }  # fmt: skip
    assert {limit for name, limit in limits.items() if name.startswith("labels/")} == {0.049}


def test_answers_are_compared_on_classes_that_both_know_and_by_weight() -> None:
    right = np.arange(400) % 4 < 3
    label = np.where(np.arange(400) < 300, "x", "new")
    ours, theirs = said_by(right, 0.75), said_by(right, 0.75)
    ours = replace(ours, brier=theirs.brier + 0.2)
    rows = replace(held(right, right), label=label)
    gates = {gate.name: gate for gate in judge(Evidence(held=rows, against=Against(np.array(["x"]), ours, theirs)),
                                               rules=RULES).gates}  # fmt: skip
    brier = gates["import/Brier"]
    assert {gates[f"import/{name}"].n for name in ("macro F1", "calibration", "Brier", "negative flips")} == {300}
    assert (brier.figure, brier.state) == (pytest.approx(0.2), "failed")
    assert brier.interval[0] < 0.2 < brier.interval[1]
    heavy = np.where(right, 1.0, 1e-6)  # of those that it has right alone, .75 is a quarter too little
    assert answers.ece(right, np.full(400, 0.75), heavy)[0] == pytest.approx(0.25, abs=0.01)
    assert answers.ece(right, np.full(400, 0.75), np.ones(400))[0] < 0.05


# --- hardship, forgetting, contract ---


def test_auroc_is_the_share_of_pairs() -> None:
    rng = np.random.default_rng(4)
    known, strange = rng.integers(0, 6, 40).astype(float), rng.integers(2, 9, 30).astype(float)
    pairs = np.sign(strange[:, None] - known[None]) / 2 + 0.5
    assert hardship.auroc(known, strange) == pytest.approx(pairs.mean())


def test_the_difference_of_curves_has_an_interval_that_covers() -> None:
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(200):
        shared, odd = rng.normal(0, 1, 80), rng.normal(2, 1, 80)
        own = [rng.normal(0, 1, 80) for _ in range(4)]
        strange = Strange((shared + own[0], shared + 2 * own[1]), (odd + own[2], odd + 2 * own[3]))
        found = hardship.auroc_change(strange, confidence=0.95)
        ours, theirs = (0.5 * math.erfc(-2 / math.sqrt(2 * v) / math.sqrt(2)) for v in (2.0, 5.0))
        covered.append(found.low <= ours - theirs <= found.high)
    assert np.mean(covered) >= 0.9


def test_what_bears_less_is_blocked_by_name() -> None:
    rng = np.random.default_rng(6)
    worse = rng.random((3, 200)) < np.array([[0.3], [0.8], [0.8]])
    disturbed = Disturbed(("noise", "fog", "dark"), worse, rng.random((3, 200)) < 0.9)
    blind = Strange((rng.random(200), rng.random(200)), (rng.random(200), rng.random(200) + 0.8))
    right = np.ones(200, bool)
    forgotten = (
        Forgotten(3, np.where(np.arange(200) % 5, 0, -1).astype(np.int8)),
        Forgotten(1, np.zeros(200, np.int8)),
    )
    against = Against(np.array(["x"]), said_by(right, 0.9), said_by(right, 0.9), disturbed, blind, forgotten)
    verdict = judge(Evidence(held=held(right, right), against=against, broken=["it is upside down"]), rules=RULES)
    failed = {gate.name: gate.why for gate in verdict.failed()}
    assert set(failed) == {"robustness", "robustness/noise", "strangers", "forgetting/version 3", "contract"}
    assert failed["contract"] == "it is upside down"


# --- labels ---


def labelled(*, liars: int, hard: bool = False) -> Labelled:
    """Twenty devices with 120 labels; the first `liars` turn theirs round, or the first sees badly."""
    rng = np.random.default_rng(7)
    who, true = np.repeat([f"cam-{k:02}" for k in range(20)], 120), rng.integers(0, 4, 2400)
    sure = rng.uniform(0.6, 1.0, 2400)
    right = rng.random(2400) < sure
    if hard:
        sure[:120] = rng.uniform(0.25, 0.6, 120)
        right[:120] = rng.random(120) < sure[:120]
    top = np.where(right, true, (true + 1) % 4)
    label = np.where(np.arange(2400) < 120 * liars, (true + 2) % 4, true)
    of_label = np.where(top == label, sure, (1 - sure) / 3)
    return Labelled("device", who, label.astype(str), top.astype(str), sure, of_label)


def test_whose_labels_are_turned_round_is_named_and_who_sees_badly_is_not() -> None:
    def failed(found: Labelled) -> list[str]:
        return [gate.name for gate in trust.judge_labels(found, RULES) if gate.state == "failed"]

    assert failed(labelled(liars=0)) == []
    assert failed(labelled(liars=2)) == ["labels/device cam-00", "labels/device cam-01"]
    assert failed(labelled(liars=0, hard=True)) == []
    alone = labelled(liars=1)
    assert trust.judge_labels(alone._replace(who=np.full(2400, "cam-1")), RULES) == []


# --- budgets ---


@pytest.mark.parametrize(
    "text", ["pi4", "pi4 = ", "= 20 ms", "pi4 = x 9", "pi4 = 20 s", "pi4 = 1.2.3 ms", "pi4 = 20 ms, x 9, as cam-1"]
)
def test_a_budget_that_says_nothing_is_refused(text) -> None:
    with pytest.raises(ServerConfigError, match="budgets: got"):
        budgets.parse([text])


def test_boards_bear_what_their_budget_says() -> None:
    boards = budgets.parse(["pi4 = 20 ms, 5 MB, x 9", "mcu = 1 MB", "nano = 30 ms, as cam-1", "zero = 30 ms, as cam-2"])
    gates = {gate.name: gate for gate in budgets.judge_cost(Cost(3.0, 2_000_000, {"cam-1": 5.0}), boards)}
    states = {name: gate.state for name, gate in gates.items()}
    assert states == {
        "latency/pi4": "failed",
        "size/pi4": "passed",
        "size/mcu": "failed",
        "latency/nano": "passed",
        "latency/zero": "too_little_evidence",
    }
    assert gates["latency/pi4"].why == "3.000 ms here, times 9 as stated"
    assert "cam-2 has not said yet" in gates["latency/zero"].why


def test_a_gate_of_an_older_report_is_read() -> None:
    old = {"name": "stream", "state": "passed", "figure": 0.1, "interval": [0.0, 0.2], "limit": 0.0, "n": 40}
    gate = msgspec.convert(old, type=Gate)
    assert (gate.missing, gate.why) == (0, "")


def test_slices_of_conditions_are_judged_by_origin() -> None:
    rows = held(np.ones(200, bool), np.ones(200, bool))
    light = np.where(np.arange(200) % 2, "low", "high")
    rows = replace(rows, candidate=light == "low", slices={"brightness": light, "time": light})
    names = [gate.name for gate in judge(Evidence(held=rows), rules=RULES).failed()]
    every = {gate.name for gate in judge(Evidence(held=replace(rows, slices={"time": light})), rules=RULES).gates}
    assert not any("/time" in name for name in every)
    assert names == ["import", "import/class x", "import/brightness high"]  # of imports the time says nothing


def test_what_a_site_lost_is_found_though_each_of_its_devices_has_too_few_samples() -> None:
    device = np.char.add("cam-", (np.arange(600) // 20).astype(np.str_))
    site = np.where(np.arange(600) < 200, "hall", "yard")
    rows = replace(held(np.arange(600) >= 100, np.ones(600, bool)), stream=np.ones(600, bool), device=device)
    failed = [gate.name for gate in judge(Evidence(held=replace(rows, slices={"site": site})), rules=RULES).failed()]
    assert "stream/site hall" in failed
    assert not any(name.startswith(("stream/device", "stream/site yard")) for name in failed)
