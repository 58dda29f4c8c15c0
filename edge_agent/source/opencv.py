"""How does OpenCV read a camera?"""

from __future__ import annotations

from typing import Any

from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.source import options as told
from edge_agent.source.frame import Picture

OPEN_S = 10.0  # longest wait for a network camera to answer
PIPELINE_HINT = "does `gst-launch-1.0` run it, and does it end in `appsink`?"


class OpenCv:
    """A camera, an address, a file or a pipeline, as cv2.VideoCapture knows them."""

    def __init__(self, cv2: Any, options: told.Camera, address: str, *, first: int = 0) -> None:
        """SourceError when it cannot be opened. `address`: with its secret, never told. `first`: frame of a file."""
        self._cv2 = cv2
        self._capture = cv2.VideoCapture(*_named(cv2, address, options.timeout_s))
        if not self._capture.isOpened():
            self._capture.release()
            hint = PIPELINE_HINT if options.is_a_pipeline else "is it there, and is it free?"
            raise SourceError(f"{options.device}: cannot be opened: {hint}")
        for key, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, options.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, options.height),
            (cv2.CAP_PROP_FPS, options.frames_per_s),
            (cv2.CAP_PROP_POS_FRAMES, first),
        ):
            if value:
                self._capture.set(key, value)

    def read(self) -> Picture | None:
        """The next frame; OpenCV waits for it."""
        found, picture = self._capture.read()
        if not found:
            return None
        if picture.ndim == 2 or picture.shape[2] == 1:
            grey: Picture = picture.reshape(picture.shape[:2])
            return grey
        turned: Picture = self._cv2.cvtColor(picture, self._cv2.COLOR_BGR2RGB)
        return turned

    def close(self) -> None:
        """Let others have it."""
        self._capture.release()


def _named(cv2: Any, device: str, timeout_s: float) -> tuple[Any, ...]:
    """What VideoCapture is made with."""
    if device.isdecimal():
        return (int(device),)
    if "!" in device:
        return device, cv2.CAP_GSTREAMER
    if "://" in device:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(OPEN_S * 1000)]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(timeout_s * 1000)]
        return device, cv2.CAP_FFMPEG, limits
    return (device,)


def load() -> Any:
    """The module; ConfigError when it is missing."""
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(
            f"[source] kind = 'camera' needs OpenCV: pip install 'winnow-edge[camera]' (import cv2 says: {error})"
        ) from error
    return cv2
