"""How do values in a row become samples?

    steps    0 1 2 3 4 5 6 7 8 9       one step: the values of all channels at one time
    size 4   [-----] [-----]           hop 4
             [-----]                   hop 2: windows overlap by half
                 [-----]
                     [-----]

Whatever pieces the steps come in, the windows are the same. After a pause of the sensor a new window begins: one that
spans it would show the model something that never was.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import ConfigError
from edge_agent.source import Counts, Fit
from edge_agent.source.options import Window


class Cut(NamedTuple):
    """What windows a model takes. size: steps. channels: values of a step. hop: steps to the next window."""

    size: int
    channels: int
    hop: int
    channels_first: bool
    pause_s: float  # after which a new window begins; 0: never
    fit: Fit

    def arrange(self, steps: NDArray[np.generic]) -> NDArray[np.generic]:
        """(size, channels) as the model takes it, copied."""
        turned = steps.T if self.channels_first else steps
        return turned.astype(self.fit.dtype).reshape(self.fit.shape)


def plan(window: Window, fit: Fit) -> Cut:
    """How to cut for a model; ConfigError when its input is no window of that size.

    >>> plan(Window(), Fit((128, 6), "float32"))[:3]
    (128, 6, 128)
    >>> plan(Window(size=1), Fit((9,), "float32"))[:3]
    (1, 9, 1)
    """
    values = int(np.prod(fit.shape))
    size = window.size or _size(window, fit)
    if values % size:
        raise ConfigError(f"[source.window] size = {size}: the model takes {fit.shape}, {values} values: no multiple")
    pause_s = window.gap_steps / window.rate_per_s if window.rate_per_s else 0.0
    return Cut(size, values // size, window.hop or size, window.channels_first, pause_s, fit)


def _size(window: Window, fit: Fit) -> int:
    """Steps by the model's own shape; axes of length 1 do not count."""
    axes = [length for length in fit.shape if length != 1] or [1]
    if len(axes) > 2:
        raise ConfigError(
            f"[source.window] size: the model takes {fit.shape}: expected (T,) or (T, channels); "
            "say how many steps are one sample"
        )
    return axes[-1] if window.channels_first else axes[0]


class Windows:
    """Cuts one row of steps."""

    def __init__(self, cut: Cut, counts: Counts) -> None:
        """`counts.gaps` goes up with every pause."""
        self._cut = cut
        self._counts = counts
        self._held: list[NDArray[np.generic]] = []
        self._steps = 0  # held
        self._pass = 0  # steps to pass over before the next window, where hop is larger than size
        self._begun = False

    def add(self, steps: NDArray[np.generic], *, waited_s: float = 0.0) -> list[NDArray[np.generic]]:
        """Windows that are full with these (n, channels), which came after a wait for the sensor of `waited_s`.

        The wait is for the sensor alone, not for room in a feed, which is our own doing.
        """
        cut = self._cut
        if self._begun and cut.pause_s and waited_s > cut.pause_s:
            self._counts.gaps += 1
            self._held, self._steps, self._pass = [], 0, 0
        self._begun = self._begun or len(steps) > 0
        passed = min(self._pass, len(steps))
        self._pass -= passed
        self._held.append(steps[passed:])
        self._steps += len(steps) - passed
        if self._steps < cut.size:
            return []
        held = np.concatenate(self._held)
        starts = range(0, len(held) - cut.size + 1, cut.hop)
        at = len(starts) * cut.hop
        self._pass = max(0, at - len(held))
        self._held, self._steps = [held[at:]], max(0, len(held) - at)
        return [cut.arrange(held[start : start + cut.size]) for start in starts]
