"""Which samples may go, and which go first?

    unlabelled   waits for a label, and would be trained on
    audit        waits for a label, and would judge
    labelled     has a label, and is trained on
    held_out     has a label, and judges

Each class is kept for so many days (`[retention] classes`). Never removed, however old: what was imported, what a
snapshot has or left out, gold samples, what is asked about now, the sample that a label of duplicates rests on, and
what devices look for more of.

Where the store is larger than its bound, only the unlabelled go: those of the least utility first, of two alike the
older, and none of the last day: somebody may be about to ask about it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, get_args

from server.config import RetentionClass

CLASSES: tuple[RetentionClass, ...] = get_args(RetentionClass)
DAY_MS = 86_400_000
YOUNG_MS = DAY_MS


class Candidate(NamedTuple):
    """A sample of a device."""

    id: str
    kept_as: RetentionClass
    received_ms: int
    bytes: int
    utility: float | None  # None: nobody said
    named: bool  # something rests on it


def is_due(one: Candidate, days: int, *, now_ms: int) -> bool:
    """Whether it was kept for as long as its class is; days: 0, for ever."""
    return not one.named and days > 0 and one.received_ms < now_ms - days * DAY_MS


def to_fit(some: Iterable[Candidate], over_bytes: int, *, now_ms: int) -> list[Candidate]:
    """Those that go so that `over_bytes` become free, in their order; all that may when these are too few."""
    found: list[Candidate] = []
    free = 0
    for one in in_order(some, now_ms=now_ms):
        if free >= over_bytes:
            break
        found.append(one)
        free += one.bytes
    return found


def in_order(some: Iterable[Candidate], *, now_ms: int) -> Sequence[Candidate]:
    """Those that may go for want of room, the first to go first."""
    may = [one for one in some if one.kept_as == "unlabelled" and not one.named and one.received_ms < now_ms - YOUNG_MS]
    return sorted(may, key=lambda one: (one.utility if one.utility is not None else -1.0, one.received_ms, one.id))
