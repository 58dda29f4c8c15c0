"""What happens to every block of samples?

    batch -> scores -> selector -> writer

Nothing here waits for disk or network. A new model is swapped in between two blocks: it was loaded and run beforehand,
so the loop only changes a reference, and no sample is missed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from edge_agent.batch import Batch
from edge_agent.block import Block
from edge_agent.choose import strategy
from edge_agent.choose.acquisition import Scored
from edge_agent.choose.drift import Alarm, Watch
from edge_agent.choose.rules import Rules
from edge_agent.choose.selector import Chosen, Selector
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.choose.targets import Targets
from edge_agent.choose.tasks.frames import Frames
from edge_agent.contract.errors import ConfigError
from edge_agent.contract.types import Reading
from edge_agent.contract.wire import DriftState, RequestState
from edge_agent.extras import Extras
from edge_agent.lookout import Lookout
from edge_agent.model import Model, misfit
from edge_agent.outgoing import Identity, records_of, sample_bytes, samples_of
from edge_agent.pulse import Pulse
from edge_agent.record import Record
from edge_agent.scores import Scores
from edge_agent.send.writer import Handover

if TYPE_CHECKING:
    from edge_agent.choose.disagreement import Share

log = logging.getLogger(__name__)

KEEP_S = 300.0  # longest time until the state is kept though nothing was selected: more is repeated after a power cut,
# less wears a flash card
CURSOR, SELECTOR, DRIFT, TARGETS, FRAMES = "cursor", "selector", "drift", "targets", "frames"  # keys of the state


class Cursor(msgspec.Struct, frozen=True):
    """Where the source goes on after a restart."""

    seq: int = 0
    mark: str = ""


class Loop:
    """Runs in one thread; `swap`, `change`, `shadow` and what is under "looking" may be called from others.

    It is given batches, which intake.py or answers.py fill, one after the other.
    """

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
        answered: threading.Event | None = None,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """ConfigError when the acquisition function cannot be found or a budget can never pay for a sample.

        `watch` looks out for drift; `on_alarm` is told of it, with the labels it freed, and must not wait. `extras`
        says what is sent beside the selector's choice; `targets` is what EPIG goes on with, `frames` what a detector;
        `pulse` beats with it; `answered` is set when the first block is finished.
        """
        self.cursor = cursor
        self.pulse = pulse or Pulse()
        self._answered = answered or threading.Event()
        self._identity = identity
        self._selector = selector
        self.flush_s = flush_s
        self._hand_over = hand_over
        self._lookout = Lookout(watch, on_alarm=lambda alarm: on_alarm(alarm, self._selector.grant()))
        self._log_predictions = log_predictions
        self.extras = extras or Extras()
        self._scores = Scores(model.manifest, acquisition, targets=targets or Targets(), frames=frames or Frames())
        self._wall_ms = wall_ms
        self._lock = threading.Lock()  # of what others order; held once a block
        self._model = model
        self._next: Model | None = None
        self._orders: tuple[Rules, str, str] | None = None
        self.record = Record(model.manifest, stream=identity.stream)
        self._earned_until_s = self._kept_s = time.monotonic()
        self._meet()
        selector.purse.check(self._sample_bytes)

    # --- a block ---

    def refuse(self, reading: Reading, *, first: bool) -> None:
        """Count a sample that does not fit the model. ConfigError of the very first: `first` says that none waits."""
        text = misfit(self._model.manifest, reading.data)
        if first and reading.data.size and self.record.read == 0 and self.cursor == Cursor():
            raise ConfigError(f"[source] {text}: choose a source and a model that fit each other")
        if reading.data.size:  # an empty one was complained of by the source
            self._scores.complain(text)
        self.record.skip()

    def finish(self, batch: Batch) -> None:
        """Score, choose and hand over what is in it, which empties it; then obey what was ordered meanwhile."""
        self.pulse.beat()
        if batch.readings:
            self._decide(batch)
            batch.clear()
            if not self._answered.is_set():
                self._answered.set()
        self._obey()
        self._settle()

    def _decide(self, batch: Batch) -> None:
        model, count = batch.model, len(batch.readings)
        scored = self._scores.of(batch)
        self._earn()
        chosen = self._selector.offer(scored, model.embedding, count=count, sample_bytes=self._sample_bytes)
        now_ms = self._wall_ms()
        chosen = self.extras.add(
            chosen, Block(batch.readings, scored, model, self._identity.of, now_ms, self._pay, self._payable)
        )
        self.record.add(batch, scored, chosen)
        last = batch.readings[-1]
        self.cursor = Cursor(last.seq + 1, last.mark)
        self.record.add_signals(self._lookout.look(batch, scored))
        self._give(batch, scored, chosen)

    def _give(self, batch: Batch, scored: Scored, chosen: list[Chosen]) -> None:
        samples = samples_of(
            batch,
            scored,
            chosen,
            identity=self._identity,
            acquisition=self._scores.acquisition,
            now_ms=self._wall_ms(),
        )
        records = records_of(batch, scored) if self._log_predictions else b""
        if samples or time.monotonic() - self._kept_s > KEEP_S:
            self._hand_over(Handover(samples, self._state(), records))
        elif records:
            self._hand_over(Handover([], {}, records))

    def keep(self) -> None:
        """Let the state be kept."""
        self._hand_over(Handover([], self._state()))

    def _state(self) -> dict[str, bytes]:
        self._kept_s = time.monotonic()
        state = {
            CURSOR: msgspec.json.encode(self.cursor),
            SELECTOR: self._selector.save(),
            DRIFT: self._lookout.save(),
            TARGETS: self._scores.targets.save(),
            FRAMES: self._scores.frames.save(),
        }
        return {key: saved for key, saved in state.items() if saved} | self.extras.save()

    def _settle(self) -> None:
        """What came for the extras meanwhile: orders, and samples out of the recent ring."""
        samples, news = self.extras.settle(self._model, now_ms=self._wall_ms(), pay=self._pay)
        if news:
            self.record.add_recalled(len(samples))
            self._hand_over(Handover(samples, self._state()))

    def _pay(self) -> bool:
        return self._selector.purse.take_beside(self._sample_bytes)

    def _payable(self) -> bool:
        return self._selector.purse.allows_beside(self._sample_bytes)

    def _earn(self) -> None:
        passed_s = time.monotonic() - self._earned_until_s
        self._selector.purse.pass_time(passed_s)
        self._lookout.pass_time(passed_s)
        self._earned_until_s += passed_s

    # --- model and orders ---

    def take_over(self) -> None:
        """Let a model that was handed over run from now on. All blocks of the one before are finished."""
        with self._lock:
            model, self._next = self._next, None
            if model is None:
                return
            self._model = model
        self.extras.take_over(model)
        self._scores.meet(model.manifest, self._scores.acquisition)
        self.record.model_changed(model.manifest)
        self._lookout.meet(model)
        self._meet()

    def _meet(self) -> None:
        about = self._model.manifest
        self._sample_bytes = sample_bytes(self._model)
        self._selector.meet(model=f"{about.name} {about.version}", acquisition=self._scores.acquisition)

    def _obey(self) -> None:
        with self._lock:
            orders, self._orders = self._orders, None
        if orders is None:
            return
        rules, acquisition, chosen_by = orders
        self._selector.change(rules)
        if chosen_by and strategy.STRATEGIES[chosen_by] is not type(self._selector):
            # Another one earns on with the same tokens and draws on from the same generator: both are in what is saved.
            self._selector = strategy.make(chosen_by, rules, SplitMix64(), saved=self._selector.save())
        if acquisition != self._scores.acquisition:
            self._scores.meet(self._model.manifest, acquisition)
        self._meet()

    def swap(self, model: Model) -> None:
        """Let a loaded model take over at the end of the block."""
        with self._lock:
            self._next = model

    def change(self, rules: Rules, acquisition: str, chosen_by: str = "") -> None:
        """Let other budgets, another acquisition function or strategy be in force from the end of the block.

        `chosen_by`: a name that strategy.py knows; "": as it is.
        """
        with self._lock:
            self._orders = (rules, acquisition, chosen_by)

    def shadow(self, model: Model, share: Share, rng: SplitMix64) -> None:
        """Let a second model see a share of the samples, and send those on which it says something else.

        Every sample that it sees costs a run of it, in the loop. IncompatibleError when its inputs are others.
        """
        self.extras.shadow(model, share, self._model, rng)

    # --- looking ---

    @property
    def model(self) -> Model:
        """The model that executes."""
        return self._model

    @property
    def coming(self) -> Model:
        """The model that executes, or is about to."""
        return self._next or self._model

    @property
    def selector(self) -> Selector:
        """For its tokens."""
        return self._selector

    def drift(self) -> DriftState | None:
        """Whether the stream is as it was; None when nobody looks."""
        return self._lookout.state()

    def requests(self) -> tuple[RequestState, ...]:
        """How the open requests do."""
        return self.extras.states(self._model, now_ms=self._wall_ms())
