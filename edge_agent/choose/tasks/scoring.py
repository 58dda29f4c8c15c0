"""How is a sample scored, when its model answers with more than one class?

    classification   the logits' softmax                     acquisition.py
    multilabel       a sigmoid each                          multilabel.py
    regression       a number with its spread                regression.py
    detection        boxes, and whether they go on           detection.py, frames.py

One word asks for the same of every task: `margin` is how near the answer is to another one. Utility, label, confidence
and energy mean alike throughout (`Scored`), so that selection, drift, counts and trials need not know the task.
"""

from __future__ import annotations

from typing import Protocol

from edge_agent.choose.acquisition import Floats, Scored, Scorer
from edge_agent.choose.targets import Targets
from edge_agent.choose.tasks.frames import Frames
from edge_agent.contract.artifact import Answer, Manifest
from edge_agent.contract.types import Prediction


class Scoring(Protocol):
    """The adapter of a task."""

    complaint: str  # what stands in for the acquisition function, and why; "": nothing

    def score(self, logits: Floats, further: Floats | None = None, *, count: int | None = None) -> Scored:
        """Score a block as the graph gave it; a plug-in's errors are the caller's to handle.

        further: boxes of a detector, log variances of a regressor. count: rows that are new samples of the stream, in
        order; None: all.
        """


def answer_of(manifest: Manifest, logits: Floats, further: Floats | None = None) -> Prediction:
    """What a model says of one sample, for whoever waits for it alone; the stream's state has no part in it.

    logits, further: a row of what the graph gives. A confidence of NaN: the outputs cannot be used.
    """
    scored = scoring(manifest, "margin").score(logits[None], None if further is None else further[None])
    return scored.prediction(0)


def scoring(
    manifest: Manifest, acquisition: str, *, targets: Targets | None = None, frames: Frames | None = None
) -> Scoring:
    """The scores of a model's task by an acquisition function. ConfigError when that cannot be found.

    `targets`, `frames`: what EPIG and a detector's stream go on with.
    """
    answer, temperature, members = manifest.answer or Answer(), manifest.temperature, manifest.members
    if manifest.task == "multilabel":  # a device loads what its model needs
        from edge_agent.choose.tasks.multilabel import Multilabel

        return Multilabel(acquisition, temperature=temperature, members=members)
    if manifest.task == "regression":
        from edge_agent.choose.tasks.regression import Regression

        return Regression(acquisition, temperature=temperature, members=members, scale=answer.scale)
    if manifest.task == "detection":
        from edge_agent.choose.tasks.detection import Detection

        return Detection(acquisition, temperature=temperature, answer=answer, frames=frames)
    return Scorer(acquisition, temperature=temperature, members=members, targets=targets)
