"""How are the figures of a round laid out? The candidate's beside the champion's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

OURS, THEIRS = "candidate_", "champion_"


class Pair(NamedTuple):
    """One figure of both; None: of that one it is not known."""

    name: str
    candidate: float | None
    champion: float | None


def pairs(figures: Mapping[str, float]) -> list[Pair]:
    """In the order in which they were measured.

    >>> pairs({"candidate_stream_accuracy": 0.9, "champion_stream_accuracy": 0.8, "latency_ms": 1.0})
    [Pair(name='stream accuracy', candidate=0.9, champion=0.8)]
    """
    names = [key.removeprefix(OURS) for key in figures if key.startswith(OURS)]
    return [Pair(name.replace("_", " "), figures[OURS + name], figures.get(THEIRS + name)) for name in names]
