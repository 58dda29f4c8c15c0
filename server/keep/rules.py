"""Which samples may go, and which go first?

    unlabelled   waits for a label, and would be trained on
    audit        waits for a label, and would judge
    labelled     has a label, and is trained on
    held_out     has a label, and judges

Each class is kept for so many days (`[retention] classes`). Never removed, however old: what was imported, what a
snapshot has or left out, gold samples, what is asked about now, the sample that a label of duplicates rests on, and
what devices look for more of.

Where the store is larger than its bound, only the unlabelled go: those of the least utility first, of two alike the
older, and none of the last day: somebody may be about to ask about it. How they are found: `server/store/passing.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar, get_args

from server.config import RetentionClass

CLASSES: tuple[RetentionClass, ...] = get_args(RetentionClass)
DAY_MS = 86_400_000
YOUNG_MS = DAY_MS


class Sized(Protocol):
    """A sample, as far as its room goes."""

    @property
    def body_bytes(self) -> int:
        """Of the encoded body."""


S = TypeVar("S", bound=Sized)


def enough(some: Iterable[S], wanted_bytes: int) -> Iterator[S]:
    """Of those that may go, in their order, as many as make that much room; all when these are too few. Pure."""
    for one in some:
        if wanted_bytes <= 0:
            return
        wanted_bytes -= one.body_bytes
        yield one
