"""How does a microphone become a source?

Through `arecord` of alsa-utils, a process of its own that writes 16 bits into a pipe. Where it lost some, because the
pipe was full, it says so, and that counts as a gap.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.source import Counts, Fit, Start, pcm
from edge_agent.source import options as told
from edge_agent.source.live import Taken
from edge_agent.source.program import Program
from edge_agent.source.window import Windows, plan

PROGRAM = "arecord"
LOST = b"overrun"  # what it says where it lost some


class Mic:
    """The capture of a microphone."""

    def __init__(self, options: told.Mic, *, fit: Fit, window: told.Window, counts: Counts) -> None:
        """ConfigError when arecord is missing, there is no rate, or the model takes no windows of sound."""
        pcm.check_takes_sound(fit)
        program = shutil.which(PROGRAM)
        if program is None:
            raise ConfigError(f"[source] kind = 'mic' needs {PROGRAM}: sudo apt-get install alsa-utils")
        if not window.rate_per_s:
            raise ConfigError("[source.window] rate_per_s: expected the rate to record at, such as 16000")
        self._cut = plan(window, fit)
        self._counts = counts
        self._device = options.device
        rate, channels = f"{window.rate_per_s:.0f}", str(self._cut.channels)
        self._argv = [program, "-q", "-D", options.device, "-t", "raw", "-f", "S16_LE", "-r", rate, "-c", channels]

    def samples(self, _start: Start) -> Iterator[Taken | None]:
        """Windows of what is heard from now on."""
        program = Program(self._argv, env={**os.environ, "LC_ALL": "C"})  # or it says LOST in the machine's language
        try:
            yield from self._heard(program)
        finally:
            program.close()
        raise SourceError(f"{self._device}: {(program.said or [f'{PROGRAM} ended'])[-1]}")

    def _heard(self, program: Program) -> Iterator[Taken | None]:
        """Of what comes with the word that some was lost, nobody knows on which side of the loss it is."""
        windows, rest = Windows(self._cut, self._counts), b""
        step_bytes = pcm.BYTES * self._cut.channels
        for data, said in program.pieces():
            whole = len(rest + data) // step_bytes * step_bytes
            sound, rest = (rest + data)[:whole], (rest + data)[whole:]
            if LOST in said:
                self._counts.gaps += said.count(LOST)
                windows = Windows(self._cut, self._counts)
            elif data:
                for window in windows.add(pcm.steps(sound, channels=self._cut.channels, fit=self._cut.fit)):
                    yield Taken(window)
                continue
            yield None
