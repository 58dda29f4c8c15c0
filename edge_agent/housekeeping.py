"""Which model should the loop run, and how is it doing?

Beside the loop, a few times a second. A staged model is loaded and warmed up here, tried beside the one that runs, and
handed over ready, so that the loop only changes a reference; one that runs on probation is judged by what it does; a
reverted one makes way for the one before. Nothing here needs the server.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent.choose.splitmix import SplitMix64
from edge_agent.config import Update
from edge_agent.contract.errors import IncompatibleError
from edge_agent.loop import Loop
from edge_agent.model import Model
from edge_agent.record import Vitals
from edge_agent.send.health import rss_bytes
from edge_agent.update.installed import Detail
from edge_agent.update.probation import Figures, GoOn, Limits, Probation, Revert, Shadowing
from edge_agent.update.slots import Staged, Steady, Trial
from edge_agent.update.updater import Updater

if TYPE_CHECKING:
    from edge_agent.shadow import Shadowed

log = logging.getLogger(__name__)

TICK_S = 0.1  # while a model is tried
REST_S = 0.5  # while none is: to wake is most of what an idle agent costs, and a staged model can wait so long
FIRST_STATUS_S = 2.0  # after a start: who has just set it up wants to see it
STATUS_S = 30.0  # longest time between two writings of status.json: more is old news, less wears a flash card


class Beside(msgspec.Struct, frozen=True):
    """A model in the shadow of the running one."""

    model: Model
    since_s: float
    rss_bytes: int  # of the process before it was loaded


class Live(msgspec.Struct, frozen=True):
    """A model on probation."""

    version: int
    since_s: float


class Housekeeping:
    """Keeps the loop at the version that it should run."""

    def __init__(
        self,
        loop: Loop,
        updater: Updater,
        *,
        update: Update,
        load: Callable[[Path], Model | None],
        write_status: Callable[[float], None],
        status_s: float,
        rng: SplitMix64,
        met: Callable[[Model], None] = lambda _: None,
        tend_heat: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`load` gives None when it has told the updater why not. `write_status` gets the samples/s of late.

        `status_s`: between two calls of it, at most STATUS_S. `rng` draws the samples that a shadow sees. `met`: told
        of a model when the loop has taken it up. `tend_heat` is called at every look, with the monotonic time in
        seconds.
        """
        self._loop = loop
        self._updater = updater
        self._update = update
        self._load = load
        self._write_status = write_status
        self._status_s = min(status_s, STATUS_S)
        self._met, self._known = met, loop.model.version
        self._complained = False  # of a status that cannot be written
        self._rng = rng
        self._tend_heat = tend_heat
        self._limits = Limits(
            invalid_share=update.max_invalid_share,
            latency_ratio=update.max_latency_ratio,
            confidence_shift=update.max_confidence_shift,
            memory_ratio=update.max_memory_ratio,
            agreement=update.min_agreement,
        )
        self._beside: Beside | None = None
        self._live: Live | None = None

    def run(self, stopping: threading.Event) -> None:
        """Until `stopping`; whatever goes wrong here, the stream goes on."""
        looked_s, read, due_s = time.monotonic(), 0, min(FIRST_STATUS_S, self._status_s)
        while not stopping.wait(self._wait_s()):
            try:
                self._tend_heat(time.monotonic())
                self.tend_model(time.monotonic())
                if (passed_s := time.monotonic() - looked_s) >= due_s:
                    before, read = read, self._loop.record.counts().read
                    looked_s, due_s = looked_s + passed_s, self._status_s
                    self._say((read - before) / passed_s)
            except Exception:
                log.exception("housekeeping failed; the stream goes on")

    def _wait_s(self) -> float:
        at_rest = self._beside is None and isinstance(self._updater.slot_state(), Steady)
        return min(REST_S, self._status_s) if at_rest else TICK_S

    def _say(self, samples_per_s: float) -> None:
        try:
            self._write_status(samples_per_s)
            self._complained = False
        except OSError as error:  # a full disk; it is only for people to look at
            if not self._complained:
                log.error("the status cannot be written meanwhile: %s", error)
            self._complained = True

    def tend_model(self, now_s: float) -> None:
        """One look: judge what is in the shadow or on probation, and bring the loop to what it should run."""
        model = self._loop.model
        self._updater.executing(model.version)
        if model.version != self._known:
            self._known = model.version
            self._met(model)
        state = self._updater.slot_state()
        if isinstance(state, Steady):  # nearly always; to ask for vitals ten times a second cost half of an idle agent
            self._live = None
        else:
            self._tend_candidate(state, self._loop.record.vitals(), now_s)
        self._bring()

    def _tend_candidate(self, state: Staged | Trial, vitals: Vitals, now_s: float) -> None:
        if isinstance(state, Staged) and state.committed == 0:
            self._updater.take(state.candidate)  # what runs was refused, and only for want of another: no measure
        elif isinstance(state, Staged) and state.committed == vitals.version == self._loop.coming.version:
            self._tend_staged(state.candidate, vitals, now_s)
        if isinstance(state, Trial) and state.candidate == vitals.version:
            self._tend_trial(state, vitals, now_s)
        else:
            self._live = None

    # --- beside the running model ---

    def _tend_staged(self, version: int, vitals: Vitals, now_s: float) -> None:
        if not self._update.shadow_samples:
            self._updater.take(version, before=_figures(vitals))
        elif self._beside is None or self._beside.model.version != version:
            self._end_shadow()
            self._beside = self._begin_shadow(now_s)
        elif (seen := self._loop.extras.shadowed()) is not None and seen.version == version:
            self._judge_shadow(self._beside, seen, vitals, now_s)

    def _begin_shadow(self, now_s: float) -> Beside | None:
        folder, before = self._updater.shadow(), rss_bytes()
        if folder is None or (model := self._load(folder)) is None:
            return None
        from edge_agent.choose.disagreement import Share

        labels = min(self._update.shadow_label_share, self._loop.selector.rules.label_share)
        try:
            self._loop.shadow(model, Share(self._update.shadow_share, labels), self._rng)
        except IncompatibleError as error:
            self._updater.failed(model.version, str(error))
            return None
        return Beside(model, now_s, before)

    def _judge_shadow(self, beside: Beside, seen: Shadowed, vitals: Vitals, now_s: float) -> None:
        rule = Shadowing(min_samples=self._update.shadow_samples, max_s=self._update.shadow_s, limits=self._limits)
        elapsed_s = now_s - beside.since_s
        self._updater.progress(seen.samples, rule.share(seen.samples, elapsed_s))
        usual = seen.running_confidence  # on the same samples
        candidate, champion = _figures(seen), _figures(msgspec.structs.replace(vitals, confidence=usual))
        grew_bytes = rss_bytes() - beside.rss_bytes
        verdict = rule.judge(
            candidate,
            champion,
            elapsed_s=elapsed_s,
            agreed=seen.agreed,
            grew_bytes=grew_bytes,
            champion_bytes=self._loop.model.grew_bytes,
        )
        if isinstance(verdict, GoOn):
            return
        found: Detail = {"agreed": seen.agreed, "grew_bytes": grew_bytes, **_told(candidate, champion)}
        if isinstance(verdict, Revert):
            self._updater.refuse(seen.version, f"in the shadow of version {vitals.version}: {verdict.reason}", found)
        else:
            self._updater.take(seen.version, before=_figures(vitals), found=found | {"note": verdict.note})

    # --- live ---

    def _tend_trial(self, state: Trial, vitals: Vitals, now_s: float) -> None:
        if self._live is None or self._live.version != vitals.version:
            self._live = Live(vitals.version, now_s)
        rule = Probation(
            min_samples=self._update.probation_samples,
            min_s=self._update.probation_s,
            limits=self._limits,
            before=state.before,
        )
        figures, elapsed_s = _figures(vitals), now_s - self._live.since_s
        self._updater.progress(vitals.samples, rule.share(vitals.samples, elapsed_s))
        verdict = rule.judge(figures, elapsed_s=elapsed_s)
        self._updater.judge(verdict, _told(figures, state.before))

    def _bring(self) -> None:
        """Hand the loop what it should run, and end a shadow that is not wanted any more."""
        state, beside = self._updater.slot_state(), self._beside
        folder = self._updater.running_folder()
        if folder is not None and int(folder.name) != self._loop.coming.version:
            ready = beside is not None and beside.model.version == int(folder.name)
            if model := beside.model if ready and beside else self._load(folder):
                self._loop.swap(model)
        if beside is not None and not (isinstance(state, Staged) and state.candidate == beside.model.version):
            self._end_shadow()

    def _end_shadow(self) -> None:
        if self._beside is not None:
            self._loop.extras.end_shadow()
            self._beside = None


def _figures(did: Vitals | Shadowed) -> Figures:
    return Figures(
        samples=did.samples,
        invalid=did.invalid,
        latency_p95_ms=did.latency_p95_ms,
        confidence=did.confidence.value,
        confidence_error=did.confidence.error,
        expected=did.expected,
    )


def _told(figures: Figures, before: Figures | None) -> Detail:
    """For an event: what a verdict rests on."""
    told: Detail = {
        "samples": figures.samples,
        "invalid": figures.invalid,
        "latency_p95_ms": figures.latency_p95_ms,
        "confidence": figures.confidence,
        "confidence_expected": figures.expected,
    }
    if before is not None:
        told["before_latency_p95_ms"] = before.latency_p95_ms
        told["before_confidence"] = before.confidence
        told["before_confidence_expected"] = before.expected
    return told
