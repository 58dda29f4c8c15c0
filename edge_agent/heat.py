"""How much slower while the machine is too hot?

A board that overheats is slowed down by its kernel or its firmware: latencies jump, and a fan or a battery pays for
inferences that nobody waits for. So the agent slows down first, by a share of its own time: full, a half, a quarter, an
eighth. It takes a step down at once when a zone comes near its limit or somebody says that he throttles already, the
next after a while, because metal cools slowly; a step up once all zones have been well below for longer. Between the
two nothing changes. Pure: what is seen, and when, are arguments.
"""

from __future__ import annotations

import msgspec

SHARES = (1.0, 0.5, 0.25, 0.125)  # of its time that the agent works; less would look like a standstill
NEAR_C = 2.0  # below its limit a zone counts as hot: less, and the kernel is there first; more, and work is lost early
CLEAR_C = 8.0  # and below so much as cool: nearer to NEAR_C it goes to and fro, farther it hardly comes back
SLOWER_AFTER_S = 20.0  # between two steps down: sooner takes a second step before the first can show
FASTER_AFTER_S = 60.0  # of being cool, to each step up


class Seen(msgspec.Struct, frozen=True):
    """One look at the machine."""

    over_c: float | None = None  # of the zone nearest to its limit, degrees above it; None: no zone has one
    throttled: bool = False  # kernel or firmware slow the processor down for its heat
    text: str = ""  # for people: which zone, who throttles


class Backoff:
    """The share of its time that the agent may work."""

    def __init__(self) -> None:
        """At full speed."""
        self._level = 0
        self._slower_s = float("-inf")  # when the last step down was taken
        self._cool_s: float | None = None  # since when all was cool

    @property
    def share(self) -> float:
        """As by the last look."""
        return SHARES[self._level]

    def look(self, seen: Seen, now_s: float) -> float:
        """The share from now on; `now_s` never goes back."""
        hot = seen.throttled or (seen.over_c is not None and seen.over_c >= -NEAR_C)
        cool = not seen.throttled and (seen.over_c is None or seen.over_c <= -CLEAR_C)
        if not cool:
            self._cool_s = None
        elif self._cool_s is None:
            self._cool_s = now_s
        if hot and self._level < len(SHARES) - 1 and now_s - self._slower_s >= SLOWER_AFTER_S:
            self._level += 1
            self._slower_s = now_s
        elif self._level and self._cool_s is not None and now_s - self._cool_s >= FASTER_AFTER_S:
            self._level -= 1
            self._cool_s = now_s
        return self.share
