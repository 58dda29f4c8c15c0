"""Who answers, and what is it asked?

A labeler is an object with one method, `label(batch) -> answers`: one answer per question, in order. An answer is a
class name, the index of a known class, CANNOT_TELL (or None), NONE_OF_THESE, a truth that is more than a class (by
names: truth.py), or LATER: the question is asked, and its answer comes by and by; either out of the queue, from people,
or out of the labeler's second method, `answered()`, which a labeler has that asks elsewhere.

`[labeler] kind` names one: `oracle`, `human`, `label_studio`, or your own as `package.module:name`, called without
arguments (or with the list of `[labeler] files`, if there are any). What a labeler raises, or answers wrongly, is a
LabelError here: the samples stay unlabelled and are asked again later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract import settings
from edge_agent.contract.errors import ConfigError
from server.errors import LabelError, ServerConfigError
from server.label.oracle import Oracle
from server.store import consensus, wording

CANNOT_TELL, NONE_OF_THESE = wording.WORDS[consensus.CANNOT_TELL], wording.WORDS[consensus.NONE_OF_THESE]
"""Answers that are no class: no class is called so."""
NAME_MAX = 200


class Later(Enum):
    """The type of LATER."""

    LATER = "later"


LATER: Final = Later.LATER
Answer = str | int | None | Later | Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """One sample to be labelled."""

    id: str  # device.stream.boot.sequence
    ref: str  # the source's own name for it; empty when it has none
    guess: str  # class that the device's model gave it; empty when unknown
    confidence: float  # of that guess, 0..1
    load: Callable[[], NDArray[np.generic]]
    said: Mapping[str, Any] | None = None  # by that model, beyond a class: as in truth.py, with scores

    def array(self) -> NDArray[np.generic]:
        """The sample as the sensor gave it; read from the store only when it is asked for."""
        return self.load()


class Given(NamedTuple):
    """An answer that came later."""

    id: str  # of the question
    said: str  # a class name, CANNOT_TELL or NONE_OF_THESE; "" with a truth
    labeler: str  # who: "label_studio:ann@example.org"
    kind: str  # "label_studio"
    seconds: float  # that it took
    key: str  # of this answer: it may be given again, and counts once
    truth: Mapping[str, Any] | None = None  # more than a class (truth.py)


class Standing(NamedTuple):
    """Which answers of a kind about a question still stand where they were given: the others were deleted there."""

    id: str  # of the question
    kind: str
    keys: tuple[str, ...]  # how the keys of those that stand begin


class Labeler(Protocol):
    """Answers questions."""

    def label(self, batch: list[Question]) -> Sequence[Answer]:
        """One answer per question, in order."""


class Elsewhere(Labeler, Protocol):
    """Answers questions later."""

    def answered(self) -> Iterable[Given | Standing]:
        """What was answered since the last call that was iterated to its end: what is kept is asked for no more."""


class People:
    """Whoever takes questions out of the queue: `winnow-server label`, or a page."""

    def label(self, batch: list[Question]) -> list[Answer]:
        """All of it later."""
        return [LATER] * len(batch)


def load(kind: str, files: Sequence[str]) -> Labeler:
    """The labeler that `[labeler] kind` names; ServerConfigError when there is none such."""
    if kind == "oracle":
        return Oracle([Path(file) for file in files])
    if kind == "human":
        return People()
    if not kind.partition(":")[2]:
        raise ServerConfigError(
            f"[labeler] kind = {kind!r}: expected 'oracle', 'human', 'label_studio', or 'package.module:name'"
        )
    made = imported(kind, key="kind")
    labeler = make(made, files) if callable(made) else made
    if not callable(getattr(labeler, "label", None)):
        raise ServerConfigError(f"[labeler] kind = {kind!r}: has no method label(batch)")
    return labeler  # type: ignore[no-any-return]  # a user's object: the check above is all that can be had


def imported(place: str, *, key: str) -> Any:
    """What `package.module:name` names; ServerConfigError when it is not there."""
    try:
        return settings.imported(place, where=f"[labeler] {key} =")
    except ConfigError as error:
        raise ServerConfigError(str(error)) from error


def make(made: Callable[..., Any], files: Sequence[str]) -> Any:
    """What a user's class or function makes; ServerConfigError when it raises."""
    try:
        return made(list(files)) if files else made()
    except Exception as error:  # a user's plug-in
        raise ServerConfigError(f"[labeler] kind: {made!r} cannot be made: {error}") from error


def ask(labeler: Labeler, batch: list[Question]) -> list[Answer]:
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
        named = isinstance(answer, str) and (answer in (CANNOT_TELL, NONE_OF_THESE) or is_name(answer))
        more = isinstance(answer, Mapping)
        if not (answer is None or answer is LATER or named or more or _is_index(answer)):
            what = "expected a name, an index or None, or a truth"
            raise LabelError(f"labeler {who}: answered {answer!r} to {question.id}: {what}")
    return answers


def is_name(said: str) -> bool:
    """Whether a class may be called so.

    >>> [is_name(said) for said in ("newt", " newt", "Cannot tell", "")]
    [True, False, False, False]
    """
    fits = said == said.strip() and 0 < len(said) <= NAME_MAX
    return fits and said.lower() not in (CANNOT_TELL, NONE_OF_THESE)


def _is_index(answer: object) -> bool:
    return isinstance(answer, int) and not isinstance(answer, bool) and answer >= 0
