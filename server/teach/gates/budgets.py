"""Is it quick and small enough for the boards it goes to?

A budget says what a board bears, and how its time follows from the time that was measured here:

    pi4 = 20 ms, 5 MB, x 9             a sample takes nine times as long there (measured once, by whoever says so)
    pi4 = 20 ms, 5 MB, as cam-1        the time that cam-1 says of the champion, over its time here, is the factor
    pi4 = 20 ms                        as long as here

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from server.errors import ServerConfigError
from server.teach.gates.verdict import OPEN, Gate, checked

MEGABYTE = 1_000_000
_EXPECTED = "expected `board = 20 ms, 5 MB, x 9`: a time, a size or both, then `x FACTOR` or `as DEVICE` or nothing"


class Budget(NamedTuple):
    """What a board bears."""

    board: str
    latency_ms: float | None
    size_bytes: float | None
    factor: float  # of its time over ours
    device: str  # whose reports give the factor; empty: it is stated


class Cost(NamedTuple):
    """What a candidate takes."""

    latency_ms: float  # of one sample, here
    size_bytes: int
    factors: Mapping[str, float]  # device -> its time of the champion over the time here; those that said one


def parse(texts: Sequence[str]) -> list[Budget]:
    """Read `[gates] budgets`; ServerConfigError says which, and what was expected.

    >>> parse(["pi4 = 20 ms, 5 MB, x 9"])
    [Budget(board='pi4', latency_ms=20.0, size_bytes=5000000.0, factor=9.0, device='')]
    """
    return [_parse(text) for text in texts]


def _parse(text: str) -> Budget:
    name, _, terms = text.partition("=")
    found: dict[str, str] = {}
    for term in terms.split(","):
        match = re.fullmatch(r"(?:([\d.]+) ?(ms|MB)|(x) ?([\d.]+)|(as) ([A-Za-z0-9_-]+))", term.strip())
        if match is None:
            raise ServerConfigError(f"[gates] budgets: got {text!r}, {_EXPECTED}")
        number, unit, times, factor, like, device = match.groups()
        found[unit or times or like] = number or factor or device
    try:
        ms, mb, factor_of = (float(found[key]) if key in found else None for key in ("ms", "MB", "x"))
    except ValueError:
        ms = mb = factor_of = None
    if not name.strip() or (ms is None and mb is None) or ("x" in found and "as" in found):
        raise ServerConfigError(f"[gates] budgets: got {text!r}, {_EXPECTED}")
    return Budget(name.strip(), ms, None if mb is None else mb * MEGABYTE, factor_of or 1.0, found.get("as", ""))


def judge_cost(cost: Cost, budgets: Sequence[Budget]) -> list[Gate]:
    """Gates of time and size, for each board."""
    gates = []
    for one in budgets:
        if one.latency_ms is not None:
            gates.append(_time(cost, one, one.latency_ms))
        if one.size_bytes is not None:
            size = float(cost.size_bytes)
            gates.append(checked(f"size/{one.board}", size <= one.size_bytes, size, one.size_bytes, n=1, why="bytes"))
    return gates


def _time(cost: Cost, budget: Budget, limit: float) -> Gate:
    factor = cost.factors.get(budget.device) if budget.device else budget.factor
    if factor is None:
        why = f"{budget.device} has not said yet how long the champion takes there"
        name = f"latency/{budget.board}"
        here, state = cost.latency_ms, OPEN
        return Gate(name=name, state=state, figure=here, interval=None, limit=limit, n=0, why=why, bound="most")
    source = f"by what {budget.device} says" if budget.device else "as stated"
    why = f"{cost.latency_ms:.3f} ms here, times {factor:.3g} {source}"
    there = cost.latency_ms * factor
    return checked(f"latency/{budget.board}", there <= limit, there, limit, n=1, why=why)
