"""How is the machine?

Read from /proc, /sys and /run when asked, nothing kept but what a share needs. A value that the machine does not offer
is None, 0 or "unknown", never an error.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

ROOT = Path("/")
TIME_ERROR = 5  # of adjtimex(2): the clock is not synchronised
PLAUSIBLE_C = (-60.0, 150.0)  # sensors that are switched off report values such as -256
NOT_A_SENSOR = "PMIC-Die"  # a zone of older Jetsons, always at 100 degrees


def rss_bytes(root: Path = ROOT) -> int:
    """Resident memory of this process, 0 where there is no /proc."""
    for line in _read(root / "proc/self/status").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


class CpuMeter:
    """Share of one core that this process used since the last look."""

    def __init__(
        self, cpu_s: Callable[[], float] = time.process_time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Both clocks in seconds: processor time of all threads, and time that passes."""
        self._cpu_s, self._monotonic = cpu_s, monotonic
        self._last = (cpu_s(), monotonic())

    def share(self) -> float:
        """0 .. number of cores; 0 when no time has passed."""
        (cpu_before_s, before_s), self._last = self._last, (self._cpu_s(), self._monotonic())
        elapsed_s = self._last[1] - before_s
        return (self._last[0] - cpu_before_s) / elapsed_s if elapsed_s > 0 else 0.0


def temperature_c(root: Path = ROOT) -> float | None:
    """Of the hottest thermal zone, degrees Celsius; None when there is none."""
    found = []
    for zone in root.glob("sys/class/thermal/thermal_zone*"):
        text = _read(zone / "temp").strip()
        if text.lstrip("-").isdigit() and _read(zone / "type").strip() != NOT_A_SENSOR:
            found.append(int(text) / 1000.0)
    return max((value for value in found if PLAUSIBLE_C[0] < value < PLAUSIBLE_C[1]), default=None)


def _kernel_clock_state() -> int:
    """What adjtimex(2) returns when it is asked to change nothing; TIME_ERROR where it does not exist."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return TIME_ERROR
    return int(adjtimex(ctypes.create_string_buffer(512)))  # larger than any struct timex; zeroed: modes = 0, read only


def clock_quality(
    root: Path = ROOT, *, kernel_state: Callable[[], int] = _kernel_clock_state
) -> Literal["synced", "unknown"]:
    """Whether something keeps the clock right: systemd-timesyncd by its file, chrony and ntpd by the kernel's state."""
    if (root / "run/systemd/timesync/synchronized").exists():
        return "synced"
    return "synced" if 0 <= kernel_state() < TIME_ERROR else "unknown"


def machine(root: Path = ROOT) -> str:
    """Board or processor, architecture and cores, such as "Raspberry Pi 5 Model B Rev 1.0, aarch64, 4 cores"."""
    board = _read(root / "proc/device-tree/model").strip("\0 \n") or _processor(root)
    cores = f"{os.cpu_count() or 1} cores"
    return ", ".join(part for part in (board, platform.machine(), cores) if part)


def _processor(root: Path) -> str:
    for line in _read(root / "proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not offered here, or a sensor that does not answer
        return ""
