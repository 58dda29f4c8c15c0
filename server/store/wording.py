"""How is a label said to people, and what a model says beside it?

By the names of the schema, in place of indices. A truth is plain data of edge_agent/contract/task.py. Pure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from server.store.consensus import CANNOT_TELL, NONE_OF_THESE, VALUED
from server.store.truths import LIKELY

WORDS = {CANNOT_TELL: "cannot tell", NONE_OF_THESE: "none of these"}
"""Answers that are no class: no class is called so."""

View = dict[str, list[Any]]


def name_of(class_index: int, names: Sequence[str]) -> str:
    """Of a class, or of what is none; of a truth that is more, only that it is."""
    words = WORDS | {VALUED: "more than a class"}
    return words.get(class_index) or (names[class_index] if class_index < len(names) else str(class_index))


def in_words(class_index: int, truth: Mapping[str, Any] | None, names: Sequence[str]) -> str:
    """An answer, whatever it is: a class, what is none, or a truth."""
    return words(truth, names) if class_index == VALUED and truth is not None else name_of(class_index, names)


def words(what: Mapping[str, Any], names: Sequence[str]) -> str:
    """A truth, or what a model said, in a few words; of one that is by names already `names` may be empty.

    >>> words({"boxes": [[0, 0.1, 0.1, 0.2, 0.2, 1.0], [0, 0.5, 0.1, 0.9, 0.2, 1.0]]}, ["person"])
    'person ×2'
    """
    if what.get("values"):
        return ", ".join(f"{_name(row, names)} {row[1]:.4g}" for row in what["values"])
    counts = Counter(_name(row, names) for kind, part in what.items() for row in part or () if _counts(kind, row))
    return ", ".join(name if n == 1 else f"{name} ×{n}" for name, n in counts.items()) or "nothing"


def taken_for(row: Any, names: Sequence[str]) -> str | None:
    """What the device's model said of a sample, a row of `sample`; None: no model did."""
    if row.said is not None:
        return words(row.said, names)
    return None if row.predicted is None else name_of(row.predicted, names)


def guess_of(row: Any, names: Sequence[str]) -> str:
    """The class that the device's model took a sample for, of a detector that of its surest box; empty: none.

    The label of a detector that finds nothing is no class of its own, and may be another's.
    """
    if row.predicted is None or row.said == {} or row.predicted >= len(names):
        return ""
    return str(names[row.predicted])


def named(what: Mapping[str, Any] | None, names: Sequence[str]) -> View | None:
    """Plain data of a truth, or of what a model said: as in the store, but with names in place of indices."""
    if what is None:
        return None
    return {
        kind: [[name_of(row[0], names), *map(_finite, row[1:])] for row in part or ()] for kind, part in what.items()
    }


def numbered(said: Mapping[str, Any], index: Mapping[str, int]) -> dict[str, Any]:
    """What is said by names, as the store has it."""
    return {
        kind: [[index[row]] if isinstance(row, str) else [index[row[0]], *row[1:]] for row in part]
        for kind, part in said.items()
    }


def _counts(kind: str, row: Any) -> bool:
    """A model says a probability of every class; it means those that are more likely than not."""
    return kind != "applies" or isinstance(row, str) or row[1] >= LIKELY


def _finite(number: float) -> float | None:
    """JSON has no others; a device may send them."""
    return number if math.isfinite(number) else None


def _name(row: Any, names: Sequence[str]) -> str:
    first = row if isinstance(row, str) else row[0]
    return first if isinstance(first, str) else name_of(first, names)
