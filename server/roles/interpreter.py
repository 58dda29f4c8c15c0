"""How is the interpreter set for a process that takes in?"""

from __future__ import annotations

import gc
import sys

from server.store.sqlite import bind_as_it_is

SWITCH_S = 0.0001
"""How long one thread may keep another from the interpreter: longer (it is 5 ms), and whoever reads from the broker
waits for whoever checks and writes, with the broker's window full; shorter, and more is spent on changing over."""
NEW_OBJECTS = 20_000
"""Between two looks for what refers to itself, where hardly anything does: fewer (it is 700), and a tenth of what a
sample costs goes into looking through the backlog; more, and what does refer to itself stays longer."""


def settle() -> None:
    """Once everything is loaded, which is looked through no more."""
    sys.setswitchinterval(SWITCH_S)
    bind_as_it_is()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])
