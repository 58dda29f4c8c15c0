"""Does a network camera that speaks RTSP become samples, and is it looked for when it goes?"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from rtsp import Rtsp
from test_camera import camera, grey, present
from test_stream import WAIT_S, beat, configure, until

from edge_agent import stream as streams
from edge_agent.agent import Agent
from edge_agent.config import load_config
from edge_agent.contract.errors import SourceError
from edge_agent.outgoing import PREDICTION
from edge_agent.source import Start
from edge_agent.testing import check_source


def test_a_camera_that_speaks_rtsp_keeps_the_contract_of_a_source(tmp_path: Path) -> None:
    (tmp_path / "word").write_text("p@ss/word\n")
    made = Rtsp(grey, (64, 48), word="ada:p@ss/word")
    try:
        secret = {"username": "ada", "password_file": str(tmp_path / "word")}
        check_source(lambda: camera(made.url, **secret), live=True, readings=4)
        with pytest.raises(SourceError, match="stream1: cannot be opened"):
            present(camera(made.url).readings(Start()), 1)
    finally:
        made.close()


def test_a_network_camera_that_goes_is_looked_for_until_it_is_there_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "RETRY_S", (0.05, 0.1))
    there = Rtsp(grey, (64, 48))
    source = f'kind = "camera"\n[source.camera]\ndevice = "{there.url}"\ntimeout_s = 0.3\n'
    agent = Agent(load_config(configure(tmp_path, source)))
    running = threading.Thread(target=agent.run, daemon=True)
    running.start()

    def goes_on() -> None:
        before = agent.account.look().counts.read
        until(lambda: agent.account.look().counts.read > before + 20)
        assert agent.account.look().source.failing == ""

    for _ in range(2):
        goes_on()
        there.close()
        until(lambda: "stream1" in agent.account.look().source.failing)
        there = Rtsp(grey, (64, 48), port=there.port)
        goes_on()
    assert agent.account.look().source.restarts >= 2
    agent.stop()
    running.join(WAIT_S)
    there.close()
    assert predicted(tmp_path) == list(range(beat(tmp_path).counts.read))


def predicted(folder: Path) -> list[int]:
    return np.fromfile(folder / "data" / "predictions.bin", PREDICTION)["seq"].tolist()
