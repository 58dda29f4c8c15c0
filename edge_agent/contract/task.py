"""What kind of thing does a model say of a sample, and what is the truth about it?

    classification   one class of the sample               said: nothing beyond label and confidence
    multilabel       every class that applies              said: each class with its probability
    detection        boxes, each of a class                said: each box with its score
    regression       a number for each target              said: each value with its spread

Classes and targets share one schema of names; an index says which. `Said` goes with a sample as the model's word, and
`Truth` with a label as a person's. Both are JSON; whatever a newer format adds is optional.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from edge_agent.contract.errors import MessageError

Task = Literal["classification", "multilabel", "detection", "regression"]
TASKS: tuple[Task, ...] = get_args(Task)

NOTHING = "nothing"  # the outcome of a detector that finds no box: index C, after its classes
MOST = 300  # boxes, classes or values of one sample: more is a flood, and no person's answer
Index = Annotated[int, Meta(ge=0, lt=1 << 16)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class Box(msgspec.Struct, frozen=True, array_like=True):
    """A rectangle of an image, by the corners' place in it: 0 is its left or upper edge, 1 the right or lower one.

    score: how sure the model is of it, 0..1; 1 where a person drew it.
    """

    label: Index
    left: Share
    top: Share
    right: Share
    bottom: Share
    score: Share = 1.0

    def __post_init__(self) -> None:
        """ValueError (a decoding error, when it comes off the wire) unless it has an area."""
        if not (self.left < self.right and self.top < self.bottom):
            raise ValueError(
                f"box {self.left}, {self.top}, {self.right}, {self.bottom}: expected left < right and top < bottom"
            )


class Applies(msgspec.Struct, frozen=True, array_like=True):
    """A class that applies to a sample, with the probability that it does."""

    label: Index
    probability: Share = 1.0


class Value(msgspec.Struct, frozen=True, array_like=True):
    """A number for a target, in the target's unit. spread: its standard deviation by the model; 0 of a person."""

    label: Index
    value: float
    spread: Annotated[float, Meta(ge=0.0)] = 0.0


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model says of a sample beyond label and confidence; what does not concern its task is empty."""

    boxes: Annotated[tuple[Box, ...], Meta(max_length=MOST)] = ()
    applies: Annotated[tuple[Applies, ...], Meta(max_length=MOST)] = ()
    values: Annotated[tuple[Value, ...], Meta(max_length=MOST)] = ()


class Truth(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A label that is more than one class: exactly one of the three is given. No boxes: the image shows none."""

    boxes: Annotated[tuple[Box, ...], Meta(max_length=MOST)] | None = None
    applies: Annotated[tuple[Applies, ...], Meta(max_length=MOST)] | None = None
    values: Annotated[tuple[Value, ...], Meta(max_length=MOST)] | None = None

    def __post_init__(self) -> None:
        """ValueError unless it is of one task."""
        if sum(part is not None for part in (self.boxes, self.applies, self.values)) != 1:
            raise ValueError("truth: expected exactly one of boxes, applies and values")

    @property
    def task(self) -> Task:
        """Of which it is."""
        if self.boxes is not None:
            return "detection"
        return "multilabel" if self.applies is not None else "regression"


def truth_of(value: object) -> Truth:
    """A truth out of plain data, as the store and the API have it; MessageError when it is none.

    >>> truth_of({"boxes": [[0, 0.1, 0.1, 0.5, 0.9]]}).task
    'detection'
    """
    try:
        return msgspec.convert(value, Truth)
    except (msgspec.ValidationError, ValueError) as error:
        raise MessageError(f"truth: {error}") from error


def plain(what: Said | Truth) -> dict[str, object]:
    """The same as plain data."""
    found: dict[str, object] = msgspec.to_builtins(what)
    return found
