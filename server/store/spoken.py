"""What did a device say, and when did it come?"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from edge_agent.contract.wire import Birth, Death, Event, Fetch, Heartbeat

W = TypeVar("W", Birth, Death, Event, Fetch, Heartbeat)


class Spoken(NamedTuple, Generic[W]):
    """A word of a device; at_ms: when the server heard it. Sequences of them have one of each device at most."""

    device: str
    word: W
    at_ms: int
