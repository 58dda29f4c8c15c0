"""Which block goes to which device next, and when?

One rate for all downloads of the fleet (a token bucket), and devices in turn: whoever asks for much waits longer, and
nobody waits for it. A device follows one file at a time, and asks again when it has heard nothing for a while; neither
makes it wait twice. Pure: time is told.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from edge_agent.contract.bucket import Bucket
from edge_agent.contract.wire import FETCH_MAX_BLOCKS

BURST_S = 0.5  # of the rate that may go at once after a lull: shorter wakes the sender too often to keep the rate up
WAITING_MAX = 100_000  # blocks, of the whole fleet; a hundred bytes each. Who finds no room asks again


class Turn(NamedTuple):
    """A block that is to go now."""

    device: str
    sha256: str
    block: int


class _Line(NamedTuple):
    """What one device waits for: blocks of one file, in the order they were asked for."""

    sha256: str
    blocks: OrderedDict[int, None]


class Pace:
    """Who waits for what.

    >>> pace = Pace(bytes_per_s=1000.0)
    >>> pace.ask("cam-1", "aa", [0, 1]), pace.ask("cam-1", "aa", [1, 0]), pace.ask("cam-2", "bb", [7])
    (2, 0, 1)
    >>> [turn[:1] + turn[2:] for turn in (pace.next(), pace.next(), pace.next())]
    [('cam-1', 0), ('cam-2', 7), ('cam-1', 1)]
    >>> pace.sent(2000)  # of the 500 that may go at once
    >>> pace.rest_s
    1.5
    """

    def __init__(self, *, bytes_per_s: float) -> None:
        """`bytes_per_s`: of all devices together; 0: no limit."""
        self._bucket = Bucket(rate=bytes_per_s, depth=bytes_per_s * BURST_S) if bytes_per_s > 0 else None
        self._lines: OrderedDict[str, _Line] = OrderedDict()  # whose turn it is, first
        self._now_s: float | None = None
        self.waiting = 0  # blocks

    def ask(self, device: str, sha256: str, blocks: Iterable[int]) -> int:
        """A device asks for blocks of a file, and no longer for another's; returns how many it now waits for more."""
        line = self._lines.get(device)
        if line is None or line.sha256 != sha256:
            self.waiting -= len(line.blocks) if line else 0
            line = _Line(sha256, OrderedDict())
        before = len(line.blocks)
        for block in blocks:
            if len(line.blocks) >= FETCH_MAX_BLOCKS or self.waiting + len(line.blocks) - before >= WAITING_MAX:
                break
            line.blocks[block] = None
        new = len(line.blocks) - before
        self.waiting += new
        if line.blocks:
            self._lines[device] = line  # one that waits keeps its place
        else:
            self._lines.pop(device, None)
        return new

    def next(self) -> Turn | None:
        """Whose turn it is, to be answered at once; None when nobody waits. Look at `rest_s` first."""
        if not self._lines:
            return None
        device, line = self._lines.popitem(last=False)
        block, _ = line.blocks.popitem(last=False)
        self.waiting -= 1
        if line.blocks:
            self._lines[device] = line
        return Turn(device, line.sha256, block)

    def sent(self, size_bytes: int) -> None:
        """So much has gone."""
        if self._bucket is not None:
            self._bucket.take(size_bytes)

    def tell(self, now_s: float) -> None:
        """It is now so late, by a clock that never goes back."""
        if self._bucket is not None and self._now_s is not None:
            self._bucket.earn(now_s - self._now_s)
        self._now_s = now_s

    @property
    def rest_s(self) -> float:
        """Seconds until something may go: a block may overdraw the bucket, and its debt is waited for."""
        if self._bucket is None or self._bucket.tokens > -1.0:  # of a byte: sleeping exactly its time never ends it
            return 0.0
        return -self._bucket.tokens / self._bucket.rate
