from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edge_agent.send.health import CpuMeter, clock_quality, machine, rss_bytes, temperature_c


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_memory_is_what_the_kernel_says(tmp_path):
    status = "Name:\tpython\nVmHWM:\t  99999 kB\nVmRSS:\t   12345 kB\nThreads:\t3\n"
    assert rss_bytes(write(tmp_path, {"proc/self/status": status})) == 12345 * 1024
    assert rss_bytes(tmp_path / "nowhere") == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_memory_of_this_process_is_plausible():
    before = rss_bytes()
    ballast = np.ones(25_000_000)  # so large that it cannot come out of memory freed before
    assert rss_bytes() - before > ballast.nbytes // 2


def test_the_cpu_share_is_since_the_last_look():
    cpu, clock = iter([1.0, 2.0, 2.0, 5.0]), iter([10.0, 12.0, 12.0, 13.0])
    meter = CpuMeter(lambda: next(cpu), lambda: next(clock))
    assert [meter.share() for _ in range(3)] == [0.5, 0.0, 3.0]


@pytest.mark.parametrize(
    ("zones", "expected"),
    [
        ({"0": ("cpu-thermal", "48312")}, 48.312),
        ({"0": ("CPU-therm", "41500"), "1": ("PMIC-Die", "100000"), "2": ("GPU-therm", "43000")}, 43.0),
        ({"0": ("cv0-thermal", "-256000"), "1": ("cpu-thermal", "-5000")}, -5.0),
        ({"0": ("cpu", "not a number")}, None),
        ({}, None),
    ],
)
def test_the_temperature_is_of_the_hottest_real_sensor(tmp_path, zones, expected):
    folder = "sys/class/thermal/thermal_zone"
    for number, (kind, value) in zones.items():
        write(tmp_path, {f"{folder}{number}/type": kind + "\n", f"{folder}{number}/temp": value + "\n"})
    assert temperature_c(tmp_path) == expected


@pytest.mark.parametrize(("state", "expected"), [(0, "synced"), (1, "synced"), (5, "unknown"), (-1, "unknown")])
def test_the_clock_is_as_good_as_the_kernel_says(tmp_path, state, expected):
    assert clock_quality(tmp_path, kernel_state=lambda: state) == expected


def test_the_clock_is_synced_when_timesyncd_says_so(tmp_path):
    write(tmp_path, {"run/systemd/timesync/synchronized": ""})
    assert clock_quality(tmp_path, kernel_state=lambda: 5) == "synced"


def test_the_kernel_can_be_asked():
    assert clock_quality() in ("synced", "unknown")


def test_a_board_is_named_by_its_device_tree_a_computer_by_its_processor(tmp_path):
    pi = write(tmp_path / "pi", {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    assert machine(pi).startswith("Raspberry Pi 5 Model B Rev 1.0, ")
    pc = write(tmp_path / "pc", {"proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC\n"})
    assert machine(pc).startswith("AMD EPYC, ")
    assert machine(tmp_path / "nowhere").endswith(f"{os.cpu_count()} cores")
