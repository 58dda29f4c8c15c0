"""How does somebody say what is more than a class?

People and programs call classes and targets by their names, and so do answers to them:

    {"boxes": [["person", 0.1, 0.2, 0.5, 0.9]]}    left, top, right, bottom: 0 and 1 are the edges of the picture
    {"applies": ["person", "bicycle"]}             whatever applies; [] says that nothing does
    {"values": [["speed", 3.2]]}                   in the target's unit

Programs may give a class with its probability, ["person", 0.9], as models say it; from .5 on it applies.
The store keeps indices (edge_agent/contract/task.py). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edge_agent.contract.errors import MessageError
from edge_agent.contract.task import Applies, Task, Truth, truth_of
from server.errors import LabelError
from server.label.labeler import CANNOT_TELL
from server.store.truths import LIKELY
from server.store.wording import numbered

Named = Mapping[str, Any]
"""What somebody says, by names."""

KINDS: dict[Task, str] = {"detection": "boxes", "multilabel": "applies", "regression": "values"}
EXPECTED: dict[Task, str] = {
    "classification": "a class",
    "detection": '{"boxes": [[class, left, top, right, bottom], ...]}',
    "multilabel": '{"applies": [class, ...]}',
    "regression": '{"values": [[target, number], ...]}',
}


EDGE_MIN = 1e-4  # of a box: less is under a pixel of the largest picture, and a slip of the hand


def names_in(said: Named) -> list[str]:
    """The classes and targets that it names; LabelError when it is of another form."""
    rows = [row for part in said.values() for row in (part if isinstance(part, list | tuple) else [None])]
    firsts = [row[0] if isinstance(row, list | tuple) and row else row for row in rows]
    for first in firsts:
        if not isinstance(first, str):
            raise LabelError(f"truth: got {str(dict(said))[:200]}, expected {_expected()}")
    return list(dict.fromkeys(map(str, firsts)))


def read(said: Named, index: Mapping[str, int], *, task: Task) -> Truth:
    """The truth that is said. LabelError: it is none, or of another task than this server's.

    index: of each of `names_in`.
    """
    try:
        truth = truth_of(numbered(said, index))
    except MessageError as error:
        raise LabelError(f"{error}: got {str(dict(said))[:200]}, expected {EXPECTED[task]}") from None
    if truth.task != task:
        raise LabelError(f"got {', '.join(said)}, expected {EXPECTED[task]}: [server] task is {task!r}")
    _check(truth, said)
    if truth.applies is None:
        return truth
    return Truth(applies=tuple(Applies(one.label) for one in truth.applies if one.probability >= LIKELY))


def answerable(said: Named | None, task: Task) -> Named | None:
    """What a model said, so that it can be given back as an answer: one that found nothing says so in as many words.

    >>> answerable({}, "detection")
    {'boxes': []}
    """
    return said if said is None or task not in KINDS else {KINDS[task]: [], **said}


def refuse_class(said: str, task: Task) -> None:
    """LabelError when a class is no answer on a server of that task."""
    if task != "classification" and said != CANNOT_TELL:
        none = "; [] says that there is nothing" if task != "regression" else ""
        raise LabelError(f"got {said!r}, expected {EXPECTED[task]}{none}, or 'cannot tell': [server] task is {task!r}")


def _check(truth: Truth, said: Named) -> None:
    """What the types do not: LabelError when something is said twice, or is no number."""
    if any(min(one.right - one.left, one.bottom - one.top) < EDGE_MIN for one in truth.boxes or ()):
        raise LabelError(f"truth: got {str(dict(said))[:200]}: expected edges of {EDGE_MIN} at least: a finger slipped")
    labels = [one.label for one in truth.applies or truth.values or ()]
    if len(set(labels)) < len(labels):
        raise LabelError(f"truth: got {str(dict(said))[:200]}: expected each class or target once")
    if truth.values is not None and not (truth.values and all(math.isfinite(one.value) for one in truth.values)):
        raise LabelError(
            f"truth: got {str(dict(said))[:200]}: expected a number for a target, neither NaN nor infinity"
        )


def _expected() -> str:
    return ", or ".join(EXPECTED[task] for task in KINDS)
