"""A stand-in for the module picamera2 (0.3.12 to 0.3.38), whose own needs a Raspberry Pi: what the agent asks of it.

As there, jobs are done in turn by a thread of the camera's: one that waits for a frame holds up all behind it, a stop
included; and the camera is one process's own until it is closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

PERIOD_S = 0.01


class Job:
    """What `signal_function` is given."""

    def __init__(self, signal_function: Callable[[Job], None] | None) -> None:
        self.future: Future[Any] = Future()
        self.signal_function = signal_function

    def get_result(self) -> Any:
        return self.future.result()


class Sensor:
    """What is at the end of the cable. `Picamera2` of it is the class that is imported."""

    def __init__(self) -> None:
        self.silent = threading.Event()
        self.refusals = 0  # starts that are still to fail
        self.is_taken = False
        self.opened = 0
        self.configured: dict[str, Any] = {}
        sensor = self

        class Picamera2(_Camera):
            def __init__(self) -> None:
                super().__init__(sensor)

        self.Picamera2 = Picamera2


class _Camera:
    def __init__(self, sensor: Sensor) -> None:
        if sensor.is_taken:
            raise RuntimeError("Camera __init__ sequence did not complete.")
        sensor.is_taken = True
        sensor.opened += 1
        self._sensor = sensor
        self._jobs: list[Job] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._number = 0
        self._thread = threading.Thread(target=self._goes_on, daemon=True)

    def create_video_configuration(self, *, main: dict[str, Any], controls: dict[str, Any]) -> dict[str, Any]:
        return {"main": {"size": (1280, 720), **main}, "controls": controls}

    def configure(self, configuration: dict[str, Any]) -> None:
        self._sensor.configured = configuration

    def start(self) -> None:
        if self._sensor.refusals:
            self._sensor.refusals -= 1
            raise RuntimeError("Failed to start camera: Input/output error")
        self._thread.start()

    def capture_array(self, name: str, wait: bool | None = None, signal_function: Any = None) -> Any:
        assert name == "main"
        job = Job(signal_function)
        with self._lock:
            self._jobs.append(job)
        return job.get_result() if wait or signal_function is None else job

    def stop(self) -> None:
        self.capture_array("main", wait=True)  # behind every job before it

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._sensor.is_taken = False

    def _goes_on(self) -> None:
        while not self._closing.wait(PERIOD_S):
            if self._sensor.silent.is_set():
                continue
            self._number += 1
            with self._lock:
                job = self._jobs.pop(0) if self._jobs else None
            if job is not None:
                width, height = self._sensor.configured["main"]["size"]
                job.future.set_result(np.full((height, width, 3), (self._number % 250, 0, 200), np.uint8))
                if job.signal_function is not None:
                    job.signal_function(job)
