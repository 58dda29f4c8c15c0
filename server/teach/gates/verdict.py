"""What did each gate say, and what follows?

    passed                the figure is surely within its limit
    failed                it is surely beyond: the candidate is blocked
    too_little_evidence   neither; `missing` says about how many more labels would settle it

Too little evidence is said, and does not block: with few labels, waiting for certainty would mean never to learn.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from server.teach.gates.paired import Difference

GateState = Literal["passed", "failed", "too_little_evidence"]
Bound = Literal["least", "most", ""]
OPEN: GateState = "too_little_evidence"
MISSING_MOST = 100_000  # labels; where more than these would be needed, no number is said


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One question, and what the data answer."""

    name: str
    state: GateState
    figure: float
    interval: tuple[float, float] | None  # at the stated confidence; None: the figure is no estimate
    limit: float
    n: int  # samples it rests on
    missing: int = 0  # about how many more labels would settle it; 0: it is settled, or no number would
    why: str = ""  # in words, where the figure does not say it
    bound: Bound = ""  # the figure is to be this, at least or at most; "": a gate of an older server


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """All gates, and what follows."""

    passed: bool
    gates: tuple[Gate, ...]

    @classmethod
    def of(cls, gates: list[Gate]) -> Verdict:
        """Passed when none failed."""
        return cls(passed=not any(gate.state == "failed" for gate in gates), gates=tuple(gates))

    def failed(self) -> tuple[Gate, ...]:
        """The gates that block."""
        return tuple(gate for gate in self.gates if gate.state == "failed")


def at_least(name: str, found: Difference, limit: float, *, min_samples: int, why: str = "") -> Gate:
    """Failed when surely below the limit, passed when surely not; of `min_samples` effective ones at least."""
    if found.effective < min_samples:
        state: GateState = "too_little_evidence"
    elif found.high < limit:
        state = "failed"
    else:
        state = "passed" if found.low >= limit else "too_little_evidence"
    return gate(name, state, found, limit, min_samples=min_samples, why=why)


def at_most(name: str, found: Difference, limit: float, *, min_samples: int, why: str = "") -> Gate:
    """Failed when surely above the limit, passed when surely not."""
    turned = at_least(name, found.negated(), -limit, min_samples=min_samples, why=why)
    low, high = turned.interval or (0.0, 0.0)
    return msgspec.structs.replace(turned, figure=-turned.figure, interval=(-high, -low), limit=limit, bound="most")


def gate(name: str, state: GateState, found: Difference, limit: float, *, min_samples: int, why: str = "") -> Gate:
    """At least the limit, with its interval, and with what is missing where it is open."""
    missing = _missing(found, limit, min_samples) if state == "too_little_evidence" else 0
    interval = (float(found.low), float(found.high))  # of numpy's own kind, they could not be kept
    return Gate(
        name=name,
        state=state,
        figure=float(found.figure),
        interval=interval,
        limit=limit,
        n=found.n,
        missing=missing,
        why=why,
        bound="least",
    )


def checked(name: str, ok: bool, figure: float, limit: float, *, n: int, why: str = "", bound: Bound = "most") -> Gate:
    """A figure that is no estimate: it holds, or it does not."""
    state: GateState = "passed" if ok else "failed"
    return Gate(name=name, state=state, figure=float(figure), interval=None, limit=limit, n=n, why=why, bound=bound)


def _missing(found: Difference, limit: float, min_samples: int) -> int:
    """How many more labels, worth what these were, if the figure stays: widths shrink with the root of their number."""
    if not found.n:
        return min_samples
    short = found.n * (min_samples / found.effective - 1.0)
    reach = found.figure - found.low if found.figure >= limit else found.high - found.figure
    away = abs(found.figure - limit)
    if away * MISSING_MOST**0.5 <= reach:
        return max(0, math.ceil(short))
    more = math.ceil(max(short, found.n * ((reach / away) ** 2 - 1.0), 1.0))
    return more if more <= MISSING_MOST else 0
