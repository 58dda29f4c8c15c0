"""What does a training say of itself while it goes on?

How far it is, for people, and after each epoch a point of its curve. `Progress` is who listens: a trainer of any kind
calls it as often as it likes, and is not held up by it.
"""

from __future__ import annotations

import operator
from typing import Protocol

import msgspec

from models.errors import DataError


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What is known after an epoch, or whatever a trainer takes for one; None: it does not know."""

    epoch: int  # 1, 2 ...
    loss: float | None = None  # mean over the epoch of what is minimised, on what is learned from
    held_loss: float | None = None  # on what is kept back; ours: mean negative log likelihood, nats
    held_accuracy: float | None = None  # on the same, 0..1
    learning_rate: float | None = None  # in force when it ended

    def plain(self) -> Point:
        """The same in Python's own numbers, whatever a library counts in.

        Raises:
            DataError: something in it is no number, or the epoch is not 1 or more.
        """
        try:
            epoch = operator.index(self.epoch)
            figures = {name: _number(getattr(self, name)) for name in FIGURES}
        except (TypeError, ValueError) as error:
            raise DataError(f"progress: {self!r}: {error}; expected a whole epoch and numbers, or None") from error
        if epoch < 1:
            raise DataError(f"progress: epoch {epoch}, expected 1 for the first")
        return Point(epoch=epoch, **figures)


FIGURES = ("loss", "held_loss", "held_accuracy", "learning_rate")


class Progress(Protocol):
    """Who listens to a training."""

    def __call__(self, share: float, text: str, point: Point | None = None, /) -> None:
        """`share`: done so far, 0..1. `text`: a line for people. `point`: of the curve, if there is one.

        Raises:
            DataError: the point is none.
        """


def checked(point: object) -> Point:
    """The point that a trainer gave; DataError when it is none."""
    if not isinstance(point, Point):
        raise DataError(f"progress: the point is {type(point).__name__}, expected models.curve.Point")
    return point.plain()


def _number(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]  # that is what is found out
