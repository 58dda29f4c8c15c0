"""What did a device say, and when did it come?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from edge_agent.contract.wire import Birth, Death, Event, Fetch, Heartbeat

W = TypeVar("W", Birth, Death, Event, Fetch, Heartbeat)


@dataclass(frozen=True)
class Spoken(Generic[W]):
    """A word of a device; at_ms: when the server heard it. Sequences of them have one of each device at most."""

    device: str
    word: W
    at_ms: int
