"""When may a candidate pass?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config import Gates
from server.teach.gates import judge as judging
from server.teach.gates.held import Held
from server.teach.gates.judge import Evidence, Int8
from server.teach.gates.paired import anytime, fixed
from server.teach.gates.verdict import Gate, Verdict

RULES = Gates()


def judge(held: Held, *, int8_agreement: float | None, rules: Gates) -> Verdict:
    int8 = None if int8_agreement is None else Int8(int8_agreement, 0.0, len(held.label))
    return judging.judge(Evidence(held=held, int8=int8), rules=rules)


def held(candidate, champion, *, stream=False, probability=1.0, device="cam-1", label="cat") -> Held:
    n = len(candidate)

    def column(value, dtype):
        return np.broadcast_to(np.asarray(value, dtype=dtype), (n,)).copy()

    return Held(
        candidate=np.asarray(candidate, dtype=bool),
        champion=np.asarray(champion, dtype=bool),
        stream=column(stream, bool),
        probability=column(probability, float),
        device=column(device, np.str_),
        label=column(label, np.str_),
    )


def join(*parts: Held) -> Held:
    names = ("candidate", "champion", "stream", "probability", "device", "label")
    return Held(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def rights(n: int, right: int) -> np.ndarray:
    return np.arange(n) < right


def gate(verdict: Verdict, name: str) -> Gate:
    return next(gate for gate in verdict.gates if gate.name == name)


@st.composite
def helds(draw) -> Held:
    n = draw(st.integers(0, 60))

    def column(values):
        return draw(st.lists(values, min_size=n, max_size=n))

    stream = np.array(column(st.booleans()), dtype=bool)
    probability = np.array(column(st.floats(0.001, 1.0)), dtype=float)
    return Held(
        candidate=np.array(column(st.booleans()), dtype=bool),
        champion=np.array(column(st.booleans()), dtype=bool),
        stream=stream,
        probability=np.where(stream, probability, 1.0),
        device=np.array(column(st.sampled_from(["cam-1", "cam-2"])), dtype=np.str_),
        label=np.array(column(st.sampled_from(["cat", "dog"])), dtype=np.str_),
    )


@pytest.mark.parametrize("interval", [fixed, anytime])
@given(helds(), st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_interval_holds_its_figure_and_stays_within_one(interval, rows, confidence):
    found = interval(rows.change, rows.weight, confidence=confidence)
    assert -1.0 <= found.low <= found.figure <= found.high <= 1.0
    assert 0.0 <= found.effective <= found.n + 1e-6
    back = interval(-rows.change, rows.weight, confidence=confidence)
    assert back.figure == pytest.approx(-found.figure)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize("interval", [fixed, anytime])
@given(helds(), st.floats(0.5, 100.0))
def test_interval_does_not_depend_on_the_scale_of_weights(interval, rows, factor):
    one = interval(rows.change, rows.weight, confidence=0.95)
    other = interval(rows.change, rows.weight * factor, confidence=0.95)
    assert one == pytest.approx(other)


@given(helds())
def test_verdict_passes_just_when_no_gate_failed_and_says_a_slice_only_once(rows):
    verdict = judge(rows, int8_agreement=None, rules=RULES)
    assert verdict.passed == (not verdict.failed())
    names = [gate.name for gate in verdict.gates]
    assert len(names) == len(set(names))
    assert gate(verdict, "held_out").n == len(rows.label)


@given(helds())
def test_without_a_champion_only_missing_evidence_blocks(rows):
    alone = Held(rows.candidate, np.zeros_like(rows.champion), rows.stream, rows.probability, rows.device, rows.label)
    failed = {gate.name for gate in judge(alone, int8_agreement=1.0, rules=RULES).failed()}
    assert failed <= {"held_out"}


@given(helds(), st.integers(0, 59))
def test_getting_one_more_right_never_turns_a_pass_into_a_failure_of_the_whole(rows, at):
    if not len(rows.label):
        return
    better = rows.candidate.copy()
    better[at % len(better)] = True
    before = judge(rows, int8_agreement=None, rules=RULES)
    improved = Held(better, rows.champion, rows.stream, rows.probability, rows.device, rows.label)
    after = judge(improved, int8_agreement=None, rules=RULES)
    if gate(before, "stream").state == "passed":
        assert gate(after, "stream").state == "passed"


def test_interval_covers_the_true_difference_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        outcome = rng.choice([-1, 0, 1], size=80, p=[0.05, 0.85, 0.10])
        probability = rng.choice([0.1, 0.5, 1.0], size=80)
        found = fixed(outcome, 1 / probability, confidence=0.95)
        covered += found.low <= 0.05 <= found.high
    assert covered / 400 >= 0.93


@pytest.mark.parametrize(
    ("candidate", "champion", "state"),
    [
        (900, 900, "passed"),  # as good as before, shown with a thousand samples
        (875, 900, "failed"),  # the low end is past the limit, and there was evidence enough
        (700, 900, "failed"),
    ],
)
def test_what_it_knew_must_be_kept(candidate, champion, state):
    rows = held(rights(1000, candidate), rights(1000, champion))
    verdict = judge(rows, int8_agreement=None, rules=RULES)
    assert gate(verdict, "import").state == state
    assert verdict.passed == (state == "passed")


@pytest.mark.parametrize(
    ("candidate", "state"), [(36, "too_little_evidence"), (35, "too_little_evidence"), (34, "failed"), (20, "failed")]
)
def test_few_imported_samples_block_only_by_what_they_show(candidate, state):
    rows = held(rights(40, candidate), rights(40, 36))
    assert gate(judge(rows, int8_agreement=None, rules=RULES), "import").state == state


def test_stream_is_judged_by_weight_not_by_count():
    asked = held(rights(60, 60), rights(60, 20), stream=True, probability=1.0)  # what devices were unsure of: better
    quiet = held(rights(60, 40), rights(60, 60), stream=True, probability=0.01)  # all the rest: worse
    verdict = judge(join(asked, quiet), int8_agreement=None, rules=RULES)
    assert gate(verdict, "stream").state == "failed"
    assert gate(verdict, "stream").figure < -0.3


def test_one_heavy_sample_decides_nothing():
    asked = held(rights(60, 60), rights(60, 20), stream=True, probability=1.0)
    unlucky = held([False], [True], stream=True, probability=0.005)
    verdict = judge(join(asked, unlucky), int8_agreement=None, rules=RULES)
    assert gate(verdict, "stream").figure < 0
    assert gate(verdict, "stream").state == "too_little_evidence"
    assert verdict.passed


@pytest.mark.parametrize(
    ("right", "state"), [(15, "failed"), (29, "too_little_evidence"), (31, "too_little_evidence"), (45, "passed")]
)
def test_the_whole_interval_decides_the_gain(right, state):
    rows = held(rights(100, right), rights(100, 30), stream=True)
    assert gate(judge(rows, int8_agreement=None, rules=RULES), "stream").state == state


def test_min_gain_is_asked_for():
    rows = held(rights(1000, 310), rights(1000, 300), stream=True)
    assert judge(rows, int8_agreement=None, rules=RULES).passed
    assert not judge(rows, int8_agreement=None, rules=Gates(min_gain=0.05)).passed


def test_one_device_that_got_worse_blocks_a_gain_of_the_fleet():
    good = held(rights(400, 380), rights(400, 200), stream=True, device="cam-1")
    bad = held(rights(60, 20), rights(60, 50), stream=True, device="cam-2")
    verdict = judge(join(good, bad), int8_agreement=None, rules=RULES)
    assert gate(verdict, "stream").state == "passed"
    assert [gate.name for gate in verdict.failed()] == ["stream/device cam-2"]


def test_one_class_that_was_forgotten_blocks():
    kept = held(rights(600, 600), rights(600, 520), label="cat")
    lost = held(rights(60, 20), rights(60, 60), label="dog")
    verdict = judge(join(kept, lost), int8_agreement=None, rules=RULES)
    assert [gate.name for gate in verdict.failed()] == ["import/class dog"]


def test_small_slices_are_named_but_do_not_block():
    good = held(rights(100, 90), rights(100, 50), stream=True, device="cam-1")
    few = held(rights(8, 0), rights(8, 8), stream=True, device="cam-2")
    verdict = judge(join(good, few), int8_agreement=None, rules=RULES)
    assert gate(verdict, "stream/device cam-2").state == "too_little_evidence"
    assert verdict.passed


def test_nothing_held_out_blocks():
    verdict = judge(held([], []), int8_agreement=1.0, rules=RULES)
    assert [gate.name for gate in verdict.failed()] == ["held_out"]


@pytest.mark.parametrize(("agreement", "passed"), [(0.97, True), (0.9699, False), (None, True)])
def test_int8_must_agree(agreement, passed):
    rows = held(rights(100, 60), rights(100, 30), stream=True)
    assert judge(rows, int8_agreement=agreement, rules=RULES).passed is passed


def test_want_of_proof_blocks_only_where_the_samples_could_have_given_it():
    """A loss of one point, of 400 samples and of 4,000: either may be chance, but the more could have shown that."""
    for times, state in ((1, "too_little_evidence"), (10, "passed"), (3, "passed")):
        champion, candidate = rights(400 * times, 360 * times), rights(400 * times, 360 * times)
        candidate[: 14 * times], candidate[-10 * times :] = False, True
        assert gate(judge(held(candidate, champion), int8_agreement=None, rules=RULES), "import").state == state
    candidate[: 30 * 3] = False
    assert gate(judge(held(candidate, champion), int8_agreement=None, rules=RULES), "import").state == "failed"


@given(helds())
def test_the_audit_has_an_interval_that_holds_at_any_time_and_imports_that_of_a_fixed_set(rows):
    verdict = judge(rows, int8_agreement=None, rules=RULES)
    for name, part, interval in (("stream", rows.stream, anytime), ("import", ~rows.stream, fixed)):
        found = interval(rows.change[part], rows.weight[part], confidence=RULES.confidence)
        assert gate(verdict, name).interval == pytest.approx((found.low, found.high))
