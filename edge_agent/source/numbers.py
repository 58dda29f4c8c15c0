"""How does text hold numbers?

A line is CSV (separated by commas, semicolons or blanks) or JSON (a number, a list, a list of lists, an object).

    0.1, 0.2, 9.8                          one step of three channels
    {"imu": {"x": 0.1, "y": 0.2}}          by name: fields = ["imu.x", "imu.y"]
    [[0.1, 0.2], [0.1, 0.3]]               two steps of two channels
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.source.options import Lines

SEPARATOR = re.compile(r"\s*[,;]\s*|\s+")
SHOWN = 60  # characters of a line that an error quotes
NOTHING = object()

Steps = NDArray[np.float64]


class Numbers:
    """Reads lines of one sensor; the first line of CSV may be names."""

    def __init__(self, lines: Lines, *, channels: int, dtype: str) -> None:
        """`channels`: values of a step. `dtype`: of the model; a whole number that it cannot hold is refused."""
        self._fields = lines.fields
        self._columns = list(lines.columns)
        self._channels = channels
        self._limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
        self._first = True  # no line has come

    def steps(self, text: str) -> Steps:
        """(n, channels) that a line holds, n = 0 for a blank one and for names; ValueError says what is wrong."""
        text = text.strip()
        if not text:
            return self._none()
        first, self._first = self._first, False
        found = self._json(text) if text[0] in "[{" else self._csv(text, first=first)
        self.check_held(found, _shown(text))
        return found

    def check_held(self, found: NDArray[Any], shown: str) -> None:
        """ValueError when the model takes whole numbers, and cannot hold these. `shown`: what they came in."""
        if self._limits is None:
            return
        low, high = self._limits.min, self._limits.max
        if not ((found >= low) & (found <= high) & (found == np.rint(found))).all():
            raise ValueError(f"{shown}: the model takes whole numbers from {low} to {high}")

    def _csv(self, text: str, *, first: bool) -> Steps:
        words = SEPARATOR.split(text.rstrip(" ,;"))  # many a sensor ends each number with a comma
        try:
            values = [float(word) for word in words]
        except ValueError:
            if first:
                return self._names(words)
            raise ValueError(f"{_shown(text)}: not numbers") from None
        return self._shaped(np.array(values), text)

    def _names(self, words: list[str]) -> Steps:
        missing = [name for name in self._fields if name not in words]
        if missing:
            raise ValueError(f"[source.lines] fields: no {', '.join(missing)} among the names {', '.join(words)[:200]}")
        if self._fields:
            self._columns = [words.index(name) for name in self._fields]
        return self._none()

    def _json(self, text: str) -> Steps:
        try:
            value = msgspec.json.decode(text)
            if isinstance(value, dict):
                value = self._picked(value)
            return self._shaped(np.array(value, np.float64), text)
        except (msgspec.DecodeError, TypeError, RecursionError) as error:
            raise ValueError(f"{_shown(text)}: {error}") from error

    def _picked(self, value: dict[str, Any]) -> Any:
        """(channels,), or (n, channels) where each field holds n numbers."""
        if not self._fields:
            keys = ", ".join(list(value)[:10])
            raise ValueError(f"an object with {keys or 'nothing'}: name what to take in [source.lines] fields")
        found = [_inside(value, name) for name in self._fields]
        missing = [name for name, one in zip(self._fields, found, strict=True) if one is NOTHING]
        if missing:
            raise ValueError(f"no field {', '.join(missing)}, only {', '.join(list(value)[:10])}")
        return np.array(found, np.float64).T

    def _shaped(self, found: Steps, text: str) -> Steps:
        named = self._columns and not (self._fields and text[0] == "{")
        if named and found.ndim and max(self._columns) < found.shape[-1]:
            found = found[..., self._columns]
        if found.ndim == 1 and self._channels == 1:
            found = found[:, None]
        steps = found.reshape(1, -1) if found.ndim < 2 else found
        if steps.ndim != 2 or steps.shape[1] != self._channels:
            raise ValueError(f"{_shown(text)}: values of shape {found.shape}, expected {self._channels} to a step")
        return steps

    def _none(self) -> Steps:
        return np.empty((0, self._channels))


def _inside(value: Any, name: str) -> Any:
    """`a.b` of {"a": {"b": 1}}, or NOTHING; a key that has the whole name goes before."""
    if isinstance(value, dict):
        if name in value:
            return value[name]
        head, _, rest = name.partition(".")
        if rest and head in value:
            return _inside(value[head], rest)
    return NOTHING


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")
