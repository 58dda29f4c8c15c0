"""Which model should the loop run, and how is it doing?

Beside the loop, a few times a second: a staged model is loaded and warmed up here, so that the loop only changes a
reference; a model on trial is judged by what it does; a reverted one makes way for the one before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from edge_agent.config import Update
from edge_agent.loop import Loop, Vitals
from edge_agent.model import Model
from edge_agent.update.trial import Probation, Verdict
from edge_agent.update.updater import Updater

log = logging.getLogger(__name__)

TICK_S = 0.1
STATUS_S = 30.0  # longest time between two writings of status.json: more is old news, less wears a flash card


class Trial(NamedTuple):
    """A model on probation."""

    version: int
    since_s: float
    rule: Probation

    def verdict(self, vitals: Vitals, now_s: float) -> Verdict:
        """What the rule says of it so far."""
        return self.rule.judge(
            samples=vitals.samples,
            invalid=vitals.invalid,
            elapsed_s=now_s - self.since_s,
            latency_p95_ms=vitals.latency_p95_ms,
        )


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
    ) -> None:
        """`load` gives None when it has told the updater why not. `write_status` gets the samples/s of late.

        `status_s`: between two calls of it, at most STATUS_S.
        """
        self._loop = loop
        self._updater = updater
        self._update = update
        self._load = load
        self._write_status = write_status
        self._status_s = min(status_s, STATUS_S)
        self._complained = False  # of a status that cannot be written
        self._trial: Trial | None = None
        self._steady_p95_ms: float | None = None

    def run(self, stopping: threading.Event) -> None:
        """Until `stopping`; whatever goes wrong here, the stream goes on."""
        looked_s, read = time.monotonic(), 0
        while not stopping.wait(TICK_S):
            try:
                self.tend_model(time.monotonic())
                if (passed_s := time.monotonic() - looked_s) >= self._status_s:
                    before, read = read, self._loop.counts().read
                    looked_s += passed_s
                    self._say((read - before) / passed_s)
            except Exception:
                log.exception("housekeeping failed; the stream goes on")

    def _say(self, samples_per_s: float) -> None:
        try:
            self._write_status(samples_per_s)
            self._complained = False
        except OSError as error:  # a full disk; it is only for people to look at
            if not self._complained:
                log.error("the status cannot be written meanwhile: %s", error)
            self._complained = True

    def tend_model(self, now_s: float) -> None:
        """One look: judge a trial that runs, and bring the loop to the version that it should run."""
        vitals = self._loop.vitals()
        self._updater.executing(vitals.version)
        if self._updater.state().slot == "trial":
            if self._trial is None or self._trial.version != vitals.version:
                self._trial = Trial(vitals.version, now_s, self._probation())
            self._updater.judge(self._trial.verdict(vitals, now_s))
        else:
            self._steady_p95_ms, self._trial = vitals.latency_p95_ms or self._steady_p95_ms, None
        folder = self._updater.take() or self._updater.running_folder()
        if folder is not None and int(folder.name) != self._loop.coming_version and (model := self._load(folder)):
            self._loop.swap(model)

    def _probation(self) -> Probation:
        return Probation(
            min_samples=self._update.probation_samples,
            min_s=self._update.probation_s,
            max_invalid_share=self._update.max_invalid_share,
            max_latency_ratio=self._update.max_latency_ratio,
            reference_p95_ms=self._steady_p95_ms,
        )
