"""Classification: one class of the sample. logits (N, C), or (N, T, C) of T heads."""

from __future__ import annotations

import numpy as np

from edge_agent.contract.artifact import Answer
from edge_agent.contract.task import Task
from models import evaluate
from models.errors import DataError
from models.kinds.kind import Array, Expected, Floats, Outputs, shape_error


class Classification:
    """One class."""

    task: Task = "classification"

    def __init__(self, names: tuple[str, ...], answer: Answer) -> None:
        self.names, self.answer = names, answer

    def check(self, outputs: Outputs) -> None:
        """As of Kind."""
        shape, classes = outputs.logits.shape, len(self.names)
        if len(shape) not in (2, 3) or shape[-1] != classes:
            wanted = f"(N, {classes}): one for each name, or (N, T, {classes}) of T heads"
            raise shape_error("logits", shape, wanted)

    def check_truth(self, y: Array, samples: int) -> None:
        """As of Kind."""
        classes = len(self.names)
        if y.shape != (samples,) or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= classes:
            got = f"{y.dtype} {y.shape}" + (f" {y.min()}..{y.max()}" if y.size else "")
            raise DataError(
                f"truth of the holdout is {got}, expected whole numbers 0..{classes - 1} of shape ({samples},)"
            )

    def temperature(self, outputs: Outputs, y: Array) -> float:
        """By temperature (Guo et al. 2017)."""
        return evaluate.worthwhile_temperature(outputs.logits, y)

    def score(self, outputs: Outputs, y: Array) -> Floats:
        """1 where the top class is the truth."""
        right: Floats = (evaluate.top_class(outputs.logits) == y).astype(np.float64)
        return right

    def agreement(self, ours: Outputs, theirs: Outputs) -> float:
        """Share with the same top class."""
        return evaluate.agreement(ours.logits, theirs.logits)

    def metrics(self, outputs: Outputs, y: Array, temperature: float) -> dict[str, float]:
        """As of Kind."""
        return {
            "accuracy": evaluate.accuracy(outputs.logits, y),
            "macro_f1": evaluate.macro_f1(outputs.logits, y),
            "ece": evaluate.ece(evaluate.softmax(outputs.logits, temperature), y),
            "nll": evaluate.nll(outputs.logits, y, temperature),
            "samples": float(len(y)),
        }

    def expected(self, outputs: Outputs, temperature: float) -> Expected:
        """By the margin of the two likeliest classes."""
        logits = evaluate.as_one(outputs.logits, temperature)
        probs = evaluate.softmax(logits)
        top = np.sort(probs, axis=1)[:, ::-1]
        energy = np.log(top[:, 0]) - logits.max(axis=1)
        return Expected(np.argmax(probs, axis=1), top[:, 0], 1.0 - (top[:, 0] - top[:, 1]), energy)
