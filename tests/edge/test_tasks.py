"""Do the adapters of the tasks score what they say, bounded, and row by row?"""

from __future__ import annotations

import math
import threading
from pathlib import Path

import graphs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.choose.acquisition import BUILT_IN, Scored
from edge_agent.choose.disagreement import Share
from edge_agent.choose.drift import Watch
from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.choose.targets import OF_COMMITTEES
from edge_agent.choose.tasks.detection import Detection, expected_f1
from edge_agent.choose.tasks.frames import Frames
from edge_agent.choose.tasks.multilabel import Multilabel
from edge_agent.choose.tasks.regression import Regression
from edge_agent.contract.artifact import Answer, Golden, Manifest, Tensor
from edge_agent.contract.errors import ConfigError, IncompatibleError
from edge_agent.contract.task import MOST
from edge_agent.contract.types import Reading
from edge_agent.intake import Intake
from edge_agent.loop import Cursor, Loop
from edge_agent.model import Model
from edge_agent.outgoing import Identity
from edge_agent.send.writer import Handover

NAMES = [*BUILT_IN, *OF_COMMITTEES]
ANSWER = Answer(boxes="boxes", score_min=0.4, overlap_max=0.5, most=5)


def logits(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 3.0, shape).astype(np.float32)


def boxes(*shape: int, seed: int = 0) -> np.ndarray:
    corners = np.random.default_rng(seed).random((*shape, 2, 2)).astype(np.float32)
    found: np.ndarray = np.sort(corners, axis=-2).reshape(*shape, 4)
    return found


def score(task: str, name: str, rows: np.ndarray, *, heads: int = 1) -> Scored:
    if task == "multilabel":
        return Multilabel(name, members=heads).score(rows)
    if task == "regression":
        return Regression(name, members=heads, scale=(2.0,) * rows.shape[-1]).score(rows, rows * 0.5)
    return Detection(name, answer=ANSWER).score(rows, boxes(*rows.shape[:2]))


@pytest.mark.parametrize("task", ["multilabel", "regression", "detection"])
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_bounded_and_say_when_nothing_can_be_used(task: str, name: str) -> None:
    heads = 3 if task != "detection" else 1
    rows = logits(40, 3, 4)
    rows[5, 1, 2], rows[6, 0, 0], rows[7] = np.nan, np.inf, -np.inf
    scored = score(task, name, rows, heads=heads)
    broken = [5, 6, 7]
    sound = np.setdiff1d(np.arange(40), broken)
    assert np.isnan(scored.utility[broken]).all()
    assert np.isnan(scored.confidence[broken]).all()
    assert np.isfinite(scored.utility[sound]).all()
    assert ((scored.confidence[sound] >= 0.0) & (scored.confidence[sound] <= 1.0)).all()
    if name not in ("energy",) and (task, name) != ("regression", "entropy"):
        assert ((scored.utility[sound] >= -1e-6) & (scored.utility[sound] <= 1.0 + 1e-6)).all()
    assert np.isfinite(scored.energy[sound]).all()
    assert scored.residual.shape[0] == 40
    assert np.ptp(scored.utility[sound]) > 0.0


@given(st.integers(0, 500), st.permutations(range(12)), st.sampled_from(["multilabel", "regression"]))
def test_a_row_scores_the_same_wherever_it_stands(seed: int, order: list[int], task: str) -> None:
    rows = logits(12, 5, seed=seed)
    for name in NAMES:
        there, back = score(task, name, rows), score(task, name, np.ascontiguousarray(rows[order]))
        assert there.utility[order].tobytes() == back.utility.tobytes()
        assert there.confidence[order].tobytes() == back.confidence.tobytes()


# --- several classes ---


def test_several_classes_by_their_definitions() -> None:
    rows = logits(30, 6)
    p = 1.0 / (1.0 + np.exp(-rows.astype(np.float64) / 2.0))
    sure = np.maximum(p, 1.0 - p)
    found = {name: Multilabel(name, temperature=2.0).score(rows) for name in BUILT_IN}
    np.testing.assert_allclose(found["margin"].utility, 2.0 - 2.0 * sure.prod(axis=1) ** (1 / 6), atol=1e-5)
    np.testing.assert_allclose(found["least_confidence"].utility, 1.0 - sure.prod(axis=1), atol=1e-6)
    entropy = -(p * np.log2(p) + (1.0 - p) * np.log2(1.0 - p)).mean(axis=1)
    np.testing.assert_allclose(found["entropy"].utility, entropy, atol=1e-6)
    np.testing.assert_allclose(found["energy"].utility, np.log1p(-p).sum(axis=1), atol=1e-5)
    np.testing.assert_allclose(found["margin"].confidence, sure.mean(axis=1), atol=1e-6)
    assert (found["margin"].label == p.argmax(axis=1)).all()
    said = found["margin"].answers.said(3)
    assert [one.label for one in said.applies] == list(range(6))
    assert [one.probability for one in said.applies] == pytest.approx(p[3].tolist(), abs=1e-4)


def test_heads_that_contradict_each_other_are_what_bald_asks_about() -> None:
    agree, dispute = np.tile(np.float32([4.0, 0.0]), (2, 1)), np.float32([[9.0, 4.0], [-9.0, 4.0]])
    scored = Multilabel("bald", members=2).score(np.stack((agree, dispute)))
    assert scored.utility.tolist() == pytest.approx([0.0, 0.5], abs=1e-3)  # one of two classes, wholly
    assert Multilabel("bald").complaint != ""
    assert "margin stands in" in Multilabel("epig", members=3).complaint


def test_two_that_decide_alike_agree_and_others_differ_by_their_share() -> None:
    mine = Multilabel("margin").score(np.float32([[2.0, -2.0, 1.0, -1.0], [2.0, 2.0, 2.0, 2.0]])).answers
    theirs = Multilabel("margin").score(np.float32([[5.0, -0.1, -1.0], [-1.0, -1.0, -1.0]])).answers
    assert mine.differ(np.array([0, 1]), theirs).tolist() == [0.25, 1.0]  # what one does not know does not apply
    assert mine.differ(np.array([1, 0]), mine).tolist() == [0.5, 0.5]
    assert mine.alike == 0.0
    flood = Multilabel("margin").score(logits(1, 400)).answers.said(0)
    assert len(flood.applies) == MOST


def test_a_plug_in_is_given_logits() -> None:
    rows = logits(9, 4)
    name = f"{__name__}:first_logit"
    np.testing.assert_allclose(Multilabel(name).score(rows).utility, rows[:, 0], rtol=1e-3)
    cells = Detection(name, answer=ANSWER).score(logits(9, 7, 4), boxes(9, 7))
    np.testing.assert_allclose(cells.utility, logits(9, 7, 4).max(axis=1)[:, 0])
    assert "stands in" in Regression(name).complaint
    for make in (Multilabel, Regression, Detection):
        with pytest.raises(ConfigError, match="margn"):
            make("margn")


def first_logit(rows: np.ndarray) -> np.ndarray:
    return rows[:, 0]


# --- numbers ---


def test_a_spread_is_of_the_heads_and_of_what_they_state() -> None:
    heads, stated = logits(20, 4, 2), logits(20, 4, 2, seed=1) * 0.3
    scored = Regression("margin", temperature=1.5, members=4, scale=(2.0, 5.0)).score(heads, stated)
    variance = heads.astype(float).var(axis=1) + np.exp(stated.astype(float)).mean(axis=1)
    spread = 1.5 * np.sqrt(variance)
    r = (spread / [2.0, 5.0]).mean(axis=1)
    np.testing.assert_allclose(scored.utility, r / (1.0 + r), rtol=1e-5)
    np.testing.assert_allclose(scored.confidence, 1.0 - np.minimum(r, 1.0), atol=1e-5)
    assert (scored.label == 0).all()
    said = scored.answers.said(4).values
    assert [one.value for one in said] == pytest.approx(heads[4].mean(axis=0).tolist(), rel=1e-5)
    assert [one.spread for one in said] == pytest.approx(spread[4].tolist(), rel=1e-5)
    gauss = np.log(spread / [2.0, 5.0]).mean(axis=1) + 0.5 * math.log(2 * math.pi * math.e)
    np.testing.assert_allclose(scored.energy, gauss, atol=1e-5)
    alone = Regression("bald", members=4, scale=(2.0, 5.0)).score(heads, stated)
    part = (heads.std(axis=1) / [2.0, 5.0]).mean(axis=1)
    np.testing.assert_allclose(alone.utility, part / (1.0 + part), rtol=1e-4)


def test_numbers_differ_by_the_scale() -> None:
    one = Regression("margin", scale=(2.0, 4.0)).score(np.float32([[0.0, 0.0], [0.0, 0.0]]), np.zeros((2, 2), "f4"))
    two = Regression("margin", scale=(2.0, 4.0)).score(np.float32([[1.0, 0.0], [9.0, 2.0]]), np.zeros((2, 2), "f4"))
    assert one.answers.differ(np.array([0, 1]), two.answers).tolist() == [0.25, 0.75]


# --- boxes ---


def detect(scores: list[float], corners: list[list[float]], name: str = "margin") -> Scored:
    """One image with one class."""
    z = np.log(np.float32(scores) / (1.0 - np.float32(scores)))[None, :, None]
    return Detection(name, answer=ANSWER).score(z, np.float32(corners)[None])


APART = [[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.8, 0.8], [0.1, 0.6, 0.3, 0.8]]


def test_what_counts_is_said_and_what_nearly_counts_is_asked_about() -> None:
    sure, near, far = (detect([0.95, at, 0.01], APART) for at in (0.02, 0.38, 0.12))
    assert len(sure.answers.said(0).boxes) == len(near.answers.said(0).boxes) == 1
    assert sure.utility[0] == pytest.approx(0.05 / 0.6, abs=1e-4)
    assert near.utility[0] == pytest.approx((0.38 / 0.4) ** 2, abs=1e-4)
    assert far.utility[0] < near.utility[0]
    open_box = detect([0.41, 0.02, 0.01], APART)
    assert open_box.utility[0] > 0.98
    empty, nearly = detect([0.01, 0.02, 0.01], APART), detect([0.01, 0.39, 0.01], APART)
    assert empty.utility[0] == pytest.approx((0.02 / 0.4) ** 2, abs=1e-4)
    assert nearly.utility[0] > 0.9  # a miss, perhaps: nothing is said, and yet it is asked about
    assert (empty.label[0], nearly.label[0], sure.label[0]) == (1, 1, 0)  # 1: nothing
    assert nearly.confidence[0] < 0.7 < empty.confidence[0]


def test_a_surer_box_of_the_same_class_is_in_the_place_of_others() -> None:
    twice = detect([0.9, 0.6, 0.8], [[0.1, 0.1, 0.5, 0.5], [0.12, 0.1, 0.5, 0.52], [0.6, 0.6, 0.9, 0.9]])
    assert [box.score for box in twice.answers.said(0).boxes] == pytest.approx([0.9, 0.8], abs=1e-4)
    outside = detect([0.9, 0.6, 0.8], [[-0.2, 0.1, 0.5, 1.5], [0.7, 0.7, 0.7, 0.9], [1.2, 0.1, 1.4, 0.3]])
    (only,) = outside.answers.said(0).boxes
    assert (only.left, only.top, only.right, only.bottom) == pytest.approx((0.0, 0.1, 0.5, 1.0), abs=1e-4)


def test_two_classes_of_one_box_are_a_doubt() -> None:
    z = np.float32([[[4.0, -4.0]], [[4.0, 3.5]]])
    scored = Detection("margin", answer=ANSWER).score(z, np.float32([[APART[0]], [APART[0]]]))
    assert scored.utility[0] < 0.1 < 0.9 < scored.utility[1]


def test_two_boxes_of_other_classes_in_one_place_are_a_doubt() -> None:
    z = np.float32([[[4.0, -9.0], [-9.0, 3.5], [-9.0, -9.0]], [[4.0, -9.0], [-9.0, -9.0], [-9.0, 3.5]]])
    places = [APART[0], [0.1, 0.1, 0.3, 0.31], APART[1]]
    scored = Detection("margin", answer=ANSWER).score(z, np.float32([places, places]))
    assert scored.utility[0] > 0.9 > 0.1 > scored.utility[1]
    assert [len(scored.answers.said(row).boxes) for row in (0, 1)] == [2, 2]


def test_boxes_that_cannot_be_used_make_the_sample_invalid() -> None:
    rows, corners = logits(4, 6, 2), boxes(4, 6)
    corners[2] = np.nan
    rows[3], corners[3] = -9.0, np.inf  # of no box that is looked at
    scored = Detection("margin", answer=ANSWER).score(rows, corners)
    assert np.isnan(scored.utility).tolist() == [False, False, True, False]


def test_two_detectors_differ_by_what_they_do_not_share() -> None:
    one, same = detect([0.9, 0.8, 0.01], APART), detect([0.7, 0.9, 0.01], APART)
    none, half = detect([0.01, 0.02, 0.01], APART), detect([0.9, 0.01, 0.7], APART)
    only, near = np.array([0]), detect([0.9, 0.01, 0.01], [[0.1, 0.1, 0.3, 0.35], *APART[1:]])
    assert one.answers.differ(only, same.answers).tolist() == [0.0]
    assert one.answers.differ(only, none.answers).tolist() == [1.0]
    assert none.answers.differ(only, none.answers).tolist() == [0.0]
    assert one.answers.differ(only, half.answers).tolist() == [0.5]
    assert near.answers.differ(only, detect([0.9, 0.01, 0.01], APART).answers)[0] == pytest.approx(0.2, abs=1e-5)


@given(st.lists(st.floats(0.2, 0.99), min_size=1, max_size=6), st.integers(0, 100))
def test_the_expected_f1_is_near_what_calibrated_scores_give(scores: list[float], seed: int) -> None:
    ordered = np.sort(scores)[::-1]
    count = int((ordered >= 0.4).sum())
    expected = expected_f1(ordered, count, float(ordered[0]))
    true = np.random.default_rng(seed).random((4000, len(ordered))) < ordered
    found, all_ = true[:, :count].sum(axis=1), true.sum(axis=1)
    f1 = np.where(count + all_ > 0, 2.0 * found / np.maximum(count + all_, 1), 1.0)
    assert 0.0 <= expected <= 1.0
    assert abs(expected - f1.mean()) < 5.0 * f1.std() / math.sqrt(len(f1)) + 1e-6


# --- frames ---

HERE, THERE = [0.4, 0.4, 0.6, 0.6], [0.1, 0.4, 0.3, 0.6]


def play(frames: Frames, *shown: list[list[float]]) -> list[float]:
    return [
        frames.surprise(np.reshape(one, (-1, 4)).astype(float), np.zeros(len(one), np.intp), np.full(len(one), 0.9))
        for one in shown
    ]


def moving(count: int) -> list[list[list[float]]]:
    return [[[0.2 + 0.004 * i, 0.4, 0.4 + 0.004 * i, 0.6]] for i in range(count)]


def test_a_track_that_breaks_is_a_surprise_and_one_that_leaves_is_none() -> None:
    broken = play(Frames(), *moving(60), [], *moving(1))
    assert broken[60] > 0.8 > 0.5 > broken[61]
    assert max(broken[:60]) == 0.0
    assert broken[60] > 0.8
    way = [[[0.7 + 0.01 * i, 0.4, min(1.0, 0.9 + 0.01 * i), 0.6]] for i in range(22)]
    leaves = play(Frames(), *way, [], [])
    assert max(leaves) < 0.1  # there is something in nearly every frame, until now
    large = play(Frames(), *([[[0.0, 0.0, 0.7, 1.0]]] * 60), [])
    assert large[60] > 0.8  # at an edge, and yet too large to be gone
    there = play(Frames(), *([[HERE]] * 60), [HERE, THERE], [HERE])
    assert 0.3 < there[60] < 0.5  # from nowhere
    assert there[61] == 0.0  # it was no track


def test_a_class_that_changes_is_a_break() -> None:
    frames = Frames()
    play(frames, *([[HERE]] * 60))
    assert frames.surprise(np.array([HERE]), np.array([1]), np.array([0.9])) > 0.8


def test_nothing_is_a_surprise_only_where_there_is_nearly_always_something() -> None:
    rng = np.random.default_rng(0)

    def strangers(count: int, share: float) -> list[list[list[float]]]:
        return [boxes(1, seed=i).tolist() if rng.random() < share else [] for i in range(count)]

    often = play(Frames(), *strangers(300, 0.97), [])
    seldom = play(Frames(), *strangers(300, 0.5), [])
    assert often[-1] > 0.8
    assert seldom[-1] < 0.3


def test_where_frames_do_not_follow_each_other_breaks_say_nothing() -> None:
    rng = np.random.default_rng(1)
    strangers = [(0.1 + 0.6 * rng.random((3, 2))) for _ in range(300)]
    shown = [np.concatenate((low, low + 0.15), axis=1).tolist() for low in strangers]
    assert np.mean(play(Frames(), *shown)[100:]) < 0.25


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 40))
def test_frames_go_on_after_a_restart(counts: list[int], cut: int) -> None:
    shown = [boxes(count, seed=i).tolist() for i, count in enumerate(counts)]
    whole, first = Frames(), Frames()
    expected = play(whole, *shown)
    before = play(first, *shown[:cut])
    second = Frames(saved=first.save())
    assert before + play(second, *shown[cut:]) == expected
    assert second.save() == whole.save()
    assert all(0.0 <= one <= 1.0 for one in expected)


def test_frames_of_another_model_break_for_no_reason() -> None:
    frames = Frames()
    frames.meet("scenes 1")
    play(frames, *([[HERE]] * 60))
    frames.meet("scenes 1")
    assert frames.save()
    frames.meet("scenes 2")
    assert play(frames, []) == [0.0]
    with pytest.raises(ConfigError, match="saved frames"):
        Frames(saved=b"\xc1")


# --- from the file to the selection ---


def stream(count: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, graphs.WIDTH)).astype(np.float32)


def run(model: Model, acquisition: str = "margin") -> tuple[list, Loop]:
    handed: list[Handover] = []
    loop = Loop(
        model,
        NoveltyQuantile(Rules(label_share=0.1), SplitMix64(0)),
        identity=Identity("d", "s", 1),
        acquisition=acquisition,
        cursor=Cursor(),
        flush_s=10.0,
        hand_over=handed.append,
        watch=Watch(model.manifest, false_alarms_per_month=1.0, embedding=False),
    )
    Intake(loop).run((Reading(row, seq) for seq, row in enumerate(stream(500))), threading.Event())
    assert loop.drift().watching
    assert loop.record.counts().signals[0] == 500
    return [sample for item in handed for sample in item.samples], loop


def linear(
    folder: Path,
    *,
    targets: int,
    heads: int = 1,
    spread: bool = False,
    seed: int = 5,
    **changes: object,
) -> Manifest:
    """A linear graph of some targets, each head with weights of its own; log variances of the input's first column."""
    rng = np.random.default_rng(seed)
    shape = [heads, targets] if heads > 1 else [targets]
    weights = {
        "w": rng.normal(size=(graphs.WIDTH, heads * targets)).astype(np.float32),
        "shape": np.array([-1, *shape]),
    }
    nodes: list[graphs.Node] = [("MatMul", ["x", "w"], ["flat"], {}), ("Reshape", ["flat", "shape"], ["logits"], {})]
    outputs: dict[str, list[object]] = {"logits": ["n", *shape]}
    if spread:
        weights["v"] = np.zeros((graphs.WIDTH, heads * targets), np.float32)
        weights["v"][0] = 1.0
        nodes += [("MatMul", ["x", "v"], ["low"], {}), ("Reshape", ["low", "shape"], ["spread"], {})]
        outputs["spread"] = ["n", *shape]
    made = graphs.artifact(folder, nodes, weights, outputs=outputs, classes=targets, **({"members": heads} | changes))
    if not spread:
        return made
    x = made.golden.inputs.array()
    low = np.tile(x[:, :1], heads * targets).reshape(len(x), *shape)
    golden = Golden(
        inputs=made.golden.inputs, logits=made.golden.logits, tolerance=1e-4, outputs={"spread": Tensor.of(low)}
    )
    return graphs.artifact(
        folder, nodes, weights, outputs=outputs, classes=targets, **({"members": heads} | changes | {"golden": golden})
    )


@pytest.mark.parametrize("heads", [1, 3])
def test_a_model_of_several_classes_says_each(tmp_path: Path, heads: int) -> None:
    linear(tmp_path, targets=5, heads=heads, task="multilabel")
    model = Model(tmp_path)
    model.check_golden()
    samples, loop = run(model, "bald" if heads > 1 else "margin")
    assert loop.record.counts().scored == 500
    assert len(samples) > 30
    z = model.predict(stream(500)).reshape(500, heads, 5)
    p = (1.0 / (1.0 + np.exp(-z))).mean(axis=1)
    for sample in samples:
        assert [one.probability for one in sample.prediction.said.applies] == pytest.approx(
            p[sample.id.seq].tolist(), abs=1e-4
        )
        assert sample.prediction.label == p[sample.id.seq].argmax()


@pytest.mark.parametrize(("heads", "spread"), [(1, True), (3, False), (3, True)])
def test_a_regressor_says_each_number_with_its_spread(tmp_path: Path, heads: int, spread: bool) -> None:
    answer = Answer(spread="spread" if spread else "", scale=(3.0, 2.0), units=("mm", "K"))
    linear(tmp_path, targets=2, heads=heads, spread=spread, task="regression", answer=answer)
    model = Model(tmp_path)
    model.check_golden()
    samples, loop = run(model)
    assert loop.record.counts().classes == (500, 0)
    z = model.predict(stream(500)).reshape(500, heads, 2).astype(float)
    variance = z.var(axis=1) + (np.exp(stream(500)[:, :1]) if spread else 0.0)
    for sample in samples:
        seq = sample.id.seq
        assert [one.value for one in sample.prediction.said.values] == pytest.approx(
            z[seq].mean(axis=0).tolist(), abs=1e-4
        )
        assert [one.spread for one in sample.prediction.said.values] == pytest.approx(
            np.sqrt(variance[seq]).tolist(), abs=1e-4
        )
    asked = np.mean([sample.selection.utility for sample in samples])
    r = (np.sqrt(variance) / [3.0, 2.0]).mean(axis=1)
    assert asked > (r / (1.0 + r)).mean()


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_two_models_of_a_task_are_compared_by_their_answers(tmp_path: Path, task: str) -> None:
    made = {"task": task, "answer": Answer(scale=(3.0, 3.0))}
    linear(tmp_path / "1", targets=2, heads=3, **made)
    linear(tmp_path / "2", targets=2, heads=3, version=2, **made)
    handed: list[Handover] = []
    loop = Loop(
        Model(tmp_path / "1"),
        NoveltyQuantile(Rules(label_share=0.05), SplitMix64(0)),
        identity=Identity("d", "s", 1),
        acquisition="margin",
        cursor=Cursor(),
        flush_s=10.0,
        hand_over=handed.append,
    )
    other = Model(tmp_path / "2")
    readings = [Reading(row, seq) for seq, row in enumerate(stream(400))]
    loop.shadow(other, Share(1.0, 0.1), SplitMix64(0))
    Intake(loop).run(iter([]), threading.Event())
    Intake(loop).run(iter(readings), threading.Event())
    seen = loop.extras.shadowed()
    assert (seen.samples, seen.invalid, seen.agreed) == (400, 0, 400)  # the same model, under another number
    linear(tmp_path / "3", targets=2, heads=3, version=3, seed=6, **made)
    loop.shadow(Model(tmp_path / "3"), Share(1.0, 0.1), SplitMix64(0))
    Intake(loop).run(iter([]), threading.Event())
    Intake(loop).run(iter(readings), threading.Event())
    assert loop.extras.shadowed().version == 3
    assert 0 < loop.extras.shadowed().agreed < 300
    assert any(s.selection.reason == "disagreement" for item in handed for s in item.samples)


def test_a_regressor_that_does_not_say_how_sure_it_is_is_refused(tmp_path: Path) -> None:
    linear(tmp_path, targets=2, task="regression")
    with pytest.raises(IncompatibleError, match=r"named in answer\.spread, or several heads"):
        Model(tmp_path)
    linear(tmp_path, targets=2, spread=True, task="regression", answer=Answer(spread="spread", scale=(1.0,)))
    with pytest.raises(IncompatibleError, match=r"answer\.scale has 1 entries, expected 2 or none"):
        Model(tmp_path)
