"""Detection: boxes, each of a class. logits (N, A, C), a sigmoid each, and `boxes` (N, A, 4), not yet suppressed."""

from __future__ import annotations

import numpy as np

from edge_agent.choose.tasks.detection import Detection as Scores
from edge_agent.contract import score
from edge_agent.contract.artifact import Answer
from edge_agent.contract.boxes import suppress
from edge_agent.contract.task import Task
from models.data import require_truth
from models.kinds.kind import Array, Expected, Floats, Outputs, said_by, shape_error
from models.kinds.several import sigmoid

LEAST = 0.05  # score of a candidate that precision is measured with: far below it a curve only gets longer
CANDIDATES = 1000  # of an image before suppression: a fresh model says thousands of boxes

Boxes = list[Floats]


class Detection:
    """Boxes."""

    task: Task = "detection"

    def __init__(self, names: tuple[str, ...], answer: Answer) -> None:
        self.names, self.answer = names, answer

    def check(self, outputs: Outputs) -> None:
        """As of Kind."""
        shape = outputs.logits.shape
        if len(shape) != 3 or shape[2] != len(self.names):
            raise shape_error("logits", shape, f"(N, A, {len(self.names)}): one for each name at A places")
        if outputs.more is None or outputs.more.shape != (*shape[:2], 4):
            got = () if outputs.more is None else outputs.more.shape
            raise shape_error(self.answer.boxes, got, f"(N, {shape[1]}, 4): left, top, right, bottom at each place")

    def check_truth(self, y: Array, samples: int) -> None:
        """As of Kind."""
        require_truth(y, self.task, samples=samples, classes=len(self.names))

    def read(self, outputs: Outputs, *, least: float = LEAST) -> Boxes:
        """Of each sample (M, 6) class, left, top, right, bottom, score; of what overlaps the surest, surest first."""
        self.check(outputs)
        every = zip(outputs.logits, np.asarray(outputs.more), outputs.sound, strict=True)
        nothing = np.zeros((0, 6))
        return [self._read(logits, boxes, least) if sound else nothing for logits, boxes, sound in every]

    def _read(self, logits: Array, boxes: Array, least: float) -> Floats:
        likeliest = logits.argmax(axis=1)  # a place gives one box, as on the device
        sure = sigmoid(logits[np.arange(len(logits)), likeliest])
        corners = np.asarray(boxes, np.float64)
        real = (sure >= least) & (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
        order = np.flatnonzero(real)[np.argsort(-sure[real], kind="stable")][:CANDIDATES]
        label = likeliest.astype(np.intp)
        kept = suppress(corners[order], sure[order], label[order], overlap_max=self.answer.overlap_max)
        rows = order[kept][: self.answer.most]
        return np.column_stack((label[rows], corners[rows], sure[rows])).astype(np.float64)

    def counting(self, boxes: Boxes) -> Boxes:
        """Those that count."""
        return [one[one[:, 5] >= self.answer.score_min] for one in boxes]

    def temperature(self, outputs: Outputs, y: Array) -> float:  # noqa: ARG002 - see below
        """Not: where a score counts is for `score_min` to say, and the order of boxes is all that precision asks."""
        return 1.0

    def score(self, outputs: Outputs, y: Array) -> Floats:
        """F1 of the boxes that count."""
        said = self.counting(self.read(outputs))
        return np.array([score.of_boxes(*pair) for pair in zip(said, y, strict=True)]) * outputs.sound

    def agreement(self, ours: Outputs, theirs: Outputs) -> float:
        """F1 of the one's boxes by the other's."""
        return float(self.score(ours, score.stacked(self.counting(self.read(theirs)))).mean())

    def metrics(self, outputs: Outputs, y: Array, temperature: float) -> dict[str, float]:  # noqa: ARG002 - none
        """As of Kind; precision is for the gates (server/teach/gates/precision.py)."""
        terms = score.terms_of(score_min=self.answer.score_min)
        return {"accuracy": float(self.score(outputs, y).mean())} | terms | {"samples": float(len(y))}

    def expected(self, outputs: Outputs, temperature: float) -> Expected:
        """By the device's own adapter."""
        adapter = Scores("margin", temperature=temperature, answer=self.answer)
        return said_by(adapter.score(outputs.logits, outputs.more))
