"""Do a video file and a network camera become samples? Through OpenCV, and a camera that serves motion JPEG."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.contract.types import Reading
from edge_agent.source import Counts, Fit, Source, Start
from edge_agent.source import options as told
from edge_agent.source.camera import Stillness
from edge_agent.source.kinds import open_source
from edge_agent.testing import check_source

cv2 = pytest.importorskip("cv2")

FIT = Fit((24, 32, 3), "uint8")
WAIT_S = 20.0


def grey_of(frame: np.ndarray) -> int:
    return round(float(frame.mean()))


def video(path: Path, count: int = 12, *, step: int = 20) -> Path:
    """Frame i is grey, of level i * step."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (64, 48))
    for number in range(count):
        writer.write(np.full((48, 64, 3), number * step, np.uint8))
    writer.release()
    return path


def camera(device: object, counts: Counts | None = None, *, fit: Fit = FIT, rate_per_s: float = 0.0, **changes):
    frame = changes.pop("frame", None)
    keep = changes.pop("keep", "auto")
    made = told.Source(
        kind="camera",
        keep=keep,
        rate_per_s=rate_per_s,
        camera=told.Camera(device=str(device), **changes),
        frame=frame,
    )
    return open_source(made, fit=fit, counts=counts)


def present(readings: Iterator[Reading | None], count: int) -> list[Reading]:
    found: list[Reading] = []
    deadline = time.monotonic() + WAIT_S
    for reading in readings:
        found += [reading] if reading is not None else []
        assert time.monotonic() < deadline, f"{len(found)} of {count} came"
        if len(found) == count:
            break
    return found


# --- a file ---


def test_a_video_is_read_frame_by_frame_to_its_end(tmp_path: Path) -> None:
    found = present(camera(video(tmp_path / "a.avi")).readings(Start()), 100)
    assert [grey_of(reading.data) for reading in found] == pytest.approx([20 * n for n in range(12)], abs=2)
    assert {(reading.data.shape, str(reading.data.dtype)) for reading in found} == {((24, 32, 3), "uint8")}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z 64x48 64x48\+0\+0 32x24\+0\+0", found[0].ref)


def test_the_reference_says_where_the_picture_is_in_a_letterbox(tmp_path: Path) -> None:
    source = camera(video(tmp_path / "a.avi"), fit=Fit((32, 32), "uint8"), frame=told.Frame(how="letterbox"))
    assert present(source.readings(Start()), 1)[0].ref.endswith(" 64x48 64x48+0+0 32x24+0+4")


def test_colours_are_red_green_blue(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "red.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (64, 48))
    writer.write(np.full((48, 64, 3), (0, 0, 255), np.uint8))  # OpenCV's own order
    writer.release()
    data = present(camera(tmp_path / "red.avi").readings(Start()), 1)[0].data
    assert data[..., 0].mean() > 240
    assert data[..., 2].mean() < 15


def test_a_video_keeps_the_contract_of_a_source(tmp_path: Path) -> None:
    video(tmp_path / "a.avi")
    check_source(lambda: camera(tmp_path / "a.avi"))


# --- a network camera ---


def grey(number: int) -> bytes:
    """A picture of 64 x 48, brighter than the one before it, as JPEG."""
    return cv2.imencode(".jpg", np.full((48, 64, 3), number % 250, np.uint8))[1].tobytes()


class Served:
    """A camera on loopback that serves motion JPEG: frame after frame, until it is told to end."""

    def __init__(self, *, frozen: bool = False) -> None:
        self.ending = threading.Event()
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                number = 0
                while not served.ending.wait(0.01):
                    jpeg = grey(100 if frozen else number)
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                    number += 1

            def log_message(self, format: str, *args: object) -> None: ...

            def handle(self) -> None:
                with contextlib.suppress(OSError):  # who looked has gone
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/stream.mjpg"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.close()


def test_of_a_network_camera_the_newest_frame_counts(served: Served) -> None:
    counts = Counts()
    readings = camera(served.url, counts).readings(Start(3))
    first = present(readings, 1)[0]
    assert first.seq == 3
    time.sleep(0.5)  # a slow loop
    late = present(readings, 2)
    assert grey_of(late[0].data) > grey_of(first.data) + 10, "an old frame was waiting"
    assert counts.skipped >= 10
    readings.close()


def test_a_rate_takes_some_of_the_frames(served: Served) -> None:
    counts = Counts()
    readings = camera(served.url, counts, rate_per_s=10.0, keep="every").readings(Start())
    began = time.monotonic()
    present(readings, 6)
    assert time.monotonic() - began > 0.45
    assert counts.skipped == 0, "a frame that was not asked for is not a sample that was lost"
    readings.close()


def test_a_network_camera_keeps_the_contract_of_a_source(served: Served) -> None:
    check_source(lambda: camera(served.url), live=True, readings=4)


def test_a_camera_that_ends_is_a_source_error_and_can_be_opened_again(served: Served) -> None:
    readings = camera(served.url, timeout_s=0.3).readings(Start())
    present(readings, 1)
    served.ending.set()
    with pytest.raises(SourceError, match=r"stream.mjpg: no frame for \d+ s"):
        present(readings, 1000)
    served.ending.clear()
    readings = camera(served.url).readings(Start())
    assert len(present(readings, 2)) == 2
    readings.close()


def test_a_camera_that_repeats_itself_is_frozen() -> None:
    made = Served(frozen=True)
    try:
        with pytest.raises(SourceError, match="the same frame for 0 s"):
            present(camera(made.url, frozen_s=0.2).readings(Start()), 1000)
    finally:
        made.close()


def test_stillness_is_seen_only_where_it_is_asked_for() -> None:
    same = np.zeros((16, 16, 3), np.uint8)
    other = same + 1
    never, soon = Stillness(0.0), Stillness(2.0)
    assert not any(never.is_frozen(same, at) for at in range(100))
    assert [soon.is_frozen(one, at) for at, one in enumerate([same, same, same, other, other, other, other])] == [
        False, False, False, False, False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("device", "why"),
    [
        ("/dev/video99", "/dev/video99: cannot be opened: is it there, and is it free"),
        ("http://127.0.0.1:9/nothing", "http://127.0.0.1:9/nothing: cannot be opened"),
        ("videotestsrc ! appsink", r"videotestsrc ! appsink: cannot be opened: this OpenCV has no GStreamer"),
    ],
)
def test_a_camera_that_is_not_there_is_a_source_error(device: str, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        present(camera(device).readings(Start()), 1)


@pytest.mark.parametrize(
    ("missing", "device", "why"),
    [
        ("cv2", "0", r"needs OpenCV: pip install 'winnow-edge\[camera\]' \(import cv2 says: .*cv2"),
        ("picamera2", "picamera2", "not installed: sudo apt-get install python3-picamera2"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_opened(monkeypatch, missing: str, device: str, why: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=why):
        camera(device)


def test_a_network_camera_is_told_its_secret_and_nobody_else_is(tmp_path: Path) -> None:
    (tmp_path / "word").write_text("p@ss/word\n")
    secret = {"username": "ada", "password_file": str(tmp_path / "word")}
    source = camera("rtsp://127.0.0.1:9/stream", **secret)
    assert source._capture._address == "rtsp://ada:p%40ss%2Fword@127.0.0.1:9/stream"
    with pytest.raises(SourceError) as caught:
        present(source.readings(Start()), 1)
    assert "ada" not in str(caught.value)
    with pytest.raises(ConfigError, match="set username and password_file"):
        camera("rtsp://ada:word@127.0.0.1:9/stream")
    assert camera("/dev/video0", **secret)._capture._address == "/dev/video0"


def test_a_model_that_takes_no_picture_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model's input \(128, 6\)|cannot be brought"):
        camera("0", fit=Fit((128,), "float32"))


def test_source_is_a_protocol_that_live_keeps() -> None:
    source: Source = camera("0")
    assert callable(source.readings)
