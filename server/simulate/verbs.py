"""What is a process that plays devices told?

Once what it is to play, then, through its pipe, a verb after the other.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from server.simulate.device import Habits
from server.simulate.session import Wire


class Spec(NamedTuple):
    """What a process plays: devices `first` to `first + devices`."""

    wire: Wire
    habits: Habits
    first: int
    devices: int
    version: int
    sha256: str
    boot: int  # of each device
    under_way: int  # connections that may be waiting for the broker's answer
    seed: int


class Connect(NamedTuple):
    """A share of the devices (0..1, the first ones) connects, so many a second; infinity: as fast as it goes."""

    share: float = 1.0
    per_s: float = math.inf


class Leave(NamedTuple):
    """All but a share of the devices go."""

    share: float
    politely: bool = True


class Give(NamedTuple):
    """Samples for each device, spread evenly over some time."""

    samples: int
    over_s: float


class Look(NamedTuple):
    """Answer with the tally; its waits begin anew."""


class End(NamedTuple):
    """Go, all of you."""


Verb = Connect | Leave | Give | Look | End
