"""What happens to every sample?

    reading -> row of the ring -> model -> (block full, or its time is up) -> scores -> selector -> writer

Nothing here waits for disk or network. A new model is swapped in between two blocks: it was loaded and run beforehand,
so the loop only changes a reference, and no sample is missed.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from edge_agent.block import Block
from edge_agent.choose import strategy
from edge_agent.choose.acquisition import Scored, top
from edge_agent.choose.confidence import Confidence, Mean
from edge_agent.choose.disagreement import Share
from edge_agent.choose.drift import Alarm, Watch
from edge_agent.choose.rules import Rules
from edge_agent.choose.selector import Chosen, Selector
from edge_agent.choose.tally import Tally
from edge_agent.choose.targets import EPIG, Targets
from edge_agent.choose.tasks.frames import Frames
from edge_agent.choose.tasks.scoring import Scoring, answer_of, scoring
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.outputs import said_max_bytes
from edge_agent.contract.types import Prediction, Reading, Sample, SampleId, Selection
from edge_agent.contract.wire import DriftState, RequestState, StreamCounts
from edge_agent.extras import Extras
from edge_agent.latency import KEPT, percentile_ms
from edge_agent.model import Model, misfit
from edge_agent.pulse import Pulse
from edge_agent.send.writer import Handover
from edge_agent.shadow import Shadow, Shadowed

log = logging.getLogger(__name__)

HEADER_BYTES = 500  # of a sample's header and topic: what sending costs beside the data
KEEP_S = 300.0  # longest time until the state is kept though nothing was selected: more is repeated after a power cut,
# less wears a flash card
PREDICTION = np.dtype([("seq", "<u8"), ("version", "<u4"), ("label", "<u2"), ("confidence", "<f4")])
INVALID_LABEL = 65535
CURSOR, SELECTOR, DRIFT, TARGETS, FRAMES = "cursor", "selector", "drift", "targets", "frames"  # keys of the state


class Cursor(msgspec.Struct, frozen=True):
    """Where the source goes on after a restart."""

    seq: int = 0
    mark: str = ""


class Identity(NamedTuple):
    """What the ids of this run's samples begin with."""

    device: str
    stream: str
    boot: int


class Vitals(NamedTuple):
    """How the running model does since it took over. invalid: sound samples for which it gave no finite logits."""

    version: int
    samples: int
    invalid: int
    latency_p50_ms: float
    latency_p95_ms: float
    confidence: Mean
    expected: float  # mean confidence by its manifest


def sample_bytes(model: Model) -> int:
    """What sending a sample takes at most."""
    return int(np.prod(model.shape)) * model.dtype.itemsize + HEADER_BYTES + said_max_bytes(model.manifest)


class Loop:
    """Runs in one thread; `swap`, `change`, `vitals` and `counts` may be called from others."""

    def __init__(
        self,
        model: Model,
        selector: Selector,
        *,
        identity: Identity,
        acquisition: str,
        cursor: Cursor,
        flush_s: float,
        hand_over: Callable[[Handover], None],
        watch: Watch | None = None,
        on_alarm: Callable[[Alarm, float], None] = lambda _alarm, _labels: None,
        log_predictions: bool = False,
        extras: Extras | None = None,
        targets: Targets | None = None,
        frames: Frames | None = None,
        pulse: Pulse | None = None,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """ConfigError when the acquisition function cannot be found or a budget can never pay for a sample.

        `watch` looks out for drift; `on_alarm` is told of it, with the labels it freed, and must not wait. `extras`
        says what is sent beside the selector's choice; `targets` is what EPIG goes on with, `frames` what a detector;
        `pulse` beats with it.
        """
        self.cursor = cursor
        self.pulse = pulse or Pulse()
        self._identity = identity
        self._acquisition = acquisition
        self._selector = selector
        self._flush_s = flush_s
        self._hand_over = hand_over
        self._watch = watch
        self._on_alarm = on_alarm
        self._log_predictions = log_predictions
        self.extras = extras or Extras()
        self._targets, self._frames = targets or Targets(), frames or Frames()
        self._wall_ms = wall_ms
        self._lock = threading.Lock()  # of the counts; held once a block
        self._next: Model | None = None
        self._orders: tuple[Rules, str, str] | None = None
        self._tally = Tally(stream=identity.stream, version=model.version, classes=len(model.manifest.outcomes))
        self._complaints: set[str] = set()
        self._block: list[Reading] = []
        self._began_s: list[float] = []
        self._took_s: list[float] = []
        self._earned_until_s = self._kept_s = time.monotonic()
        self._take_over(model)
        self._steps = model.steps
        self._company: tuple[Shadow | None, Model] = (None, model)
        self._accompany()
        selector.purse.check(self._sample_bytes)

    # --- the stream ---

    def run(self, readings: Iterator[Reading | None], stopping: threading.Event) -> None:
        """Take readings until they end or `stopping` is set; what is in hand is finished first, and the state kept."""
        for _ in self.steps(readings, stopping):
            pass

    def steps(
        self, readings: Iterator[Reading | None], stopping: threading.Event, *, answering: bool = False
    ) -> Iterator[tuple[Reading | None, Prediction | None]]:
        """The same; yields nothing but, `answering`, each reading with what the model says of it, as soon as it does.

        None: it was not for the model. For a model that infers one by one (`together` 1), others pay twice.
        """
        clock, block, began_s, took_s = time.perf_counter, self._block, self._began_s, self._took_s
        model, steps = self._model, self._steps
        shape, dtype, last = model.shape, model.dtype, model.rows - 1
        due_s = 0.0
        for reading in readings:
            if reading is None:
                self._idle(stopping)
                if answering:
                    yield None, None
            elif reading.data.shape != shape or reading.data.dtype != dtype:
                self._refuse(reading)
                if answering:
                    yield reading, None
            else:  # each sample passes here: every call counts
                row = len(block)
                place, infer = steps[row]
                now = clock()
                place[...] = reading.data
                block.append(reading)
                began_s.append(now)
                if row == 0:
                    due_s = now + self._flush_s
                if infer is not None:
                    infer()
                    ended = clock()
                    took_s.append(ended - now)
                    now = ended
                if answering:
                    yield reading, self._say(row, inferred=infer is not None)
                if row < last and now <= due_s:
                    continue
                self._finish()
            if not block:
                if stopping.is_set():
                    break
                if steps is not self._steps:
                    model, steps = self._model, self._steps
                    shape, dtype, last = model.shape, model.dtype, model.rows - 1
        self._finish()
        self._hand_over(Handover([], self._state()))

    def _say(self, row: int, *, inferred: bool) -> Prediction:
        model = self._model
        if not inferred:
            model.infer(row)
        if self._classifies:
            label, confidence = top(model.logits[row], inverse_temperature=self._inverse_temperature)
            return Prediction(label, confidence if model.is_sound(row) else math.nan)  # the graph may have masked it
        further = None if model.further is None else model.further[row]
        said = answer_of(model.manifest, model.logits[row], further)
        return said if model.is_sound(row) else said._replace(confidence=math.nan)

    def _idle(self, stopping: threading.Event) -> None:
        self.pulse.beat()  # a block may be let wait for longer than a watchdog does
        waited = self._block and time.perf_counter() - self._began_s[0] > self._flush_s
        if waited or not self._block or stopping.is_set():
            self._finish()

    def _finish(self) -> None:
        """Score, choose and hand over what is in the block; then let a new model take over."""
        self.pulse.beat()
        if count := len(self._block):
            if (beside := self._company[0]) is not None:
                beside.deduct(self._took_s)
            self._infer_rest(count)
            scored = self._score()
            self._earn()
            chosen = self._selector.offer(scored, self._model.embedding, count=count, sample_bytes=self._sample_bytes)
            chosen = self.extras.add(chosen, self._whole(scored))
            with self._lock:
                self._runs += count
                self._latency_s.extend(self._took_s)
                self._tally.count(scored, chosen, count=count, through_seq=self._block[-1].seq)
                self._invalid += int(np.count_nonzero(np.isnan(scored.confidence[:count])))
                self._confidence.add(scored.confidence[:count][np.isfinite(scored.utility[:count])])
            last = self._block[-1]
            self.cursor = Cursor(last.seq + 1, last.mark)
            self._look(scored)
            self._give(scored, chosen)
            self._block.clear()
            self._began_s.clear()
            self._took_s.clear()
        self._obey()
        self._settle()
        if (model := self._next) is not None:
            self.extras.take_over(model)
            self._take_over(model)
            with self._lock:
                self._tally.model_changed(version=model.version, classes=len(model.manifest.outcomes))
            self._watch_anew()
        self._accompany()

    def _accompany(self) -> None:
        """A shadow model sees its samples within the steps of the running one; without it they are what they were."""
        model, beside = self._model, self.extras.beside
        if (beside, model) != self._company:
            self._company = (beside, model)
            self._steps = beside.between(model.steps, self._block, self._took_s) if beside else model.steps

    def _infer_rest(self, count: int) -> None:
        """On those that were waiting for company."""
        model = self._model
        self._took_s[:] = [seconds / model.together for seconds in self._took_s]
        for row in range(count - count % model.together, count):
            began = time.perf_counter()
            model.infer(row)
            self._took_s.append(time.perf_counter() - began)

    def _look(self, scored: Scored) -> None:
        watch, model = self._watch, self._model
        if watch is None:
            return
        with self._lock:
            alarm = watch.look(scored, model.logits, model.embedding, count=len(self._block))
            self._tally.add_signals(watch.latest)
        if alarm is not None:
            self._on_alarm(alarm, self._selector.grant())

    def _watch_anew(self) -> None:
        if self._watch is not None:
            with self._lock:
                self._watch.model_changed(self._model.manifest, embedding=self._model.embedding is not None)

    def _score(self) -> Scored:
        model, count = self._model, len(self._block)
        try:
            scored = self._scorer.score(model.logits, model.further, count=count)
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; its samples count as invalid
            self._complain(f"acquisition {self._acquisition}: {type(error).__name__}: {error}")
            nothing = np.zeros(model.rows, np.float32)
            return Scored(nothing * np.float32(np.nan), nothing.astype(np.intp), nothing, energy=nothing)
        broken = model.broken(count)
        if broken is not None:
            scored.utility[:count][broken] = np.nan
            scored.confidence[:count][broken] = 0.0  # not NaN: that would be held against the model
        return scored

    def _give(self, scored: Scored, chosen: list[Chosen]) -> None:
        samples = [self._sample(scored, row, selection) for row, selection in chosen]
        records = self._records(scored) if self._log_predictions else b""
        if samples or time.monotonic() - self._kept_s > KEEP_S:
            self._hand_over(Handover(samples, self._state(), records))
        elif records:
            self._hand_over(Handover([], {}, records))

    def _state(self) -> dict[str, bytes]:
        self._kept_s = time.monotonic()
        state = {CURSOR: msgspec.json.encode(self.cursor), SELECTOR: self._selector.save(), **self.extras.save()}
        if self._watch is not None:
            state[DRIFT] = self._watch.save()
        if targets := self._targets.save():
            state[TARGETS] = targets
        if frames := self._frames.save():
            state[FRAMES] = frames
        return state

    def _settle(self) -> None:
        """What came for the extras meanwhile: orders, and samples out of the recent ring."""
        samples, news = self.extras.settle(self._model, now_ms=self._wall_ms(), pay=self._pay)
        if news:
            with self._lock:
                self._tally.recalled += len(samples)
            self._hand_over(Handover(samples, self._state()))

    def _pay(self) -> bool:
        return self._selector.purse.take_beside(self._sample_bytes)

    def _payable(self) -> bool:
        return self._selector.purse.allows_beside(self._sample_bytes)

    def _whole(self, scored: Scored) -> Block:
        return Block(self._block, scored, self._model, self._id, self._wall_ms(), self._pay, self._payable)

    def _id(self, reading: Reading) -> SampleId:
        return SampleId(*self._identity, reading.seq)

    def _sample(self, scored: Scored, row: int, selection: Selection) -> Sample:
        reading = self._block[row]
        age_ms = int(1000 * (time.perf_counter() - self._began_s[row]))
        return Sample(
            id=self._id(reading),
            ref=reading.ref,
            captured_at_ms=self._wall_ms() - age_ms,
            data=reading.data,
            prediction=scored.prediction(row),
            selection=msgspec.structs.replace(selection, acquisition=self._acquisition),
            model_version=self._model.version,
        )

    def _records(self, scored: Scored) -> bytes:
        count = len(self._block)
        records = np.empty(count, PREDICTION)
        records["seq"] = [reading.seq for reading in self._block]
        records["version"] = self._model.version
        records["label"] = np.where(np.isnan(scored.utility[:count]), INVALID_LABEL, scored.label[:count])
        records["confidence"] = scored.confidence[:count]
        return records.tobytes()

    def _refuse(self, reading: Reading) -> None:
        text = misfit(self._model.manifest, reading.data)
        first = self._tally.read == 0 and not self._block and self.cursor == Cursor()
        if first and reading.data.size:
            raise ConfigError(f"[source] {text}: choose a source and a model that fit each other")
        if reading.data.size:  # an empty one was complained of by the source
            self._complain(text)
        with self._lock:
            self._tally.skip()

    def _complain(self, text: str) -> None:
        if text not in self._complaints and len(self._complaints) < 100:
            self._complaints.add(text)
            log.warning("%s: such samples are counted as invalid and skipped", text)

    def _earn(self) -> None:
        now = time.monotonic()
        self._selector.purse.pass_time(now - self._earned_until_s)
        if self._watch is not None:
            self._watch.pass_time(now - self._earned_until_s)
        self._earned_until_s = now

    # --- model and orders ---

    def _take_over(self, model: Model) -> None:
        with self._lock:
            self._model, self._next = model, None
            self._sample_bytes = sample_bytes(model)
            self._inverse_temperature = 1.0 / model.manifest.temperature
            self._classifies = model.manifest.task == "classification"
            self._scorer = self._make_scorer(model)
            self._runs = 0
            self._invalid = 0
            self._latency_s: deque[float] = deque(maxlen=KEPT)
            self._confidence = Confidence()
        self._meet()

    def _meet(self) -> None:
        about = self._model.manifest
        self._selector.meet(model=f"{about.name} {about.version}", acquisition=self._acquisition)

    def _make_scorer(self, model: Model) -> Scoring:
        about = model.manifest
        name = f"{about.name} {about.version}"
        self._targets.meet(name if self._acquisition == EPIG else "")
        self._frames.meet(name if about.task == "detection" else "")
        scorer = scoring(about, self._acquisition, targets=self._targets, frames=self._frames)
        if scorer.complaint:
            log.warning("model version %d: %s", about.version, scorer.complaint)
        return scorer

    def _obey(self) -> None:
        with self._lock:
            orders, self._orders = self._orders, None
        if orders is None:
            return
        rules, acquisition, chosen_by = orders
        self._selector.change(rules)
        if chosen_by and strategy.STRATEGIES[chosen_by] is not type(self._selector):
            # Another one earns on with the same tokens and draws on from the same generator: both are in what is saved.
            self._selector = strategy.make(chosen_by, rules, np.random.default_rng(), saved=self._selector.save())
        if acquisition != self._acquisition:
            self._acquisition = acquisition
            self._scorer = self._make_scorer(self._model)
        self._meet()

    def swap(self, model: Model) -> None:
        """Let a loaded model take over at the end of the block."""
        self._next = model

    def change(self, rules: Rules, acquisition: str, chosen_by: str = "") -> None:
        """Let other budgets, another acquisition function or strategy be in force from the end of the block.

        `chosen_by`: a name that strategy.py knows; "": as it is.
        """
        with self._lock:
            self._orders = (rules, acquisition, chosen_by)

    def shadow(self, model: Model, share: Share, rng: np.random.Generator) -> None:
        """Let a second model see a share of the samples, and send those on which it says something else.

        Every sample that it sees costs a run of it, in the loop. IncompatibleError when its inputs are others.
        """
        self.extras.shadow(model, share, self._model, rng)

    def end_shadow(self) -> None:
        """Let no model run beside any more."""
        self.extras.end_shadow()

    def shadowed(self) -> Shadowed | None:
        """How the shadow model did so far; None when there is none, or it has not begun."""
        return self.extras.shadowed()

    # --- looking ---

    @property
    def model(self) -> Model:
        """The model that executes."""
        return self._model

    @property
    def coming_version(self) -> int:
        """The version that executes, or is about to."""
        coming = self._next
        return (coming or self._model).version

    @property
    def selector(self) -> Selector:
        """For its tokens."""
        return self._selector

    def counts(self) -> StreamCounts:
        """What became of every sample since the start."""
        return self.said()[0]

    def said(self) -> tuple[StreamCounts, tuple[StreamCounts, ...]]:
        """The same with the cuts, of one moment."""
        with self._lock:
            return self._tally.counts(), self._tally.cuts()

    def drift(self) -> DriftState | None:
        """Whether the stream is as it was; None when nobody looks."""
        if self._watch is None:
            return None
        with self._lock:
            return self._watch.state

    def requests(self) -> tuple[RequestState, ...]:
        """How the open requests do."""
        return self.extras.states(self._model, now_ms=self._wall_ms())

    def vitals(self) -> Vitals:
        """How the running model does."""
        with self._lock:
            runs, invalid, about = self._runs, self._invalid, self._model.manifest
            seconds, confidence = list(self._latency_s), self._confidence.mean()
        p50_ms, p95_ms = (percentile_ms(seconds, share) for share in (0.5, 0.95))
        expected = about.reference.confidence_mean
        return Vitals(about.version, runs, invalid, p50_ms, p95_ms, confidence, expected)
