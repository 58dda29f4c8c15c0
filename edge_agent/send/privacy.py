"""What of a sample may leave the device?

Transforms take out what nobody may see before a sample is stored to be sent, or kept among the recent ones; the model
has seen it whole. They run in the threads of the writer and the ring, never in the loop's. Shape and dtype stay, so
that the server can train on what it gets, and the header says what was done:

    crop TOP LEFT HEIGHT WIDTH   what is outside becomes 0
    blur TOP LEFT HEIGHT WIDTH   that region becomes its own average over a half of its shorter side, twice
    downscale N                  every N x N pixels become their mean
    drop_channel N               channel N, counted from 0 along the last axis, becomes 0
    package.module:name          a function of one's own, array -> array

A sample that a transform fails on is sent blank, all zeros: it is neither shown as it is nor lost without a word.

What the model said of where things are goes through them as well: a crop cuts its boxes to what is kept, and drops
those of which nothing is left; with a blank sample all of them go. Blurred or coarser, a box stays where it is, and so
it does for a function of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import ConfigError, did_you_mean
from edge_agent.contract.settings import imported
from edge_agent.contract.task import Box, Said
from edge_agent.contract.wire import TRANSFORMS_MAX

Array = NDArray[Any]
Transform = Callable[[Array], Array]

BLANK = "blank"
_NAME_MAX = 120  # characters, of the wire


class Private(msgspec.Struct, frozen=True):
    """What may leave, and what was done to it; `sound` is False where it had to be blanked. said: of the model."""

    data: Array
    transforms: tuple[str, ...]
    sound: bool
    said: Said | None = None


class Privacy:
    """The transforms of a device, in their order. Safe from several threads, as far as plug-ins are."""

    def __init__(self, named: Sequence[str], *, report: Callable[[str], None] = lambda _: None) -> None:
        """ConfigError when one is unknown. `report` is told once of each kind of failure."""
        if len(named) > TRANSFORMS_MAX:
            raise ConfigError(f"[privacy] transforms: {len(named)} of them, expected {TRANSFORMS_MAX} at most")
        self.names = tuple(named)
        self._steps = [(name, _make(name)) for name in named]
        self._report = report
        self._reported: set[str] = set()

    def apply(self, data: Array, *, before: tuple[str, ...] = (), said: Said | None = None) -> Private:
        """What may leave of `data` and of what the model said of it.

        They went through the transforms `before` already; those of now are done once.
        """
        if before == self.names:
            return Private(data, before, True, said)
        seen = data.view()
        seen.flags.writeable = False  # it is the source's, and perhaps the model's yet
        done = (*before, *self.names)[:TRANSFORMS_MAX]
        for name, step in self._steps:
            seen, failure = _run(step, seen)
            if failure:
                self._complain(f"privacy: {name}: {failure}: such samples are sent blank")
                return Private(np.zeros_like(data), (*done[: TRANSFORMS_MAX - 1], BLANK), False)
            said = _cut(said, name, seen.shape)
        return Private(seen, done, True, said)

    def check(self, shape: tuple[int, ...], dtype: str) -> None:
        """ConfigError when a transform cannot deal with samples of that kind."""
        data = np.zeros(shape, dtype)
        for name, step in self._steps:
            data, failure = _run(step, data)
            if failure:
                raise ConfigError(f"[privacy] transforms: {name} on {shape} {dtype}: {failure}")

    def _complain(self, what: str) -> None:
        if what not in self._reported and len(self._reported) < TRANSFORMS_MAX:
            self._reported.add(what)
            self._report(what)


def _run(step: Transform, data: Array) -> tuple[Array, str]:
    """What came of it, and what is wrong with that; "": nothing."""
    try:
        found = np.asarray(step(data))
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything, and nothing may leave as it is then
        return data, f"{type(error).__name__}: {str(error)[:150]}"
    if (found.shape, found.dtype) != (data.shape, data.dtype):
        return data, f"gave {found.shape} {found.dtype}, expected {data.shape} {data.dtype}"
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        return data, "gave NaN or infinity"
    return found, ""


def _cut(said: Said | None, name: str, shape: tuple[int, ...]) -> Said | None:
    """The boxes within what a crop keeps; as they are, of any other transform."""
    word, *numbers = name.split()
    if said is None or not said.boxes or word != "crop":
        return said
    top, left, height, width = map(int, numbers)
    rows, columns = shape[:2]
    first, low, last, high = left / columns, top / rows, (left + width) / columns, (top + height) / rows
    boxes = []
    for box in said.boxes:
        x, y = max(box.left, first), max(box.top, low)
        right, bottom = min(box.right, last), min(box.bottom, high)
        if x < right and y < bottom:
            boxes.append(Box(box.label, x, y, right, bottom, box.score))
    return msgspec.structs.replace(said, boxes=tuple(boxes))


def _make(name: str) -> Transform:
    if len(name) > _NAME_MAX:
        raise ConfigError(f"[privacy] transforms: {name[:40]!r}...: expected {_NAME_MAX} characters at most")
    if ":" in name:
        plug_in: Transform = imported(name, where="[privacy] transforms:")
        return plug_in
    word, *numbers = name.split() or [""]
    if word not in _BUILT_IN:
        known = ", ".join(_BUILT_IN)
        raise ConfigError(f"[privacy] transforms: {name!r}: unknown{did_you_mean(word, _BUILT_IN)}; known: {known}")
    make, takes = _BUILT_IN[word]
    if len(numbers) != len(takes.split()) or not all(number.isdecimal() for number in numbers):
        raise ConfigError(f"[privacy] transforms: {name!r}: expected `{word} {takes}`, in whole numbers")
    return make(*map(int, numbers))


# --- built in; data: (H, W), (H, W, C), or for channels any array ---------------------------------------------------


def _crop(top: int, left: int, height: int, width: int) -> Transform:
    def crop(data: Array) -> Array:
        region = _region(data, top, left, height, width)
        kept: Array = np.zeros_like(data)
        kept[region] = data[region]
        return kept

    return crop


def _blur(top: int, left: int, height: int, width: int) -> Transform:
    reach = max(1, min(height, width) // 4)  # less, and a face can be made out again; more is nearly one colour

    def blur(data: Array) -> Array:
        region = _region(data, top, left, height, width)
        means = data[region].astype(np.float64)
        for axis in (0, 1, 0, 1):
            means = _running_mean(means, reach, axis)
        blurred: Array = data.copy()
        blurred[region] = _as(means, data.dtype)
        return blurred

    return blur


def _downscale(factor: int) -> Transform:
    if factor < 1:
        raise ConfigError("[privacy] transforms: downscale 0: expected 1 or more")

    def downscale(data: Array) -> Array:
        _region(data, 0, 0, 1, 1)
        means = data.astype(np.float64)
        for axis in (0, 1):
            starts = np.arange(0, data.shape[axis], factor)
            sizes = np.diff([*starts, data.shape[axis]])
            wide = [1] * data.ndim
            wide[axis] = len(sizes)
            means = np.repeat(np.add.reduceat(means, starts, axis=axis) / sizes.reshape(wide), sizes, axis=axis)
        return _as(means, data.dtype)

    return downscale


def _drop_channel(number: int) -> Transform:
    def drop_channel(data: Array) -> Array:
        if data.ndim < 2 or number >= data.shape[-1]:
            raise ValueError(f"samples {data.shape} have no channel {number} along their last axis")
        kept: Array = data.copy()
        kept[..., number] = 0
        return kept

    return drop_channel


_BUILT_IN: dict[str, tuple[Callable[..., Transform], str]] = {
    "crop": (_crop, "TOP LEFT HEIGHT WIDTH"),
    "blur": (_blur, "TOP LEFT HEIGHT WIDTH"),
    "downscale": (_downscale, "N"),
    "drop_channel": (_drop_channel, "N"),
}


def _region(data: Array, top: int, left: int, height: int, width: int) -> tuple[slice, slice]:
    inside = data.ndim in (2, 3) and height > 0 and width > 0
    if not inside or top + height > data.shape[0] or left + width > data.shape[1]:
        raise ValueError(f"samples {data.shape} have no region of {height} x {width} at ({top}, {left})")
    return slice(top, top + height), slice(left, left + width)


def _running_mean(values: NDArray[np.float64], reach: int, axis: int) -> NDArray[np.float64]:
    """Over `reach` on either side, fewer at the ends."""
    count = values.shape[axis]
    sums = np.cumsum(np.insert(values, 0, 0.0, axis=axis), axis=axis)
    low = np.maximum(np.arange(count) - reach, 0)
    high = np.minimum(np.arange(count) + reach + 1, count)
    sizes = (high - low).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    means: NDArray[np.float64] = (np.take(sums, high, axis=axis) - np.take(sums, low, axis=axis)) / sizes
    return means


def _as(values: NDArray[np.float64], dtype: np.dtype[Any]) -> Array:
    return (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)
