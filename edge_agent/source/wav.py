"""How does a recording of sound play as if it happened now?

A .wav of 16 bits, window by window. The reference of a window is `<file stem>:<its first step>`; it goes on where it
was left, so a restart repeats nothing.
"""

from __future__ import annotations

import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_agent.contract.errors import SourceError
from edge_agent.contract.types import Reading
from edge_agent.source import Fit, Start, pcm
from edge_agent.source.options import Window
from edge_agent.source.replay import paced
from edge_agent.source.window import plan


class Wav:
    """Plays one file."""

    def __init__(
        self,
        path: Path,
        *,
        fit: Fit,
        window: Window,
        rate_per_s: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """ConfigError when the model takes no windows of sound, SourceError when the file is none that fits it.

        `rate_per_s`: windows a second; 0: as fast as they are taken.
        """
        pcm.check_takes_sound(fit)
        self._path = path
        self._cut = plan(window, fit)
        self._rate_per_s = rate_per_s
        self._monotonic, self._sleep = monotonic, sleep
        try:
            with wave.open(str(path), "rb") as file:
                found, self._length = file.getparams(), file.getnframes()
        except (OSError, wave.Error, EOFError) as error:
            raise SourceError(f"{path}: {error}: expected a .wav") from error
        if found.sampwidth != pcm.BYTES or found.nchannels != self._cut.channels:
            raise SourceError(
                f"{path}: {8 * found.sampwidth} bits, {found.nchannels} channels: expected 16 bits and "
                f"{self._cut.channels}, as the model takes {fit.shape}"
            )
        if window.rate_per_s and window.rate_per_s != found.framerate:
            raise SourceError(f"{path}: {found.framerate} steps a second, [source.window] says {window.rate_per_s:g}")

    def readings(self, start: Start) -> Iterator[Reading | None]:
        """Windows from number `start.seq` on, to the last whole one."""
        cut = self._cut
        rows = range(start.seq, max(0, (self._length - cut.size) // cut.hop + 1))
        with wave.open(str(self._path), "rb") as file:
            for row in paced(rows, rate_per_s=self._rate_per_s, monotonic=self._monotonic, sleep=self._sleep):
                if row is None:
                    yield None
                    continue
                file.setpos(row * cut.hop)
                sound = pcm.steps(file.readframes(cut.size), channels=cut.channels, fit=cut.fit)
                yield Reading(cut.arrange(sound), row, f"{self._path.stem}:{row * cut.hop}")
