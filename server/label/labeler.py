"""Who answers, and what is it asked?

A labeler is an object with one method, `label(batch) -> answers`: one answer per question, in order, a class name, the
index of a known class, or None when it cannot tell. `[labeler] kind` names one: `oracle`, or your own as
`package.module:name`, called without arguments (or with the list of `[labeler] files`, if there are any).
What a labeler raises, or answers wrongly, is a LabelError here: the samples stay unlabelled and are asked again later.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from server.errors import LabelError, ServerConfigError
from server.label.oracle import Oracle

Answer = str | int


@dataclass(frozen=True)
class Question:
    """One sample to be labelled."""

    id: str  # device.stream.boot.sequence
    ref: str  # the source's own name for it; empty when it has none
    guess: str  # class that the device's model gave it; empty when unknown
    confidence: float  # of that guess, 0..1
    load: Callable[[], NDArray[np.generic]]

    def array(self) -> NDArray[np.generic]:
        """The sample as the sensor gave it; read from the store only when it is asked for."""
        return self.load()


class Labeler(Protocol):
    """Answers questions."""

    def label(self, batch: list[Question]) -> Sequence[Answer | None]:
        """One answer per question, in order: a class name, a known class's index, or None for "cannot tell"."""


def load(kind: str, files: Sequence[str]) -> Labeler:
    """The labeler that `[labeler] kind` names; ServerConfigError when there is none such."""
    if kind == "oracle":
        return Oracle([Path(file) for file in files])
    module, _, name = kind.partition(":")
    if not name:
        raise ServerConfigError(f"[labeler] kind = {kind!r}: expected 'oracle', or 'package.module:name'")
    try:
        made: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ServerConfigError(f"[labeler] kind = {kind!r}: {error}") from error
    labeler = _make(made, files) if callable(made) else made
    if not callable(getattr(labeler, "label", None)):
        raise ServerConfigError(f"[labeler] kind = {kind!r}: has no method label(batch)")
    return labeler  # type: ignore[no-any-return]  # a user's object: the check above is all that can be had


def _make(made: Callable[..., Any], files: Sequence[str]) -> Any:
    try:
        return made(list(files)) if files else made()
    except Exception as error:  # a user's plug-in
        raise ServerConfigError(f"[labeler] kind: {made!r} cannot be made: {error}") from error


def ask(labeler: Labeler, batch: list[Question]) -> list[Answer | None]:
    """Answers of a labeler, checked; LabelError names what it did."""
    who = type(labeler).__name__
    try:
        answers = list(labeler.label(batch))
    except LabelError:
        raise
    except Exception as error:
        raise LabelError(f"labeler {who}: {type(error).__name__}: {error}") from error
    if len(answers) != len(batch):
        raise LabelError(f"labeler {who}: {len(answers)} answers to {len(batch)} questions, expected one each")
    for question, answer in zip(batch, answers, strict=True):
        if not (answer is None or (isinstance(answer, str) and answer) or _is_index(answer)):
            raise LabelError(f"labeler {who}: answered {answer!r} to {question.id}: expected a name, an index or None")
    return answers


def _is_index(answer: object) -> bool:
    return isinstance(answer, int) and not isinstance(answer, bool) and answer >= 0
