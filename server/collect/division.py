"""Several take in what one could: who takes what?

    Whole     one alone hears everything
    Shared    the broker gives each message to one of a group (`$share`, MQTT 5.0 section 4.8.2, which brokers offer to
              clients of 3.1.1 as well); probe.py says whether it does
    Slice     each hears everything, and takes what is of its own devices, by a hash of their names

Pure. Nothing here is needed for what is stored to be right: the store settles who was first (ingest.py). A message that
two take is stored once; one that nobody takes comes again.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from typing import NamedTuple

from edge_agent.contract.wire import UP, Up, up_filter

GROUP = "winnow"
"""How those are called that share, unless they are given another name."""


class Whole(NamedTuple):
    """Everything."""

    def filters(self, fleet: str, kinds: Collection[Up] = UP) -> list[str]:
        """What to subscribe to."""
        return _plain(fleet, kinds)

    def takes(self, device: str) -> bool:  # noqa: ARG002 - what all divisions can be asked
        """Whether what it says is ours, once it is heard."""
        return True


class Shared(NamedTuple):
    """What the broker gives us."""

    group: str = GROUP

    def filters(self, fleet: str, kinds: Collection[Up] = UP) -> list[str]:
        """What to subscribe to.

        >>> Shared().filters("farm")
        ['$share/winnow/winnow/1/farm/+/up/+']
        """
        return [f"$share/{self.group}/{topic}" for topic in _plain(fleet, kinds)]

    def takes(self, device: str) -> bool:  # noqa: ARG002 - see Whole
        """Whether what it says is ours, once it is heard."""
        return True


class Slice(NamedTuple):
    """Number 1..`of`: the devices whose names hash to it."""

    number: int
    of: int

    def filters(self, fleet: str, kinds: Collection[Up] = UP) -> list[str]:
        """What to subscribe to."""
        return _plain(fleet, kinds)

    def takes(self, device: str) -> bool:
        """Whether what it says is ours, once it is heard.

        >>> [worker for worker in (1, 2, 3) if Slice(worker, 3).takes("cam-1")]
        [2]
        """
        return zlib.crc32(device.encode()) % self.of == self.number - 1


Division = Whole | Shared | Slice
WHOLE = Whole()


def _plain(fleet: str, kinds: Collection[Up]) -> list[str]:
    if set(kinds) == set(UP):
        return [up_filter(fleet)]
    return [f"{up_filter(fleet)[:-1]}{kind}" for kind in UP if kind in kinds]
