"""How do recorded voices get here: sound as a microphone gives it, of a known kind?

What an exchange of telephones says, in five languages, by Debian's packages asterisk-core-sounds-*-wav (CC BY-SA 3.0 by
the speakers, the Russian ones CC BY 3.0): real people in a studio, 8 kHz, 16 bits, some 350 prompts of a second or more
each. English and Spanish are spoken by one person, so the voice alone does not tell.
"""

from __future__ import annotations

import tempfile
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import debian
from models.errors import DataError

NAMES = ("English", "Spanish", "French", "Italian", "Russian")
CODES = ("en", "es", "fr", "it", "ru")
RATE, STEPS = 8_000, 8_000  # Hz; of a window: the first second of a prompt, so that no two share a sound
SOUNDS = "usr/share/asterisk/sounds"


def fetch(file: Path, *, say: Callable[[str], None]) -> None:
    """Write x (N, 8000) int16, y (N,) and names as .npz; DataError when a package cannot be had."""
    x: list[NDArray[np.int16]] = []
    y: list[int] = []
    with tempfile.TemporaryDirectory(prefix="winnow-") as temporary:  # one: apt's lists are fetched into it once
        for label, code in enumerate(CODES):
            say(f"voices: Debian package asterisk-core-sounds-{code}-wav")
            root = debian.unpacked(f"asterisk-core-sounds-{code}-wav", Path(temporary))
            found = [_first_second(path) for path in sorted((root / SOUNDS).glob(f"{code}_*/**/*.wav"))]
            x += [window for window in found if window is not None]
            y += [label] * (len(x) - len(y))
            if y.count(label) == 0:
                wanted = f"no .wav of {RATE} Hz and a second or more in {SOUNDS}"
                raise DataError(f"asterisk-core-sounds-{code}-wav: {wanted}")
    np.savez_compressed(file, x=np.stack(x), y=np.array(y, np.int64), names=np.array(NAMES))


def _first_second(path: Path) -> NDArray[np.int16] | None:
    with wave.open(str(path), "rb") as file:
        if (file.getframerate(), file.getsampwidth(), file.getnchannels()) != (RATE, 2, 1) or file.getnframes() < STEPS:
            return None
        return np.frombuffer(file.readframes(STEPS), "<i2").astype(np.int16)
