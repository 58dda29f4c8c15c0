"""What did the devices of a process do, and how long did they wait?

Counts since the start; waits since they were last told. Tallies of several processes add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec


class Tally(msgspec.Struct, kw_only=True):
    """Of one process, or of all."""

    devices: int = 0
    connected: int = 0
    connects: int = 0  # CONNACKs
    failures: int = 0  # connections that could not be made
    drops: int = 0  # connections that were lost
    messages: dict[str, int] = {}  # kind -> sent
    bytes: dict[str, int] = {}  # kind -> of their payloads
    put: int = 0  # samples into outboxes
    again: int = 0  # sent once more for want of a receipt
    answered: int = 0  # samples with a receipt
    duplicates: int = 0  # that the server had already
    refused: int = 0
    bad: int = 0  # from the server, unreadable or not what was asked for
    commits: int = 0  # versions
    running: dict[int, int] = {}  # version -> devices
    waits_s: list[float] = []  # from publish to receipt
    connect_s: list[float] = []  # from the first packet to the broker's yes
    late_s: float = 0.0  # longest that something due had to wait for the process itself
    cpu_s: float = 0.0

    def said(self, kind: str, size: int) -> None:
        """A message went."""
        self.messages[kind] = self.messages.get(kind, 0) + 1
        self.bytes[kind] = self.bytes.get(kind, 0) + size

    def receipted(self, wait_s: float) -> None:
        """A sample has its receipt."""
        self.answered += 1
        self.waits_s.append(wait_s)

    @property
    def waiting(self) -> int:
        """Samples without a receipt."""
        return self.put - self.answered

    def forget_waits(self) -> None:
        """They were told."""
        self.waits_s, self.connect_s, self.late_s = [], [], 0.0


def together(tallies: Sequence[Tally]) -> Tally:
    """Of all processes.

    >>> together([Tally(put=1, messages={"birth": 2}), Tally(put=3, messages={"birth": 1})]).messages
    {'birth': 3}
    """
    found = Tally()
    for name in Tally.__struct_fields__:
        values = [getattr(tally, name) for tally in tallies]
        if isinstance(getattr(found, name), dict):
            setattr(found, name, _added(values))
        elif isinstance(getattr(found, name), list):
            setattr(found, name, [one for value in values for one in value])
        else:
            setattr(found, name, max(values, default=0.0) if name == "late_s" else sum(values))
    return found


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)
