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

from edge_agent.heat import Seen

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


LIMITS_C = (40.0, 130.0)  # trip points outside are placeholders (0, -274) or of something else
BELOW_C = {"passive": 0.0, "hot": 5.0, "critical": 5.0}  # of a trip point, for a limit: at the last two it is too late
SLOWED = ("cpufreq", "thermal-cpufreq", "Processor")  # cooling devices by which a kernel slows the processor down
PI_BITS = {1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}  # of get_throttled, as they are now


def heat(root: Path = ROOT, *, hot_c: float = 0.0) -> Seen:
    """How near to its limit the hottest thermal zone is, and whether somebody throttles for it.

    A zone's limit is `hot_c`, or where that is 0 by its lowest trip point (Documentation/driver-api/thermal/sysfs-api
    of the kernel); a zone without one is not looked at. The kernel throttles where the state of a cooling device of
    cpufreq is above 0. A lowered scaling_max_freq does not count: people set that, too. A Raspberry Pi's firmware does
    so by itself, and says it in get_throttled.
    """
    zones = [found for zone in root.glob("sys/class/thermal/thermal_zone*") if (found := _zone(zone, hot_c))]
    over_c, text = max(zones, default=(None, ""))
    who = [*_slowed(root), *_firmware(root)]
    return Seen(over_c, bool(who), "; ".join([*([text] if text else []), *who]))


def _zone(zone: Path, hot_c: float) -> tuple[float, str] | None:
    """Degrees above its limit, and that in words; None when it says nothing of use."""
    kind, value = _read(zone / "type").strip(), _read(zone / "temp").strip()
    if not value.lstrip("-").isdigit() or kind == NOT_A_SENSOR:
        return None
    now_c, limit_c = int(value) / 1000.0, hot_c or _limit_c(zone)
    if limit_c is None or not PLAUSIBLE_C[0] < now_c < PLAUSIBLE_C[1]:
        return None
    return now_c - limit_c, f"{kind or zone.name} at {now_c:.0f} C, limit {limit_c:.0f} C"


def _limit_c(zone: Path) -> float | None:
    found = []
    for path in zone.glob("trip_point_*_type"):
        below_c = BELOW_C.get(_read(path).strip())
        value = _read(path.with_name(path.name.replace("_type", "_temp"))).strip()
        if below_c is not None and value.isdigit() and LIMITS_C[0] < int(value) / 1000.0 < LIMITS_C[1]:
            found.append(int(value) / 1000.0 - below_c)
    return min(found, default=None)


def _slowed(root: Path) -> list[str]:
    found = []
    for device in sorted(root.glob("sys/class/thermal/cooling_device*")):
        kind, state = _read(device / "type").strip(), _read(device / "cur_state").strip()
        if kind.startswith(SLOWED) and state.isdigit() and int(state) > 0:
            found.append(f"the kernel throttles ({kind} {state})")
    return found[:1]


def _firmware(root: Path) -> list[str]:
    for path in root.glob("sys/devices/platform/*/*:firmware/get_throttled"):
        try:
            word = int(_read(path).strip(), 16)
        except ValueError:
            continue
        if bits := [text for bit, text in PI_BITS.items() if word >> bit & 1]:
            return [f"the firmware throttles ({', '.join(bits)})"]
    return []


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
