"""How does a camera become a source?

USB and network cameras and video files through OpenCV; a GStreamer pipeline through OpenCV in a process of its own; a
Raspberry Pi's own through picamera2. It is read as fast as it gives frames, so that none is old; `rate_per_s` takes
some of them. One that gives no frame for `timeout_s`, or the same one for `frozen_s`, is a SourceError: the agent opens
it again.

A sample's reference is the frame's time and size, and where a part of it, or a part of the model's input, was used,
which: "2026-11-26T18:40:01.123Z 640x480 640x480+0+0 320x240+0+40" (part of the picture, place in the input).
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol
from urllib.parse import quote

from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.contract.settings import read_secret
from edge_agent.source import IDLE_S, Counts, Fit, Start, opencv
from edge_agent.source import options as told
from edge_agent.source.frame import Frames, Picture
from edge_agent.source.live import Taken
from edge_agent.source.options import PICAMERA
from edge_agent.source.pipeline import Pipeline

RETRY_S = 0.01  # after a read that gave nothing
STEP = 8  # every so many rows and columns are looked at to tell whether a camera is frozen


class Driver(Protocol):
    """What reads a camera."""

    def read(self) -> Picture | None:
        """The next frame, (H, W, 3) RGB or (H, W) grey; None when there is none (yet)."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Camera:
    """The capture of a camera or a video file."""

    def __init__(
        self,
        options: told.Camera,
        *,
        fit: Fit,
        frame: told.Frame,
        rate_per_s: float = 0.0,
        counts: Counts,
        monotonic: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """ConfigError when OpenCV or picamera2 is missing, or the model takes no picture."""
        self._options = options
        self._address = _address(options)
        self._frames = Frames(fit, frame)
        self._rate_per_s = rate_per_s
        self._counts = counts
        self._monotonic = monotonic
        self._wall_s = wall_s
        self._cv2 = opencv.load()
        self._picamera = _picamera() if options.device == PICAMERA else None
        self.is_file = Path(options.device).is_file()

    def samples(self, start: Start) -> Iterator[Taken | None]:
        """Frames from now on; of a file, from frame `start.seq` to its end."""
        driver = self._open(start.seq)
        try:
            yield from self._read(driver)
        finally:
            driver.close()

    def _read(self, driver: Driver) -> Iterator[Taken | None]:
        last_s = due_s = self._monotonic()
        stillness = Stillness(self._options.frozen_s)
        while True:
            picture, now_s = driver.read(), self._monotonic()
            if picture is None:
                if self.is_file:
                    return
                if now_s - last_s > self._options.timeout_s:
                    raise SourceError(f"{self._options.device}: no frame for {now_s - last_s:.0f} s")
                yield None
                time.sleep(RETRY_S)
                continue
            last_s = now_s
            if stillness.is_frozen(picture, now_s):
                raise SourceError(f"{self._options.device}: the same frame for {self._options.frozen_s:.0f} s")
            if self._rate_per_s and not self.is_file:
                if now_s < due_s:
                    yield None
                    continue
                due_s = max(due_s + 1.0 / self._rate_per_s, now_s)
            yield Taken(self._frames.of(picture, self._scale), self._ref(picture))

    def _ref(self, picture: Picture) -> str:
        height, width = picture.shape[:2]
        at = datetime.fromtimestamp(self._wall_s(), timezone.utc).isoformat(timespec="milliseconds")
        placed = self._frames.placed(width, height)
        return f"{at.replace('+00:00', 'Z')} {width}x{height} {placed.part} {placed.place}"

    def _scale(self, picture: Picture, width: int, height: int) -> Picture:
        shrinks = width < picture.shape[1] and height < picture.shape[0]
        how = self._cv2.INTER_AREA if shrinks else self._cv2.INTER_LINEAR
        scaled: Picture = self._cv2.resize(picture, (width, height), interpolation=how)
        return scaled

    def _open(self, first: int) -> Driver:
        if self._picamera is not None:
            return PiCamera(self._picamera, self._options)
        if self._options.is_a_pipeline:
            return Pipeline(self._cv2, self._options, self._address)
        return opencv.OpenCv(self._cv2, self._options, self._address, first=first if self.is_file else 0)


class Stillness:
    """Whether a camera repeats itself. The noise of a sensor never does."""

    def __init__(self, frozen_s: float) -> None:
        """`frozen_s`: how long is frozen; 0: never."""
        self._frozen_s = frozen_s
        self._sum = -1
        self._since_s = 0.0

    def is_frozen(self, picture: Picture, now_s: float) -> bool:
        """To be told every frame."""
        if not self._frozen_s:
            return False
        found = zlib.crc32(picture[::STEP, ::STEP].tobytes())
        if found != self._sum:
            self._sum, self._since_s = found, now_s
        return now_s - self._since_s > self._frozen_s


def _address(options: told.Camera) -> str:
    """The device, with user and password where one is needed; ConfigError when they stand in it."""
    scheme, mark, rest = options.device.partition("://")
    if mark and "!" not in scheme and "@" in rest.partition("/")[0]:
        raise ConfigError("[source.camera] device holds a user or a password: set username and password_file")
    if not (mark and options.username):
        return options.device
    user = ":".join(quote(word, safe="") for word in (options.username, read_secret(options.password_file)) if word)
    return f"{scheme}://{user}@{rest}"


class PiCamera:
    """A Raspberry Pi's own camera.

    Whoever asks it for a frame and waits, waits for ever where the sensor's cable is loose; and so does whoever stops
    it while a frame is asked for. So it is asked, and looked whether it has answered; and closed, not stopped.
    """

    def __init__(self, picamera2: Any, options: told.Camera) -> None:
        """SourceError when there is none, or it is another's."""
        self._answers: SimpleQueue[Any] = SimpleQueue()  # picamera2's jobs that are done
        self._is_asked = False
        try:
            self._camera = picamera2()
        except (RuntimeError, IndexError) as error:
            raise _no_picamera(error) from error
        try:
            main: dict[str, Any] = {"format": "BGR888"}  # libcamera's name of RGB in memory
            if options.width and options.height:
                main["size"] = (options.width, options.height)
            controls = {"FrameRate": options.frames_per_s} if options.frames_per_s else {}
            self._camera.configure(self._camera.create_video_configuration(main=main, controls=controls))
            self._camera.start()
        except RuntimeError as error:
            self._camera.close()  # or nobody gets it until this process ends
            raise _no_picamera(error) from error

    def read(self) -> Picture | None:
        """The next frame, or None when it has not come within IDLE_S."""
        if not self._is_asked:
            self._camera.capture_array("main", signal_function=self._answers.put)
            self._is_asked = True
        try:
            job = self._answers.get(timeout=IDLE_S)
        except Empty:
            return None
        self._is_asked = False
        picture: Picture = job.get_result()
        return picture

    def close(self) -> None:
        """Let others have it."""
        self._camera.close()


def _no_picamera(error: Exception) -> SourceError:
    return SourceError(f"{PICAMERA}: {error}: is a camera connected, and free?")


def _picamera() -> Any:
    try:
        from picamera2 import Picamera2
    except ImportError as error:
        raise ConfigError(
            f"[source.camera] device = {PICAMERA!r}: not installed: sudo apt-get install python3-picamera2, "
            "and make the agent's environment with --system-site-packages"
        ) from error
    return Picamera2
