"""Where is what said? Topics of MQTT.

winnow/1/<fleet>/<device>/up|down/<kind>
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

from edge_agent.contract.errors import MessageError
from edge_agent.contract.types import is_name

ROOT = "winnow/1"
Up = Literal["birth", "death", "sample", "heartbeat", "event", "fetch"]
Down = Literal["desired", "receipt", "block"]
UP: tuple[Up, ...] = ("birth", "death", "sample", "heartbeat", "event", "fetch")
DOWN: tuple[Down, ...] = ("desired", "receipt", "block")


class Address(NamedTuple):
    """A topic, taken apart."""

    fleet: str
    device: str
    direction: Literal["up", "down"]
    kind: str


def up_topic(fleet: str, device: str, kind: Up) -> str:
    """The topic on which a device says `kind`.

    >>> up_topic("demo", "cam-1", "sample")
    'winnow/1/demo/cam-1/up/sample'
    """
    return f"{ROOT}/{fleet}/{device}/up/{kind}"


def down_topic(fleet: str, device: str, kind: Down) -> str:
    """The topic on which a device is told `kind`."""
    return f"{ROOT}/{fleet}/{device}/down/{kind}"


def server_state_topic(fleet: str) -> str:
    """Where the server says that it is there (retained, and its will)."""
    return f"{ROOT}/{fleet}/server/state"


def up_filter(fleet: str) -> str:
    """What the server subscribes to."""
    return f"{ROOT}/{fleet}/+/up/+"


def probe_topic(fleet: str, name: str) -> str:
    """Where the server tries what a broker does; nobody else listens there."""
    return f"{ROOT}/{fleet}/server/probe/{name}"


@lru_cache(maxsize=32_768)  # of a fleet's server, the same ones all the time: of 10,000 devices some 20,000
def parse_topic(topic: str) -> Address:
    """Take a device topic apart; MessageError when it is none."""
    parts = topic.split("/")
    if len(parts) == 6 and "/".join(parts[:2]) == ROOT and is_name(parts[2]) and is_name(parts[3]):
        fleet, device, direction, kind = parts[2:]
        if direction == "up" and kind in UP:
            return Address(fleet, device, "up", kind)
        if direction == "down" and kind in DOWN:
            return Address(fleet, device, "down", kind)
    raise MessageError(f"topic: got {topic[:120]!r}, expected {ROOT}/<fleet>/<device>/up|down/<kind>")
