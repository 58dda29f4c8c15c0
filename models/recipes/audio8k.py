"""Which net learns from sound of a telephone or a cheap microphone?"""

from __future__ import annotations

from models.net import Parts, Shape
from models.recipes.audio import audio


def audio8k(shape: Shape) -> Parts:
    """As `audio`, at 8 kHz."""
    return audio(shape, rate_hz=8_000)
