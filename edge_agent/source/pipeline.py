"""How does a GStreamer pipeline become pictures?

OpenCV waits for the next frame of one without an end, and nothing wakes it; a plug-in of a vendor's that crashes takes
its process along. So OpenCV runs it in a child, `python -m edge_agent.source.pipeline`, which can be killed and started
again, and lets go of the camera by that:

    agent   ->  stdin: what to open, a line of JSON. When stdin ends, so does the child
    child   ->  stdout: frames, each HEAD and height * width * channels bytes; an empty one before it opens the pipeline
                stderr: what OpenCV and GStreamer say; the last lines are why it ended
"""

from __future__ import annotations

import os
import re
import struct
import sys
import threading
import time
from typing import Any, BinaryIO

import msgspec
import numpy as np

from edge_agent.contract.errors import SourceError
from edge_agent.source import opencv
from edge_agent.source import options as told
from edge_agent.source.frame import Picture
from edge_agent.source.program import Program

HEAD = struct.Struct("<III")  # height, width, channels: 3, or 1 of a grey picture
REASON = re.compile(r"module \S+ reported: .*")  # GStreamer's own, in what OpenCV says
START_S = 60.0  # for a child to import OpenCV, on a slow and busy board: no time of the camera's
LET_GO_S = 1.0  # for a child to close its pipeline once its stdin has ended; one that hangs does not


class Asked(msgspec.Struct, frozen=True):
    """What the child is told. address: the device, with its secret, which no list of processes shows."""

    address: str
    options: told.Camera


class Pipeline:
    """A driver of the camera: the agent's side."""

    def __init__(self, cv2: Any, options: told.Camera, address: str) -> None:
        """SourceError where OpenCV has no GStreamer, or does not start. What the pipeline lacks, `read` says."""
        self._device = options.device
        if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            why = "this OpenCV has no GStreamer (that of pip has none): use the one of JetPack, or apt's python3-opencv"
            raise SourceError(f"{self._device}: cannot be opened: {why}")
        asked = msgspec.json.encode(Asked(address, options)) + b"\n"
        self._child = Program([sys.executable, "-m", "edge_agent.source.pipeline"], told=asked)
        self._pieces = self._child.pieces()
        self._come = bytearray()
        try:
            self._wait_for_start()
        except BaseException:
            self.close()
            raise

    def _wait_for_start(self) -> None:
        until_s = time.monotonic() + START_S
        while self.read() is None:
            if time.monotonic() > until_s:
                raise SourceError(f"{self._device}: its process did not start within {START_S:.0f} s")

    def read(self) -> Picture | None:
        """The next frame, or None when it has not come within IDLE_S. SourceError when the pipeline has ended."""
        while (picture := self._whole()) is None:
            try:
                data, said = next(self._pieces)
            except StopIteration:
                raise SourceError(f"{self._device}: {self._last_words()}") from None
            if not (data or said):
                return None
            self._come += data
        return picture

    def close(self) -> None:
        """End the child, and let others have the camera."""
        self._child.close()

    def _whole(self) -> Picture | None:
        """The frame that has come whole, taken out of what has come."""
        if len(self._come) < HEAD.size:
            return None
        height, width, channels = HEAD.unpack_from(self._come)
        end = HEAD.size + height * width * channels
        if len(self._come) < end:
            return None
        picture = np.frombuffer(bytes(self._come[HEAD.size : end]), np.uint8)
        del self._come[:end]
        return picture.reshape((height, width) if channels == 1 else (height, width, channels))

    def _last_words(self) -> str:
        said = self._child.said
        killed, last = self._child.killed_by(), (said or ["it said nothing"])[-1]
        reason = next((found[0] for line in reversed(said) if (found := REASON.search(line))), "")
        return (f"its process was killed by {killed}: " if killed else "") + last + (f" ({reason})" if reason else "")


def main() -> None:
    """The child's side."""
    frames = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # some plug-ins print
    stdin = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - as long as the process
    asked = msgspec.json.decode(stdin.readline(), type=Asked)
    ending = threading.Event()
    threading.Thread(target=_end_with, args=(stdin, ending), daemon=True).start()
    try:
        cv2 = opencv.load()
        frames.write(HEAD.pack(0, 0, 0))
        driver = opencv.OpenCv(cv2, asked.options, asked.address)
        while (picture := driver.read()) is not None and not ending.is_set():
            _send(picture, frames)
        driver.close()
    except SourceError as error:
        sys.exit(str(error).removeprefix(f"{asked.options.device}: "))
    except BrokenPipeError:
        return  # the agent closed it
    sys.exit("the pipeline ended")


def _end_with(stdin: BinaryIO, ending: threading.Event) -> None:
    """Nobody else ends a child that hangs when its agent was killed: it would keep the camera."""
    stdin.read(1)
    ending.set()
    time.sleep(LET_GO_S)
    os._exit(1)


def _send(picture: Picture, frames: BinaryIO) -> None:
    if picture.dtype != np.uint8:
        raise SourceError(f"frames of {picture.dtype}: put `videoconvert ! video/x-raw,format=BGR` before appsink")
    height, width, *channels = picture.shape
    frames.write(HEAD.pack(height, width, *(channels or [1])))
    whole = memoryview(picture.tobytes())
    while whole:
        whole = whole[frames.write(whole) :]


if __name__ == "__main__":
    main()
