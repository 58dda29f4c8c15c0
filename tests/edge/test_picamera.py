"""Does a Raspberry Pi's own camera become samples, and does it come back? Through a stand-in for picamera2."""

from __future__ import annotations

import sys

import pytest
from picamera import Sensor
from test_camera import camera, present

from edge_agent.contract.errors import SourceError
from edge_agent.source import Start
from edge_agent.testing import check_source


@pytest.fixture
def sensor(monkeypatch: pytest.MonkeyPatch) -> Sensor:
    made = Sensor()
    monkeypatch.setitem(sys.modules, "picamera2", made)
    return made


def test_a_raspberry_pi_s_own_camera_keeps_the_contract_of_a_source(sensor: Sensor) -> None:
    check_source(lambda: camera("picamera2", width=64, height=48, frames_per_s=20.0), live=True, readings=4)
    assert sensor.configured["main"] == {"format": "BGR888", "size": (64, 48)}
    assert sensor.configured["controls"] == {"FrameRate": 20.0}
    assert not sensor.is_taken


def test_a_raspberry_pi_s_own_camera_that_falls_silent_is_let_go_and_opened_again(sensor: Sensor) -> None:
    readings = camera("picamera2", width=64, height=48, timeout_s=0.2).readings(Start())
    first = present(readings, 1)[0]
    assert first.data[..., 2].min() == 200, "RGB, as it was told"
    sensor.silent.set()
    with pytest.raises(SourceError, match="picamera2: no frame for"):
        present(readings, 1000)
    with pytest.raises(SourceError, match="picamera2: no frame for"):
        present(camera("picamera2", timeout_s=0.2).readings(Start()), 1)
    sensor.silent.clear()
    present(camera("picamera2", width=64, height=48).readings(Start()), 3)
    assert sensor.opened == 3


def test_a_raspberry_pi_s_own_camera_that_does_not_start_is_let_go(sensor: Sensor) -> None:
    sensor.refusals = 1
    with pytest.raises(SourceError, match="Input/output error: is a camera connected, and free"):
        present(camera("picamera2").readings(Start()), 1)
    present(camera("picamera2").readings(Start()), 1)
