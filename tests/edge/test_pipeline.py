"""Does a GStreamer pipeline become samples, and is one that ends, hangs or crashes started again?

Through a stand-in for OpenCV in the child's process, and, where there is one, Debian's OpenCV with a real GStreamer
(`scripts/gstreamer.py`, `make soak`). In the agent's own process OpenCV is pip's, and told that it has GStreamer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gstreamer
import pytest
from test_camera import camera, cv2, present
from test_stream import WAIT_S, configure, until

from edge_agent import stream as streams
from edge_agent.agent import Agent
from edge_agent.config import load_config
from edge_agent.contract.errors import SourceError
from edge_agent.source import Fit, Start
from edge_agent.testing import check_source

LIVE = "videotestsrc is-live=true pattern=red ! video/x-raw,format=BGR,width=64,height=48,framerate=30/1 ! "
SILENT = LIVE + "valve drop=true ! appsink"
MARK = "WINNOW_TEST"  # whose children they are
ENDS = LIVE.replace("pattern", "num-buffers=5 pattern") + "appsink"

STAND_IN = '''
"""What edge_agent/source/opencv.py asks of cv2, of pipelines that are spelled as in the test."""
import os, re, signal, sys, time
import numpy
CAP_GSTREAMER, COLOR_BGR2RGB = 1800, 4
CAP_PROP_FRAME_WIDTH = CAP_PROP_FRAME_HEIGHT = CAP_PROP_FPS = CAP_PROP_POS_FRAMES = 0
print("a plug-in that prints", flush=True)

class VideoCapture:
    def __init__(self, pipeline, backend):
        assert backend == CAP_GSTREAMER
        self.pipeline, self.given = pipeline, 0
        self.most = int((re.findall(r"num-buffers=(\\d+)", pipeline) or [10**9])[0])

    def isOpened(self):
        if "nosuch" not in self.pipeline:
            return True
        print("GStreamer warning: module videotestsrc0 reported: Internal data stream error.", file=sys.stderr)
        print("GStreamer warning: unable to start pipeline", file=sys.stderr)

    def read(self):
        print("GST_ARGUS: a plug-in that prints", flush=True)
        while "drop=true" in self.pipeline:
            time.sleep(60)
        if "crash" in self.pipeline:
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.given == self.most:
            return False, None
        self.given += 1
        time.sleep(0.01)
        if "GRAY16_LE" in self.pipeline:
            return True, numpy.zeros((48, 64), numpy.uint16)
        if "GRAY8" in self.pipeline:
            return True, numpy.full((48, 64, 1), 200, numpy.uint8)
        return True, numpy.full((48, 64, 3), (0, 0, 255), numpy.uint8)

    def release(self):
        pass

def cvtColor(picture, code):
    assert code == COLOR_BGR2RGB
    return picture[..., ::-1]
'''


@pytest.fixture(
    params=[
        "stand-in",
        pytest.param(
            "gstreamer",
            marks=[pytest.mark.long, pytest.mark.skipif(bool(gstreamer.why_none()), reason=gstreamer.why_none())],
        ),
    ],
    autouse=True,
)
def _has_gstreamer(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: backend == cv2.CAP_GSTREAMER)
    if request.param == "stand-in":
        (tmp_path / "cv2.py").write_text(STAND_IN)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    else:
        for name, value in gstreamer.environment().items():
            monkeypatch.setenv(name, value)
    monkeypatch.setenv(MARK, str(tmp_path))
    yield
    until(lambda: not children())


def children() -> set[int]:
    """Running pipelines' processes of this test."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            is_one = b"edge_agent.source.pipeline" in (folder / "cmdline").read_bytes().split(b"\0")
            if is_one and f"{MARK}={os.environ[MARK]}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found


def test_a_pipeline_keeps_the_contract_of_a_source() -> None:
    check_source(lambda: camera(LIVE + "appsink drop=1 max-buffers=1"), live=True, readings=4)


def test_colours_are_red_green_blue_and_what_a_plug_in_prints_is_no_frame() -> None:
    readings = camera(LIVE + "appsink").readings(Start())
    for reading in present(readings, 3):
        assert reading.data[..., 0].min() > 240
        assert reading.data[..., 1:].max() < 15
        assert reading.ref.endswith(" 64x48 64x48+0+0 32x24+0+0")
    readings.close()


def test_a_grey_pipeline_gives_grey() -> None:
    source = LIVE.replace("BGR", "GRAY8").replace("red", "white") + "appsink"
    readings = camera(source, fit=Fit((24, 32), "uint8")).readings(Start())
    (reading,) = present(readings, 1)
    assert reading.data.min() == reading.data.max() >= 200
    readings.close()


@pytest.mark.parametrize(
    ("device", "given", "why"),
    [
        (ENDS, 5, "appsink: the pipeline ended"),
        (LIVE + "nosuch ! appsink", 0, "does `gst-launch-1.0` run it, .* reported: Internal data stream error"),
        (LIVE.replace("BGR", "GRAY16_LE") + "appsink", 0, "frames of uint16: put `videoconvert ! video/x-raw,format"),
        (SILENT, 0, "drop=true ! appsink: no frame for 1 s"),
    ],
)
def test_a_pipeline_that_ends_or_gives_nothing_is_a_source_error_with_its_reason(
    device: str, given: int, why: str
) -> None:
    found = []
    with pytest.raises(SourceError, match=why):
        found.extend(camera(device, timeout_s=0.6, keep="every").readings(Start()))  # one by one, up to the error
    assert len([reading for reading in found if reading is not None]) == given


def test_a_pipeline_s_secret_is_in_no_list_of_processes(tmp_path: Path) -> None:
    (tmp_path / "word").write_text("p@ssword\n")
    device = LIVE + "identity name=rtsp://10.0.0.7 ! appsink"
    readings = camera(device, username="ada", password_file=str(tmp_path / "word")).readings(Start())
    next(readings)
    until(lambda: children())
    (pid,) = children()
    assert b"p%40ssword" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"p%40ssword" not in Path(f"/proc/{pid}/environ").read_bytes()
    readings.close()


def test_a_pipeline_that_hangs_goes_with_an_agent_that_was_killed() -> None:
    script = (
        "import cv2; cv2.videoio_registry.hasBackend = bool\n"
        "from edge_agent.source import options, pipeline\n"
        f"made = pipeline.Pipeline(cv2, options.Camera(device={SILENT!r}), {SILENT!r})\n"
        "print('open', flush=True)\n"
        "while True: made.read()"
    )
    ours = {**os.environ, "PYTHONPATH": ""}  # pip's OpenCV in the agent; its child is given the other
    start = f"import os; os.environ['PYTHONPATH'] = {os.environ['PYTHONPATH']!r}\n"
    with subprocess.Popen([sys.executable, "-c", start + script], stdout=subprocess.PIPE, env=ours) as agent:
        assert agent.stdout.readline() == b"open\n"
        assert len(children()) == 1
        agent.send_signal(signal.SIGKILL)
    until(lambda: not children())


@pytest.mark.parametrize("device", [ENDS, SILENT, LIVE + "nosuch ! appsink"])
def test_a_pipeline_that_fails_is_started_again_and_the_agent_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(streams, "RETRY_S", (0.05, 0.1))
    source = f'kind = "camera"\n[source.camera]\ndevice = "{device}"\ntimeout_s = 0.5\n'
    agent = Agent(load_config(configure(tmp_path, source)))
    running = threading.Thread(target=agent.run, daemon=True)
    running.start()
    until(lambda: agent.account.look().source.restarts >= 2)
    until(lambda: "appsink" in agent.account.look().source.failing)
    if device == ENDS:
        until(lambda: agent.account.look().counts.read >= 3)
    agent.stop()
    running.join(WAIT_S)
    assert not running.is_alive()


def test_a_pipeline_that_crashes_takes_its_own_process_alone(request: pytest.FixtureRequest) -> None:
    if "gstreamer" in request.node.callspec.params.values():
        pytest.skip("no plug-in here crashes when it is told to")
    with pytest.raises(SourceError, match="a crash: its process was killed by SIGSEGV: GST_ARGUS"):
        present(camera("appsink ! a crash").readings(Start()), 1)
    time.sleep(0.1)
    present(camera(LIVE + "appsink").readings(Start()), 1)
