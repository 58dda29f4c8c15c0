"""How does a process end with the one that started it?

The kernel passes the death on (Linux, PR_SET_PDEATHSIG), so that a kill -9 leaves no ranks behind. Elsewhere only an
orderly end takes them along.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PDEATHSIG = 1


def die_with_parent(number: signal.Signals, *, parent: int) -> None:
    """Ask for the signal when `parent`, which started us, is gone; if it is gone already, end. 0: nobody minds us."""
    if sys.platform != "linux" or not parent:
        return
    ctypes.CDLL(None).prctl(_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
