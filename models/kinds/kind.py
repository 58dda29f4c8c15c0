"""What does a model say, and how good is that, whatever its task?

Everything that differs from task to task once a model is a file is behind one interface: how its outputs are read, how
they are calibrated, the score of a sample by its truth, and what a device would expect of a stream. Truth is an array
with a row a sample, as contract/score.py has it for each task. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Scored
from edge_agent.contract.artifact import Answer, Manifest
from edge_agent.contract.errors import IncompatibleError
from edge_agent.contract.task import Task
from models import evaluate

Array = NDArray[Any]
Floats = NDArray[np.float64]


class Outputs(NamedTuple):
    """What the graph gives of N samples; more: boxes (N, A, 4) or spread (N, K), None where it has no third output."""

    logits: Array
    embedding: Array
    more: Array | None = None

    def of(self, rows: Array) -> Outputs:
        """Some of the samples."""
        return Outputs(self.logits[rows], self.embedding[rows], None if self.more is None else self.more[rows])

    @property
    def sound(self) -> NDArray[np.bool_]:
        """(N,) whether what is said of a sample is finite."""
        said = [self.logits] if self.more is None else [self.logits, self.more]
        found: NDArray[np.bool_] = np.logical_and.reduce(
            [np.isfinite(one).all(axis=tuple(range(1, one.ndim))) for one in said]
        )
        return found


class Expected(NamedTuple):
    """Of N samples what a device says of each, and drift is held against; (N,) each."""

    label: NDArray[np.intp]  # of the outcomes: the classes and, of a detector, "nothing" behind them
    confidence: Array  # the model's own estimate of its score, 0..1
    utility: Array  # by `margin`
    energy: Array


class Kind(Protocol):
    """One task, of one model."""

    task: Task
    names: tuple[str, ...]  # of its C classes, or K targets
    answer: Answer

    def check(self, outputs: Outputs) -> None:
        """IncompatibleError unless the outputs are of the shapes that the task has."""

    def check_truth(self, y: Array, samples: int) -> None:
        """DataError unless y is the truth of so many samples."""

    def temperature(self, outputs: Outputs, y: Array) -> float:
        """That makes what it says of y likeliest, where samples that it was not fitted on gain by it; else 1."""

    def score(self, outputs: Outputs, y: Array) -> Floats:
        """(N,) 0..1, of every sample by its truth."""

    def agreement(self, ours: Outputs, theirs: Outputs) -> float:
        """Mean score of what one says by what the other says."""

    def metrics(self, outputs: Outputs, y: Array, temperature: float) -> dict[str, float]:
        """Figures that stand for themselves; "accuracy" is the mean score."""

    def expected(self, outputs: Outputs, temperature: float) -> Expected:
        """What a device says of the samples."""


def said_by(scored: Scored) -> Expected:
    """What the device's own adapter said; of a sample that it cannot use, what tells the least."""
    utility, sure = np.nan_to_num(scored.utility, nan=1.0), np.nan_to_num(scored.confidence)
    energy = np.zeros(len(utility)) if scored.energy is None else scored.energy
    return Expected(scored.label, sure, utility, np.nan_to_num(energy, posinf=0.0, neginf=0.0))


def outputs_of(session: ort.InferenceSession, x: Array, *, logits: str, embedding: str, answer: Answer) -> Outputs:
    """Run raw samples x: (N, *shape); IncompatibleError when onnxruntime refuses."""
    more = answer.boxes or answer.spread
    return Outputs(*evaluate.run_outputs(session, x, [logits, embedding, *([more] if more else [])]))


def run(onnx: bytes, manifest: Manifest, x: Array) -> Outputs:
    """What a version says of raw samples x; where it has no embedding, its logits again."""
    names = {"logits": manifest.logits, "embedding": manifest.embedding or manifest.logits}
    return outputs_of(evaluate.open_session(onnx), x, **names, answer=manifest.answer or Answer())


def kind_of(task: Task, names: Sequence[str], answer: Answer | None = None) -> Kind:
    """The kind of a task, of a model with these classes or targets."""
    from models.kinds.boxes import Detection
    from models.kinds.classes import Classification
    from models.kinds.several import Multilabel
    from models.kinds.values import Regression

    kinds: dict[Task, type[Kind]] = {
        "classification": Classification,
        "multilabel": Multilabel,
        "detection": Detection,
        "regression": Regression,
    }
    return kinds[task](tuple(names), answer or Answer())  # type: ignore[call-arg]  # a protocol says nothing of it


def shape_error(what: str, got: tuple[int, ...], expected: str) -> IncompatibleError:
    """Says what an output is, and what it should be."""
    return IncompatibleError(f"output {what!r} has shape {got}, expected {expected}")
