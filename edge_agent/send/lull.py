"""When are samples held back?

In the quiet hours, and while the link costs: then only heartbeats go, at a slower pace, and events. Samples wait in the
outbox, and models are not fetched. While an operator has paused the uploads, samples alone wait.

Quiet hours are of the device's local time, daylight saving included. They are kept by its clock whether or not anybody
keeps that right, unless it is plainly wrong: a clock before 2025 knows no hours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

import msgspec

from edge_agent.contract.errors import ConfigError
from edge_agent.contract.wire import Held

DAY_MIN = 24 * 60
CLOCK_WORKS_FROM = 2025  # a year; clocks without a battery start in 1970, or where the image was made
_SPAN = r"([01]?\d|2[0-4]):([0-5]\d)\s*-\s*([01]?\d|2[0-4]):([0-5]\d)"


def spares_link(held: Held) -> bool:
    """Whether what holds samples back holds all else back too, as far as that can wait.

    >>> spares_link("quiet"), spares_link("paused"), spares_link("")
    (True, False, False)
    """
    return held not in ("", "paused")


class Span(msgspec.Struct, frozen=True):
    """Minutes of the day, from `begin` (in it) to `end` (not in it); over midnight when `end` is the smaller."""

    begin: int
    end: int

    def holds(self, minute: int) -> bool:
        """Whether a minute of the day, 0 .. 1439, lies in it."""
        if self.begin < self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end


def parse_hours(texts: Iterable[str]) -> tuple[Span, ...]:
    """Read "22:00-06:00" and the like; ConfigError says what to mend.

    >>> parse_hours(["22:00-06:00", "12:00-13:30"])
    (Span(begin=1320, end=360), Span(begin=720, end=810))
    """
    spans = []
    for text in texts:
        found = re.fullmatch(_SPAN, text.strip())
        hours = [int(number) for number in found.groups()] if found else []
        begin, end = (60 * hours[0] + hours[1], 60 * hours[2] + hours[3]) if found else (0, 0)
        if begin in (end, DAY_MIN) or max(begin, end) > DAY_MIN:
            raise ConfigError(
                f'[uplink] quiet_hours: got {text!r}, expected times of the day as "22:00-06:00", from before it is '
                'quiet to when it no longer is; all day is "00:00-24:00"'
            )
        spans.append(Span(begin, end))
    return tuple(spans)


class Lulls:
    """Asked whenever something is to be sent."""

    def __init__(
        self,
        quiet_hours: Iterable[Span] = (),
        metered_file: Path | None = None,
        *,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """`metered_file`: while it exists, the link costs. `now`: the wall clock, in local time."""
        self._quiet_hours = tuple(quiet_hours)
        self._metered_file = metered_file
        self._now = now

    def why(self) -> Held:
        """Why samples are held back now; "" when they are not."""
        if self._metered_file is not None and _may_exist(self._metered_file):
            return "metered"
        now = self._now()
        minute = 60 * now.hour + now.minute
        quiet = now.year >= CLOCK_WORKS_FROM and any(span.holds(minute) for span in self._quiet_hours)
        return "quiet" if quiet else ""


def _may_exist(path: Path) -> bool:
    """Where nobody may look, it is taken to be there: that samples wait is seen, that they cost is not."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True
