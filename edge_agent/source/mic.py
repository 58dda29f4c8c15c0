"""How does a microphone become a source?

Through `arecord` of alsa-utils, a process of its own that writes 16 bits into a pipe. Where it lost some, because the
pipe was full, it says so, and that counts as a gap.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from collections.abc import Iterator

from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.source import IDLE_S, Counts, Fit, Start, pcm
from edge_agent.source import options as told
from edge_agent.source.live import Taken
from edge_agent.source.window import Windows, plan

PROGRAM = "arecord"
READ_BYTES = 65_536  # as much as a pipe holds
STOP_S = 2.0
SAID_BYTES = 1000  # of what it says, kept for its last words
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
        windows, rest = Windows(self._cut, self._counts), b""
        step_bytes = pcm.BYTES * self._cut.channels
        with self._open() as process:
            try:
                for data, is_lost in self._pieces(process):
                    whole = len(rest + data) // step_bytes * step_bytes
                    sound, rest = (rest + data)[:whole], (rest + data)[whole:]
                    if is_lost:
                        windows = Windows(self._cut, self._counts)
                    if is_lost or not data:
                        yield None
                        continue
                    for window in windows.add(pcm.steps(sound, channels=self._cut.channels, fit=self._cut.fit)):
                        yield Taken(window)
            finally:
                process.terminate()
                _wait(process)

    def _open(self) -> subprocess.Popen[bytes]:
        english = {**os.environ, "LC_ALL": "C"}  # or it says LOST in the language of the machine
        return subprocess.Popen(self._argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env=english)

    def _pieces(self, process: subprocess.Popen[bytes]) -> Iterator[tuple[bytes, bool]]:
        """What comes, b"" for a silence of the pipe, and whether it may be of both sides of a loss.

        That is what stands in the pipe when the program says so: it wrote all of before by then. SourceError when the
        program ends.
        """
        out, says = (pipe.fileno() for pipe in (process.stdout, process.stderr) if pipe is not None)
        open_pipes, last_words = [out, says], b""
        while True:
            ready = select.select(open_pipes, [], [], IDLE_S)[0]
            if says in ready:
                said = os.read(says, READ_BYTES)
                last_words = (last_words + said)[-SAID_BYTES:]
                if not said:
                    open_pipes.remove(says)
                if LOST in said:
                    self._counts.gaps += said.count(LOST)
                    yield (os.read(out, READ_BYTES) if out in ready else b""), True
            elif out in ready:  # after what it says, so that its last words are known
                data = os.read(out, READ_BYTES)
                if not data:
                    why = last_words.decode("utf-8", "replace").strip() or f"{PROGRAM} ended"
                    raise SourceError(f"{self._device}: {why.splitlines()[-1]}")
                yield data, False
            else:
                yield b"", False


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
