"""How far is a training, and who hears of it?

Lines go to the log, now and then an event to the fleet's, and every point of the curve to the store: in groups, so that
a training of many short epochs is not held up by a disk.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from server.store.curves import CurvePoint

if TYPE_CHECKING:
    from models.curve import Point

SAY_S = 5.0  # between two lines of progress: a short training would fill the log otherwise
EVENT_S = 60.0  # between two events, which are kept
KEEP_S = 1.0  # between two groups of points: as often as pages look
POINTS_MAX = 10_000  # of a training: a trainer that tells of every step of a long one would fill the store

Say = Callable[[str], None]


def nobody(*_: object) -> None:
    """Hears nothing."""


class Progress:
    """Tells how far a training is and how long it still takes, by the wall clock."""

    def __init__(
        self,
        say: Say,
        *,
        event: Callable[[str, Mapping[str, Any]], None] = nobody,
        keep: Callable[[Sequence[CurvePoint]], None] = nobody,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Who is told.

        Args:
            say: what is done, a line.
            event: how far it is, seldom: a line, and the same in numbers.
            keep: points of the curve, in order.
            clock: seconds.
        """
        self._say, self._event, self._keep, self._clock = say, event, keep, clock
        self._first: tuple[float, float] | None = None  # share and time: a resumed training does not begin at 0
        self._share = 0.0  # as of the last call
        self._points: list[CurvePoint] = []  # not kept yet
        self._taken = 0
        self._begun_s = self._said_s = self._told_s = self._kept_s = clock()

    def __call__(self, share: float, text: str, point: Point | None = None, /) -> None:
        """Say it, unless the last line is fresh; the end is always said. DataError: the point is none."""
        now_s = self._clock()
        if self._first is None or share < self._share:  # it begins, or begins again from a checkpoint
            self._first = (share, now_s)
        first, self._share = self._first, share
        rate = (share - first[0]) / (now_s - first[1]) if now_s > first[1] else 0.0
        left_s = (1.0 - share) / rate if rate > 0.0 else None
        line = f"{text} ({share:.0%}" + (f", {left_s:.0f} s left)" if left_s else ")")
        if share >= 1.0 or first[1] == now_s or now_s - self._said_s >= SAY_S:
            self._said_s = now_s
            self._say(line)
        if now_s - self._told_s >= EVENT_S:
            self._told_s = now_s
            self._event(line, {"share": share, "left_s": left_s})
        if point is not None:
            self._take(point, now_s)

    def close(self) -> None:
        """Keep what is not kept yet; of a training that fails too."""
        if self._points:
            self._keep(self._points)
            self._points = []

    def _take(self, point: Point, now_s: float) -> None:
        from models.curve import checked

        plain = checked(point)
        self._taken += 1
        if self._taken > POINTS_MAX:
            if self._taken == POINTS_MAX + 1:
                self._say(f"the curve ends here: {POINTS_MAX} points of one training are kept")
            return
        self._points.append(_kept(plain, round(now_s - self._begun_s, 3)))
        if len(self._points) == self._taken or now_s - self._kept_s >= KEEP_S:  # the first at once: it is looked for
            self._kept_s = now_s
            self.close()


def _kept(point: Point, seconds: float) -> CurvePoint:
    """A loss that ran away is left out: its epoch is not."""
    held = _finite(point.held_loss), _finite(point.held_accuracy)
    return CurvePoint(point.epoch, _finite(point.loss), *held, _finite(point.learning_rate), seconds)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
