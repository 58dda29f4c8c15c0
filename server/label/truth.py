"""How does somebody say what is more than a class?

People and programs call classes and targets by their names, and so do answers to them:

    {"boxes": [["person", 0.1, 0.2, 0.5, 0.9]]}    left, top, right, bottom: 0 and 1 are the edges of the picture
    {"applies": ["person", "bicycle"]}             whatever applies; [] says that nothing does
    {"values": [["speed", 3.2]]}                   in the target's unit

The store keeps indices (edge_agent/contract/task.py). Pure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edge_agent.contract.errors import MessageError
from edge_agent.contract.task import Task, Truth, truth_of
from server.errors import LabelError
from server.label.classes import name_of
from server.label.labeler import CANNOT_TELL
from server.store.consensus import VALUED

Named = Mapping[str, Any]
"""What somebody says, by names."""
View = dict[str, list[Any]]

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
    numbered = {
        kind: [[index[row]] if isinstance(row, str) else [index[row[0]], *row[1:]] for row in part]
        for kind, part in said.items()
    }
    try:
        truth = truth_of(numbered)
    except MessageError as error:
        raise LabelError(f"{error}: got {str(dict(said))[:200]}, expected {EXPECTED[task]}") from None
    if truth.task != task:
        raise LabelError(f"got {', '.join(said)}, expected {EXPECTED[task]}: [server] task is {task!r}")
    _check(truth, said)
    return truth


def refuse_class(said: str, task: Task) -> None:
    """LabelError when a class is no answer on a server of that task."""
    if task != "classification" and said != CANNOT_TELL:
        none = "; [] says that there is nothing" if task != "regression" else ""
        raise LabelError(f"got {said!r}, expected {EXPECTED[task]}{none}, or 'cannot tell': [server] task is {task!r}")


def named(what: Mapping[str, Any] | None, names: Sequence[str]) -> View | None:
    """Plain data of a truth, or of what a model said: as in the store, but with names in place of indices."""
    if what is None:
        return None
    return {kind: [[name_of(row[0], names), *row[1:]] for row in part or ()] for kind, part in what.items()}


def words(what: Mapping[str, Any], names: Sequence[str]) -> str:
    """The same in a few words.

    >>> words({"boxes": [[0, 0.1, 0.1, 0.2, 0.2, 1.0], [0, 0.5, 0.1, 0.9, 0.2, 1.0]]}, ["person"])
    'person ×2'
    """
    if what.get("values"):
        return ", ".join(f"{_name(row, names)} {row[1]:.4g}" for row in what["values"])
    counts = Counter(_name(row, names) for part in what.values() for row in part or ())
    return ", ".join(name if n == 1 else f"{name} ×{n}" for name, n in counts.items()) or "nothing"


def in_words(class_index: int, truth: Mapping[str, Any] | None, names: Sequence[str]) -> str:
    """An answer, whatever it is: a class, what is none, or a truth."""
    return words(truth, names) if class_index == VALUED and truth is not None else name_of(class_index, names)


def _name(row: Any, names: Sequence[str]) -> str:
    first = row if isinstance(row, str) else row[0]
    return first if isinstance(first, str) else name_of(first, names)


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
