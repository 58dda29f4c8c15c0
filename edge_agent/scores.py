"""What is each sample of a block worth, by the acquisition function in force?"""

from __future__ import annotations

import logging

import numpy as np

from edge_agent.batch import Batch
from edge_agent.choose.acquisition import Scored
from edge_agent.choose.targets import EPIG, Targets
from edge_agent.choose.tasks.frames import Frames
from edge_agent.choose.tasks.scoring import Scoring, scoring
from edge_agent.contract.artifact import Manifest

log = logging.getLogger(__name__)

COMPLAINTS_MAX = 100  # that are told; a plug-in may word each anew


class Scores:
    """For the loop's thread."""

    def __init__(self, about: Manifest, acquisition: str, *, targets: Targets, frames: Frames) -> None:
        """ConfigError when the acquisition function cannot be found.

        `targets`: what EPIG goes on with, `frames`: what a detector.
        """
        self.targets, self.frames = targets, frames
        self._complaints: set[str] = set()
        self.meet(about, acquisition)

    def meet(self, about: Manifest, acquisition: str) -> None:
        """Go on with that model and that acquisition function. ConfigError as above."""
        self.acquisition = acquisition
        name = f"{about.name} {about.version}"
        self.targets.meet(name if acquisition == EPIG else "")
        self.frames.meet(name if about.task == "detection" else "")
        self._scorer: Scoring = scoring(about, acquisition, targets=self.targets, frames=self.frames)
        if self._scorer.complaint:
            log.warning("model version %d: %s", about.version, self._scorer.complaint)

    def of(self, batch: Batch) -> Scored:
        """Of its whole ring; NaN where a sample or what the model says of it cannot be used."""
        model, count = batch.model, len(batch.readings)
        try:
            scored = self._scorer.score(model.logits, model.further, count=count)
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; its samples count as invalid
            self.complain(f"acquisition {self.acquisition}: {type(error).__name__}: {error}")
            nothing = np.zeros(model.rows, np.float32)
            return Scored(nothing * np.float32(np.nan), nothing.astype(np.intp), nothing, energy=nothing)
        if ":" in self.acquisition:
            sound = np.isfinite(scored.confidence[:count])
            if not np.isfinite(scored.utility[:count][sound]).all():
                self.complain(f"acquisition {self.acquisition}: gave NaN or infinity for finite logits")
        broken = model.broken(count)
        if broken is not None:
            scored.utility[:count][broken] = np.nan
            scored.confidence[:count][broken] = 0.0  # not NaN: that would be held against the model
        return scored

    def complain(self, text: str) -> None:
        """Of samples that are skipped; of each thing once."""
        if text not in self._complaints and len(self._complaints) < COMPLAINTS_MAX:
            self._complaints.add(text)
            log.warning("%s: such samples are counted as invalid and skipped", text)
