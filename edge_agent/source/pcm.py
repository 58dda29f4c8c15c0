"""How does sound become what a model takes?

16 bits, as nearly every file and microphone has them: as they are for a model of int16, over 32768 for one of floats,
so that they lie in -1 to 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import ConfigError
from edge_agent.source import Fit

FULL_SCALE = 32_768.0
BYTES = 2


def check_takes_sound(fit: Fit) -> None:
    """ConfigError when the model's numbers cannot hold sound."""
    if fit.dtype != "int16" and np.dtype(fit.dtype).kind != "f":
        raise ConfigError(f"[source] sound of 16 bits: the model takes {fit.dtype}, expected int16 or floats")


def steps(data: bytes, *, channels: int, fit: Fit) -> NDArray[np.generic]:
    """(n, channels) of little-endian bytes, in the model's numbers."""
    sound: NDArray[np.int16] = np.frombuffer(data, "<i2").reshape(-1, channels)
    return sound if fit.dtype == "int16" else (sound / np.float32(FULL_SCALE)).astype(fit.dtype)
