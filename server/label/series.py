"""How is a recording drawn and played?

As numbers for a chart, each channel thinned out so that no peak is lost: of every slice its lowest and its highest
value. As a WAV file (RIFF, 16 bits), loudest at full scale. What its channels are called and how fast they were read,
the unit in the manifest of the model that chose it says, where it does: "g, deg/s at 50 Hz". Pure.
"""

from __future__ import annotations

import io
import re
import wave
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.images import KINDS
from server.label.picture import is_image

Kind = Literal["image", "sound", "series"]
SOUND_FROM = 4000  # values in one or two channels: fewer are a quarter of a second at most
CHANNELS = 12  # drawn; more are not told apart
RATE_HZ = 16_000  # to play at, where nobody says
RATES_HZ = (1_000, 384_000)
_AT = re.compile(r"\bat ([0-9.]+) ?(k?)Hz\b")


class Series(NamedTuple):
    """A chart: at (N,), and of each channel (N,); None where it is not finite."""

    at: list[float]  # s where the rate is known, else the number of the reading
    values: list[list[float | None]]
    names: list[str]
    rate_hz: float | None
    length: int  # readings
    channels: int  # more than CHANNELS are not drawn


def kind_of(shape: Sequence[int], dtype: str, encoding: str) -> Kind:
    """How a sample is shown.

    >>> kind_of((28, 28), "uint8", "zlib"), kind_of((16000,), "float32", "raw"), kind_of((128, 6), "float32", "raw")
    ('image', 'sound', 'series')
    """
    if encoding in KINDS or is_image(shape, dtype):
        return "image"
    mono = len(shape) == 1 or (len(shape) == 2 and shape[1] in (1, 2))
    return "sound" if mono and shape[0] >= SOUND_FROM and dtype != "uint8" else "series"


def rate_of(unit: str) -> float | None:
    """Readings a second, by the unit of a model's input.

    >>> rate_of("g, deg/s at 50 Hz"), rate_of("PCM at 16 kHz"), rate_of("grey level")
    (50.0, 16000.0, None)
    """
    found = _AT.search(unit)
    try:
        rate = float(found[1]) * (1000.0 if found[2] else 1.0) if found else 0.0
    except ValueError:  # "1.2.3"
        rate = 0.0
    return rate or None


def names_of(unit: str, channels: int) -> list[str]:
    """What each channel is called: by its unit, where that names as many, else by its number.

    >>> names_of("g, deg/s at 50 Hz", 2), names_of("g", 2)
    (['g', 'deg/s'], ['channel 1', 'channel 2'])
    """
    said = [part.strip() for part in _AT.sub("", unit).split(",") if part.strip()]
    return said if len(said) == channels else [f"channel {n}" for n in range(1, channels + 1)]


def drawn(array: NDArray[Any], *, points: int, unit: str = "") -> Series:
    """The chart of (T,), (T, C) or what is folded into that, of at most about `points` readings a channel."""
    whole = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
    table = whole[:, :CHANNELS].astype(np.float64)
    rows = np.arange(len(table)) if len(table) <= points else _telling(table, points // (2 * table.shape[1]))
    rate = rate_of(unit)
    values = [[float(v) if np.isfinite(v) else None for v in table[rows, c]] for c in range(table.shape[1])]
    names = names_of(unit, whole.shape[1])[:CHANNELS]
    at = (rows / rate if rate else rows).tolist()
    return Series(at, values, names, rate, len(whole), whole.shape[1])


def _telling(table: NDArray[np.float64], slices: int) -> NDArray[np.intp]:
    """Rows of the lowest and the highest value of each channel in each slice."""
    edges = np.linspace(0, len(table), max(2, slices) + 1).astype(int)
    finite = np.nan_to_num(table)
    picked = [0, len(table) - 1]
    for low, high in pairwise(edges.tolist()):
        if high > low:
            part = finite[low:high]
            picked += [*(low + part.argmin(axis=0)), *(low + part.argmax(axis=0))]
    return np.unique(picked).astype(np.intp)


def wav(array: NDArray[Any], *, rate_hz: int) -> bytes:
    """A file that a browser plays, of (T,) or (T, 1|2)."""
    table = array.reshape(len(array), -1).astype(np.float64)
    table = np.nan_to_num(table - np.nan_to_num(table).mean(axis=0))
    loudest = float(np.abs(table).max()) or 1.0
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(table.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((table * (32767.0 / loudest)).astype("<i2").tobytes())
    return out.getvalue()
