"""How does a process that starts once and stays keep its memory small?

Nearly all that a start makes stays, so the collector rests meanwhile and passes over it afterwards. Of glibc's arenas,
which keep what was freed for the thread that took it, one is enough for threads that share an interpreter: 0.7 MB.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

M_ARENA_MAX = -8  # mallopt(3)


@contextmanager
def starting() -> Iterator[None]:
    """Entered before there is a second thread; `settle` ends it, or leaving it, whichever comes first."""
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):  # of glibc
        libc.mallopt(M_ARENA_MAX, 1)
    gc.disable()  # a tenth of the start would go into looking for what does not stay
    try:
        yield
    finally:
        gc.enable()


def settle() -> None:
    """All is there that stays: look for what does not once, and from now on only among what comes."""
    gc.collect()
    gc.freeze()
    gc.enable()
