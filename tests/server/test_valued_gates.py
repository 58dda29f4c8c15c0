"""Do the gates of several classes, numbers and boxes catch what their score hides, and nothing else?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from server.config import Gates
from server.teach.gates.answers import ece
from server.teach.gates.detected import Detected
from server.teach.gates.held import Held
from server.teach.gates.judge import Against, Answers, Evidence, judge
from server.teach.gates.several import Several, calibration_error
from server.teach.gates.slices import judge_slices
from server.teach.gates.values import Values, coverage

N = 900
RULES = Gates(max_negative_flips=1.0)
AB = np.array(["a", "b"])
EVERY = np.ones(2, np.bool_)


def held(ours: np.ndarray, theirs: np.ndarray, *, stream: bool = False, **more: object) -> Held:
    n, nothing = len(ours), np.full(len(ours), "")
    return Held(ours, theirs, np.full(n, stream), np.ones(n), np.full(n, "cam"), nothing, **more)  # type: ignore[arg-type]


def failed(ours: Answers, theirs: Answers, known: np.ndarray = AB) -> set[str]:
    assert not isinstance(ours, type(None))
    rows = held(ours.score(EVERY), theirs.score(EVERY))  # type: ignore[union-attr]
    return {one.name for one in judge(Evidence(held=rows, against=Against(known, ours, theirs)), rules=RULES).failed()}


# --- numbers ---


def numbers(seed: int = 0, *, error: tuple[float, float] = (0.3, 0.3), claimed: float = 1.0) -> Values:
    true = np.random.default_rng(9).normal(0.0, 1.0, (N, 2))
    off = np.random.default_rng(seed).normal(0.0, error, (N, 2))
    return Values(AB, true + off, claimed * np.full((N, 2), error), true, np.ones(2))


def test_as_good_a_regressor_passes() -> None:
    assert failed(numbers(1), numbers(0)) == set()


def test_errors_beyond_what_the_score_sees_are_caught() -> None:
    wild = np.where(np.arange(N)[:, None] % 20 == 0, 30.0, 0.0)  # 5 % are off by 30 scales: the score falls by .04
    bad = numbers(0)
    assert {"import/MAE a", "import/MAE b"} <= failed(replace(bad, mean=bad.mean + wild), numbers(0))


def test_one_target_that_was_lost_is_named_though_the_other_gained() -> None:
    found = failed(numbers(0, error=(0.1, 0.5)), numbers(0, error=(0.5, 0.1)))
    assert "import/MAE b" in found
    assert "import/MAE a" not in found


def test_spreads_that_claim_too_much_are_caught_and_those_that_claim_too_little() -> None:
    for claimed in (0.3, 3.0):
        assert failed(numbers(0, claimed=claimed), numbers(0)) == {"import/coverage"}
    share, influence = coverage(numbers(0), np.ones(N), np.arange(2))
    assert share == pytest.approx(0.9, abs=0.03)
    assert influence.sum() == pytest.approx(0.0, abs=1e-9)


def test_what_is_not_known_is_not_judged_nor_what_the_champion_does_not_know() -> None:
    bad, some = numbers(0, error=(0.3, 3.0)), np.arange(N) % 2 == 0
    unknown = bad.true.copy()
    unknown[:, 1] = np.nan
    assert failed(replace(bad, true=unknown), replace(numbers(0), true=unknown)) == set()
    found = judge(
        Evidence(held=held(some, some), against=Against(AB[:1], bad, numbers(0))), rules=RULES
    )  # the second target is new
    assert not [gate for gate in found.gates if gate.name.endswith("MAE b")]


# --- several classes ---


def decisions(seed: int = 0, *, right: tuple[float, float] = (0.9, 0.9), sure: float = 0.9) -> Several:
    rng = np.random.default_rng(9)
    true = rng.random((N, 2)) < (0.5, 0.05)  # the second is rare
    wrong = np.random.default_rng(seed).random((N, 2)) >= right
    return Several(AB, np.where(true ^ wrong, sure, 1.0 - sure), true)


def test_as_good_decisions_pass() -> None:
    assert failed(decisions(1), decisions(0)) == set()


def test_a_rare_class_that_is_never_said_is_caught_by_f1() -> None:
    """It is right 95 % of the time, so the score goes up."""
    never = decisions(0)
    never.probability[:, 1] = 0.1
    assert never.score(EVERY).mean() > decisions(0).score(EVERY).mean()
    assert "import/macro F1" in failed(never, decisions(0))


def test_sureness_that_is_not_earned_is_caught() -> None:
    assert failed(decisions(0, sure=0.9999), decisions(0)) >= {"import/calibration"}
    found, influence = calibration_error(decisions(0, sure=0.9999), np.ones(N))
    assert found == pytest.approx(0.1, abs=0.02)
    assert influence.sum() == pytest.approx(0.0, abs=1e-6)
    right = (decisions(0).probability >= 0.5) == decisions(0).true
    assert found <= ece(right.ravel(), np.full(2 * N, 0.9999), np.ones(2 * N))[0]


def test_classes_are_slices_by_what_a_sample_shows() -> None:
    worse, before = decisions(0), decisions(0)
    worse.probability[before.true[:, 1]] = 1.0 - before.true[before.true[:, 1]]  # wrong wherever b is shown
    shows = {"a": before.true[:, 0], "b": before.true[:, 1]}
    rows = held(worse.score(EVERY), before.score(EVERY), stream=True, shows=shows)
    lost = {gate.name for gate in judge_slices(rows, RULES) if gate.state == "failed"}
    assert "stream/class b" in lost
    assert "stream/device cam" not in lost
    names = [gate.name for gate in judge_slices(rows, RULES)]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.endswith("class ")]


# --- boxes ---


def scenes(*, score: float = 0.9, shift: float = 0.0, every: int = 1) -> Detected:
    true = [np.array([[i % 2, 0.2, 0.2, 0.6, 0.6, 1.0]]) for i in range(200)]
    said = [box + np.array([[0, shift, 0, shift, 0, score - 1.0]]) for box in true]
    said = [box if i % every == 0 else box[:0] for i, box in enumerate(said)]
    return Detected(AB, said, true, 0.3)


def test_boxes_that_lie_loose_are_caught_by_precision_alone() -> None:
    """At an IoU of .6 every box is still found: F1 is the same."""
    loose = scenes(shift=0.1)
    assert (loose.score(EVERY) == 1.0).all()
    assert failed(loose, scenes()) == {"import/mAP"}
    assert failed(scenes(), loose) == set()


def test_boxes_below_what_counts_are_caught_by_the_score_alone() -> None:
    quiet = scenes(score=0.2)
    found = failed(quiet, scenes())
    assert "import" in found
    assert "import/mAP" not in found


def test_a_flip_is_more_than_half_of_a_score() -> None:
    half, all_of_it = np.full(100, 0.5), np.ones(100)
    assert not held(half, all_of_it).flipped.any()
    assert held(half - 0.01, all_of_it).flipped.all()
    assert held(np.zeros(100, bool), np.ones(100, bool)).flipped.all()


def test_answers_of_two_tasks_are_never_held_against_each_other() -> None:
    rows = held(np.ones(N), np.ones(N))
    with pytest.raises(TypeError, match="answers of Values held against Several"):
        judge(Evidence(held=rows, against=Against(AB, numbers(0), decisions(0))), rules=RULES)
