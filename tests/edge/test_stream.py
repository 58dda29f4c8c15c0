"""Does a stream go on when its source fails, and does the device say so, and say what it passed over?"""

from __future__ import annotations

import functools
import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from quadrants import ARTIFACT, artifact, images

from edge_agent import stream as streams
from edge_agent.__main__ import main
from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.config import load_config
from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.contract.types import Reading
from edge_agent.contract.wire import Heartbeat, SourceState
from edge_agent.loop import Cursor, Loop
from edge_agent.model import Model
from edge_agent.outgoing import Identity
from edge_agent.source import Fit, Start
from edge_agent.source.options import Camera, Push, Source
from edge_agent.status import describe, read_status
from edge_agent.stream import Stream

WAIT_S = 20.0


def slowly(infer: Callable[[], None]) -> None:
    time.sleep(0.01)
    infer()


def make_loop(model: Model | None = None, **changes: object) -> Loop:
    told = {
        "identity": Identity("cam", "main", 1),
        "acquisition": "margin",
        "cursor": Cursor(),
        "flush_s": 0.05,
        "hand_over": lambda _item: None,
    }
    selector = NoveltyQuantile(Rules(label_share=0.1), SplitMix64(1))
    return Loop(model or Model(ARTIFACT), selector, **(told | changes))


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Failing:
    """Plays 10 samples, fails; again; then ends."""

    opened = 0

    def __init__(self, *, path: Path, fit: Fit, rate_per_s: float) -> None:
        type(self).opened += 1

    def readings(self, start: Start) -> Iterator[Reading | None]:
        for seq in range(start.seq, start.seq + 10):
            yield Reading(np.zeros((8, 8), np.uint8), seq)
        if Failing.opened < 3:
            raise SourceError("the cable is loose")


def test_a_source_that_fails_is_opened_again_and_the_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "RETRY_S", (0.01, 1.0))
    Failing.opened = 0
    said: list[str] = []
    seen: list[str] = []

    def report(text: str) -> None:
        said.append(text)
        seen.append(stream.state().failing)

    stream = Stream(Source(kind=f"{__name__}:Failing", stop_at_end=True), report=report)
    loop = make_loop()
    assert stream.play(loop, threading.Event())
    assert loop.record.counts().read == 30
    assert said == ["source: the cable is loose: again in 0 s"] * 2
    assert seen == ["the cable is loose"] * 2
    assert stream.state() == SourceState(kind=f"{__name__}:Failing", restarts=2)


class Absent:
    """Has no sensor the first time."""

    made = 0

    def __init__(self, *, path: Path, fit: Fit, rate_per_s: float) -> None:
        Absent.made += 1
        if Absent.made == 1:
            raise OSError(19, "No such device")

    def readings(self, start: Start) -> Iterator[Reading | None]:
        yield Reading(np.zeros((8, 8), np.uint8), start.seq)


def test_a_plug_in_whose_sensor_is_not_there_yet_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "RETRY_S", (0.01, 1.0))
    Absent.made = 0
    said: list[str] = []
    stream, loop = Stream(Source(kind=f"{__name__}:Absent", stop_at_end=True), report=said.append), make_loop()
    assert stream.play(loop, threading.Event())
    assert said == [f"source: {__name__}:Absent: OSError: [Errno 19] No such device: again in 0 s"]
    assert loop.record.counts().read == 1


def test_a_loop_that_is_slower_than_its_camera_says_how_much_it_passed_over(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (8, 8))
    for number in range(200):
        writer.write(np.full((8, 8, 3), number, np.uint8))
    writer.release()
    slow = Model(ARTIFACT, together=1)
    slow.steps = tuple((place, functools.partial(slowly, infer)) for place, infer in slow.steps)
    loop = make_loop(model=slow)
    told = Source(kind="camera", keep="newest", stop_at_end=True, camera=Camera(device=str(tmp_path / "a.avi")))
    stream = Stream(told, report=lambda _text: None)
    assert stream.play(loop, threading.Event())
    skipped = stream.state().skipped
    assert skipped > 100
    assert loop.record.counts().read + skipped == 200


# --- the whole program ---

TOML = """
[device]
name = "cam"
data_dir = "data"
[source]
{source}
[model]
artifact = "first"
[uplink]
heartbeat_s = 0.1
[log]
predictions = true
"""


def configure(folder: Path, source: str) -> Path:
    artifact(folder / "first")
    (folder / "agent.toml").write_text(TOML.format(source=source))
    return folder / "agent.toml"


def beat(folder: Path) -> Heartbeat:
    return msgspec.json.decode((folder / "data" / "status.json").read_bytes(), type=Heartbeat)


def piped_into(path: Path) -> subprocess.Popen[bytes]:
    """`sensor | winnow-agent run agent.toml`: a TOML file and nothing else."""
    return subprocess.Popen(
        [sys.executable, "-m", "edge_agent", "run", str(path)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(streams.__file__).parent.parent)},
    )


def test_lines_of_another_program_are_run_and_counted(tmp_path: Path) -> None:
    agent = piped_into(configure(tmp_path, 'kind = "stdin"\nstop_at_end = true\n[source.window]\nsize = 1\n'))
    lines = [json.dumps(one.ravel().tolist()) for one in images(50)[0]] + ["[1, 2]", "nonsense"]
    said = agent.communicate("\n".join(lines).encode(), timeout=60)[1]
    assert agent.returncode == 0, said
    assert beat(tmp_path).counts.read == 50
    assert beat(tmp_path).source == SourceState(kind="stdin", unreadable=2)
    assert "source     stdin, 2 unreadable" in describe(read_status(tmp_path / "data"))


def test_that_the_program_which_wrote_has_ended_is_said(tmp_path: Path) -> None:
    agent = piped_into(configure(tmp_path, 'kind = "stdin"\n[source.window]\nsize = 1\n'))
    try:
        agent.stdin.write(json.dumps(images(1)[0].ravel().tolist()).encode())
        agent.stdin.close()
        until((tmp_path / "data" / "status.json").exists)
        until(lambda: beat(tmp_path).source.failing)
        until(lambda: beat(tmp_path).counts.read == 1)
        assert "FAILING: the program that wrote into it has ended" in describe(read_status(tmp_path / "data"))
    finally:
        agent.terminate()
        said = agent.stderr.read().decode()
        agent.wait(WAIT_S)
    assert "error: source: stdin: the program that wrote into it has ended" in said


def test_a_serial_port_that_is_pulled_out_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("serial")
    from edge_agent.agent import Agent

    monkeypatch.setattr(streams, "RETRY_S", (0.05, 0.1))
    port = tmp_path / "port"
    source = f'kind = "serial"\n[source.serial]\nport = "{port}"\n[source.window]\nsize = 1\n'
    agent = Agent(load_config(configure(tmp_path, source)))
    running = threading.Thread(target=agent.run, daemon=True)
    running.start()
    line = json.dumps(images(1)[0].ravel().tolist()).encode() + b"\n"

    def well() -> bool:
        os.write(ours, line)
        said = agent.account.look()
        return said.counts.read > 0 and not said.source.failing

    for _ in range(2):
        until(lambda: agent.account.look().source.failing)  # there is no such port, or none any more
        assert str(port) in agent.account.look().source.failing
        ours, theirs = pty.openpty()
        port.unlink(missing_ok=True)
        port.symlink_to(os.ttyname(theirs))
        until(well)
        os.close(ours)
        os.close(theirs)
    until(lambda: agent.account.look().source.restarts >= 2)
    agent.stop()
    running.join(WAIT_S)


def test_check_says_both_shapes_and_lets_the_source_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "one.npy", np.zeros((4, 4), np.uint8))
    path = configure(tmp_path, 'kind = "folder"\npath = "."\n')
    assert main(["check", str(path)]) == 78
    assert "the source gives (4, 4) uint8, model version 1 takes (8, 8) uint8" in capsys.readouterr().err
    before = threading.active_count()
    path = configure(tmp_path, 'kind = "push"\n[source.push]\nlisten = "unix:push.sock"\n')
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"# source push unix:{tmp_path}/push.sock: nothing there yet" in out
    assert "[source.push]\nlisten" in out
    assert threading.active_count() == before
    assert not (tmp_path / "push.sock").exists()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ('kind = "camera"\n[source.serial]\nport = "x"\n', r"\[source.serial\] is of kind serial, and .* 'camera'"),
        ('kind = "camera"\n[source.camera]\ndevise = "0"\n', r"unknown key \[source.camera\] devise \(did you mean"),
        ('kind = "replay"\nkeep = "newest"\n', r"keep, room: 'replay' is no sensor that goes on by itself"),
        ('kind = "stdin"\n[source.window]\nsize = 7\n', r"\[source.window\] size = 7: the model takes \(8, 8\), 64"),
        ('kind = "camera"\nkeep = "oldest"\n', "source.keep: Invalid enum value 'oldest'"),
    ],
)
def test_a_mistake_is_named_with_its_table(tmp_path: Path, source: str, why: str) -> None:
    from edge_agent.check import check_parts

    with pytest.raises(ConfigError, match=why):
        check_parts(load_config(configure(tmp_path, source)))


def test_who_pushes_gets_what_the_model_says(tmp_path: Path) -> None:
    from test_push import UnixConnection, post

    x, _ = images(60)
    expected = Model(ARTIFACT).predict(x).argmax(axis=1)
    stopping = threading.Event()
    told = Source(kind="push", push=Push(listen=f"unix:{tmp_path}/push.sock"))
    stream, loop = Stream(told, report=lambda _text: None), make_loop()
    running = threading.Thread(target=stream.play, args=(loop, stopping))
    running.start()
    until((tmp_path / "push.sock").exists)
    link = UnixConnection(str(tmp_path / "push.sock"))
    answers = [post(link, one.tobytes()) for one in x]
    stopping.set()
    running.join(WAIT_S)
    assert [status for status, _ in answers] == [200] * 60
    assert [said["label"] for _, said in answers] == expected.tolist()
    names = Model(ARTIFACT).manifest.classes
    assert [said["name"] for _, said in answers] == [names[label] for label in expected]
    assert loop.record.counts().read == 60
