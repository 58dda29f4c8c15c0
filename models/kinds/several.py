"""Multi-label: every class that applies. logits (N, K), a sigmoid each; from .5 on it is said to apply.

Of T heads (N, T, K) the mean of their probabilities counts.
"""

from __future__ import annotations

import numpy as np

from edge_agent.choose.tasks.multilabel import Multilabel as Scores
from edge_agent.contract import score
from edge_agent.contract.artifact import Answer
from edge_agent.contract.task import Task
from models import evaluate
from models.data import require_truth
from models.kinds.kind import Array, Expected, Floats, Outputs, said_by, shape_error

LIKELY_LEAST = 1e-12  # of a decision: its logarithm must be a number


class Multilabel:
    """Several classes at once."""

    task: Task = "multilabel"

    def __init__(self, names: tuple[str, ...], answer: Answer) -> None:
        self.names, self.answer = names, answer

    def check(self, outputs: Outputs) -> None:
        """As of Kind."""
        shape, classes = outputs.logits.shape, len(self.names)
        if len(shape) not in (2, 3) or shape[-1] != classes:
            raise shape_error("logits", shape, f"(N, {classes}): one for each name, or (N, T, {classes}) of T heads")

    def check_truth(self, y: Array, samples: int) -> None:
        """As of Kind."""
        require_truth(y, self.task, samples=samples, classes=len(self.names))

    def temperature(self, outputs: Outputs, y: Array) -> float:
        """By one temperature over all decisions."""
        return evaluate.worthwhile_temperature(outputs.logits, y, each=nll)

    def score(self, outputs: Outputs, y: Array) -> Floats:
        """Share of right decisions."""
        return score.of_several(probability(outputs.logits), y) * outputs.sound

    def agreement(self, ours: Outputs, theirs: Outputs) -> float:
        """Share of decisions that are the same."""
        return float(self.score(ours, probability(theirs.logits) >= score.SURE).mean())

    def metrics(self, outputs: Outputs, y: Array, temperature: float) -> dict[str, float]:
        """As of Kind. macro_f1: over the classes that occur."""
        said, true = probability(outputs.logits) >= score.SURE, y >= score.SURE
        both, either = (said & true).sum(axis=0), said.sum(axis=0) + true.sum(axis=0)
        occur = true.any(axis=0)
        return {
            "accuracy": float(self.score(outputs, y).mean()),
            "macro_f1": float((2.0 * both[occur] / either[occur]).mean()) if occur.any() else 0.0,
            "nll": float(nll(outputs.logits, y, temperature).mean()),
            "samples": float(len(y)),
        }

    def expected(self, outputs: Outputs, temperature: float) -> Expected:
        """By the device's own adapter."""
        members = outputs.logits.shape[1] if outputs.logits.ndim == 3 else 1
        return said_by(Scores("margin", temperature=temperature, members=members).score(outputs.logits))


def probability(logits: Array, temperature: float = 1.0) -> Floats:
    """(N, K) of each class, of logits (N, K) or (N, T, K)."""
    each = sigmoid(logits, temperature)
    return each.mean(axis=1) if each.ndim == 3 else each


def sigmoid(logits: Array, temperature: float = 1.0) -> Floats:
    """Probabilities, element by element."""
    found: Floats = 0.5 * (1.0 + np.tanh(np.asarray(logits, np.float64) / (2.0 * temperature)))
    return found


def nll(logits: Array, y: Array, temperature: float) -> Floats:
    """(N,) negative log likelihood of the truth, nats to a decision."""
    chance = probability(logits, temperature)
    found: Floats = -np.log(np.maximum(np.where(y >= score.SURE, chance, 1.0 - chance), LIKELY_LEAST)).mean(axis=1)
    return found
