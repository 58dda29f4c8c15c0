"""How is a figure asked for that takes long to make?

Made anew only once what it took is a hundredth of the time that went by since, whoever asks and however often; until
then all are given the last one. What is quickly made is made every time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

SHARE = 0.01
"""Of a processor: more, and programs that ask all the time slow down the pages; less, and figures are older."""

QUICK_S = 0.25


class Seldom(Generic[T]):
    """A figure; any thread may ask."""

    def __init__(self, make: Callable[[], T], *, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Nothing is made until somebody asks."""
        self._make, self._clock_s = make, clock_s
        self._lock = threading.Lock()
        self._made: tuple[T, float] | None = None  # and until when it is good enough

    def get(self) -> T:
        """The figure; one thread makes it, others wait for that."""
        with self._lock:
            began_s = self._clock_s()
            if self._made is not None and began_s < self._made[1]:
                return self._made[0]
            found = self._make()
            now_s = self._clock_s()
            took_s = now_s - began_s
            self._made = (found, now_s + (took_s / SHARE if took_s > QUICK_S else 0.0))
            return found
