from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quadrants import ARTIFACT, artifact, images

from edge_agent.choose import strategy
from edge_agent.choose.drift import Alarm, Watch
from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.types import Reading
from edge_agent.intake import Intake
from edge_agent.loop import CURSOR, DRIFT, SELECTOR, Cursor, Loop
from edge_agent.model import Model
from edge_agent.outgoing import INVALID_LABEL, PREDICTION, Identity
from edge_agent.pulse import Pulse
from edge_agent.send.writer import Handover

COUNT = 2000


class Outcome:
    """What the loop handed over."""

    def __init__(self) -> None:
        self.items: list[Handover] = []

    @property
    def samples(self) -> list:
        return [sample for item in self.items for sample in item.samples]

    def predictions(self) -> np.ndarray:
        return np.frombuffer(b"".join(item.predictions for item in self.items), PREDICTION)

    def last_state(self) -> dict[str, bytes]:
        return {key: value for item in self.items for key, value in item.state.items()}


def make(outcome: Outcome, *, state: dict[str, bytes] | None = None, model: Model | None = None, **changes) -> Loop:
    state = state or {}
    cursor = msgspec.json.decode(state[CURSOR], type=Cursor) if state else Cursor()
    selector = NoveltyQuantile(Rules(label_share=0.1), SplitMix64(1), saved=state.get(SELECTOR, b""))
    return Loop(
        model or Model(ARTIFACT),
        selector,
        **{
            "identity": Identity("cam-1", "main", 1),
            "acquisition": "margin",
            "cursor": cursor,
            "flush_s": 10.0,
            "hand_over": outcome.items.append,
            "log_predictions": True,
            "wall_ms": lambda: 1_000_000,
            **changes,
        },
    )


def readings(x: np.ndarray, *, start: int = 0, end: int | None = None) -> Iterator[Reading | None]:
    for seq in range(start, len(x) if end is None else end):
        yield Reading(x[seq], seq, f"file:{seq}")


X, Y = images(COUNT)


def test_every_sample_is_predicted_once_and_some_are_selected() -> None:
    outcome = Outcome()
    loop = make(outcome)
    Intake(loop).run(readings(X), threading.Event())
    predictions, counts = outcome.predictions(), loop.record.counts()
    assert predictions["seq"].tolist() == list(range(COUNT))
    expected = Model(ARTIFACT).predict(X).argmax(axis=1)
    assert (predictions["label"] == expected).all()
    assert counts.read == counts.scored == COUNT
    assert len(outcome.samples) == sum(counts.selected.values())
    assert 0.08 * COUNT < len(outcome.samples) < 0.12 * COUNT + 20
    one = outcome.samples[3]
    assert str(one.id) == f"cam-1.main.1.{one.id.seq}"
    assert one.ref == f"file:{one.id.seq}"
    assert (one.data == X[one.id.seq]).all()


def test_a_loop_that_was_killed_goes_on_as_if_nothing_had_happened() -> None:
    whole, first, second = Outcome(), Outcome(), Outcome()
    Intake(make(whole)).run(readings(X), threading.Event())
    Intake(make(first)).run(readings(X, end=1003), threading.Event())
    state = first.last_state()  # what the last commit kept; what came after it is lost
    again = make(second, state=state)
    Intake(again).run(readings(X, start=again.cursor.seq), threading.Event())
    assert again.cursor.seq > 900
    assert [s.id.seq for s in first.samples + second.samples] == [s.id.seq for s in whole.samples]
    assert [s.selection for s in first.samples + second.samples] == [s.selection for s in whole.samples]


def test_a_block_that_waits_long_for_its_samples_is_no_standstill() -> None:
    now_s = 0.0
    pulse, late_s = Pulse(60.0, monotonic=lambda: now_s), []

    def slow() -> Iterator[Reading | None]:
        nonlocal now_s
        yield Reading(X[0], 0)
        for _ in range(5):
            now_s += 30.0
            late_s.append(pulse.overdue_s())
            yield None

    Intake(make(Outcome(), flush_s=1e6, pulse=pulse)).run(slow(), threading.Event())
    assert late_s == [-30.0] * 5


@functools.cache
def one_by_one() -> Outcome:
    outcome = Outcome()
    Intake(make(outcome, model=Model(ARTIFACT, together=1))).run(readings(X), threading.Event())
    return outcome


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=5))
def test_the_same_decisions_for_any_blocks_and_in_any_company(sizes: list[int]) -> None:
    """The loop flushes after so many samples, in turn."""
    alone, company = one_by_one(), Outcome()
    model = Model(ARTIFACT, clock=lambda: 0.0)
    assert model.together == 8
    loop, turn, at = make(company, model=model), 0, 0
    while at < COUNT:
        end = min(COUNT, at + sizes[turn % len(sizes)])
        Intake(loop).run(readings(X, start=at, end=end), threading.Event())
        at, turn = end, turn + 1
    assert company.predictions().tolist() == alone.predictions().tolist()
    assert [s.selection for s in company.samples] == [s.selection for s in alone.samples]
    assert loop.record.vitals().samples == COUNT
    assert loop.record.vitals().latency_p50_ms > 0.0


def test_a_swap_misses_no_sample(tmp_path: Path) -> None:
    artifact(tmp_path, version=2)
    outcome = Outcome()
    loop = make(outcome)
    newer = Model(tmp_path)

    def swapping() -> Iterator[Reading | None]:
        for reading in readings(X):
            if reading and reading.seq == 700:
                loop.swap(newer)
                assert loop.coming.version == 2
                assert loop.record.vitals().version == 1
            yield reading

    Intake(loop).run(swapping(), threading.Event())
    versions = outcome.predictions()["version"]
    assert outcome.predictions()["seq"].tolist() == list(range(COUNT))
    assert versions[:700].tolist() == [1] * 700
    assert set(versions[700 + newer.rows :].tolist()) == {2}  # at the end of the block
    assert loop.record.vitals().samples == (versions == 2).sum()
    assert {s.model_version for s in outcome.samples} == {1, 2}
    counts, (cut,) = loop.record.said()  # what was counted of each model can be told apart, to the sample
    assert (cut.model_version, cut.through_seq, cut.read) == (1, (versions == 1).sum() - 1, (versions == 1).sum())
    assert (counts.stream, counts.model_version, counts.through_seq, counts.read) == ("main", 2, COUNT - 1, COUNT)
    assert sum(cut.selected.values()) == sum(s.model_version == 1 for s in outcome.samples)


def test_samples_that_do_not_fit_are_counted_and_skipped() -> None:
    outcome = Outcome()
    loop = make(outcome)
    odd = [
        Reading(X[0], 0),
        Reading(np.zeros((3, 3), np.uint8), 1),
        Reading(np.empty(0, np.uint8), 2),
        Reading(X[1], 3),
    ]
    Intake(loop).run(iter(odd), threading.Event())
    counts = loop.record.counts()
    assert (counts.read, counts.scored, counts.invalid) == (4, 2, 2)


def test_a_source_that_never_fits_is_a_mistake_of_the_configuration() -> None:
    wrong = iter([Reading(np.zeros((28, 28), np.float32), 0)])
    with pytest.raises(ConfigError, match=r"\(28, 28\) float32.*\(8, 8\) uint8"):
        Intake(make(Outcome())).run(wrong, threading.Event())


def test_a_misfit_after_a_restart_is_counted_and_skipped() -> None:
    wrong = iter([Reading(np.zeros((3, 3), np.uint8), 7)])
    loop = make(Outcome(), cursor=Cursor(7, "mark"))
    Intake(loop).run(wrong, threading.Event())
    assert loop.record.counts().invalid == 1


def test_a_stop_keeps_the_state_though_nothing_was_selected() -> None:
    outcome = Outcome()
    loop = make(outcome)
    loop.change(Rules(label_share=0.0), "margin")
    Intake(loop).run(iter([None]), threading.Event())
    Intake(loop).run(readings(X, end=77), threading.Event())
    assert outcome.samples == []
    assert msgspec.json.decode(outcome.last_state()[CURSOR], type=Cursor).seq == 77


def test_a_slow_stream_does_not_wait_for_its_block() -> None:
    outcome = Outcome()
    loop = make(outcome, flush_s=0.0)

    def slow() -> Iterator[Reading | None]:
        for reading in readings(X, end=50):
            yield reading
            yield None
            assert loop.record.counts().read == reading.seq + 1

    Intake(loop).run(slow(), threading.Event())


def test_a_stop_finishes_what_is_in_hand() -> None:
    outcome, stopping = Outcome(), threading.Event()
    loop = make(outcome)

    def endless() -> Iterator[Reading | None]:
        yield from readings(X, end=40)
        stopping.set()
        while True:
            yield None

    Intake(loop).run(endless(), stopping)
    assert loop.record.counts().read == 40


def broken(logits: np.ndarray) -> np.ndarray:
    raise ZeroDivisionError("a plug-in's own fault")


def test_a_plug_in_that_fails_costs_its_samples_not_the_stream() -> None:
    outcome = Outcome()
    loop = make(outcome, acquisition=f"{__name__}:broken")
    Intake(loop).run(readings(X, end=64), threading.Event())
    assert loop.record.counts().invalid == 64
    assert loop.record.vitals().invalid == 0  # not the model's fault
    assert not outcome.samples
    assert set(outcome.predictions()["label"].tolist()) == {INVALID_LABEL}


def unsure(logits: np.ndarray) -> np.ndarray:
    return np.where(logits.argmax(axis=1) == 0, np.nan, logits.max(axis=1))


def test_a_plug_in_that_gives_no_numbers_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    outcome = Outcome()
    loop = make(outcome, acquisition=f"{__name__}:unsure")
    Intake(loop).run(readings(X, end=64), threading.Event())
    assert 0 < loop.record.counts().invalid < 64
    told = [record.getMessage() for record in caplog.records if "NaN or infinity" in record.getMessage()]
    assert len(told) == 1
    assert f"acquisition {__name__}:unsure" in told[0]


def test_orders_take_effect_at_the_end_of_a_block() -> None:
    outcome = Outcome()
    loop = make(outcome)
    loop.change(Rules(label_share=0.0, depth_labels=1.0), "entropy")
    Intake(loop).run(readings(X), threading.Event())
    assert len(outcome.samples) <= 20 + 1


def test_a_change_raises_an_alarm_and_frees_labels() -> None:
    x, _ = images(6000)
    x[4000:] = 255 - x[4000:]
    told: list[tuple[Alarm, float]] = []
    outcome, model = Outcome(), Model(ARTIFACT)
    loop = make(
        outcome,
        model=model,
        watch=Watch(model.manifest, false_alarms_per_month=1.0, embedding=True),
        on_alarm=lambda alarm, labels: told.append((alarm, labels)),
    )
    loop._selector.change(Rules(label_share=0.1, reserve_labels=20.0))
    Intake(loop).run(readings(x), threading.Event())
    assert [alarm.kind for alarm, _ in told] == ["differs", "moved"]  # its reference is of other images than these
    assert all(labels > 0 for _, labels in told)
    drift = np.array([sample.id.seq for sample in outcome.samples if sample.selection.reason == "drift"])
    assert drift.min() >= told[0][0].since
    assert (drift >= 4000).any()
    assert DRIFT in outcome.last_state()
    state = loop.drift()
    assert state is not None
    assert state.epoch == 1


def test_another_strategy_goes_on_with_the_same_tokens_and_every_sample_says_what_chose_it() -> None:
    outcome = Outcome()
    loop = make(outcome)
    rules = loop.selector.rules
    loop.selector.purse.labels.tokens = 3.0
    loop.change(rules, "entropy", "vessal")
    Intake(loop).run(readings(X), threading.Event())
    said = [(sample.selection.strategy, sample.selection.acquisition) for sample in outcome.samples]
    assert set(said[: said.index(("vessal-1", "entropy"))]) <= {("novelty-quantile-4", "margin")}
    assert set(said[said.index(("vessal-1", "entropy")) :]) == {("vessal-1", "entropy")}
    assert len(said) <= 3 + rules.label_share * COUNT  # not with a bucket filled afresh
    state = outcome.last_state()[SELECTOR]
    assert strategy.make("vessal", rules, SplitMix64(), saved=state).save() == state
