"""What is to be simulated?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from edge_agent.contract.errors import did_you_mean
from server.errors import ServerConfigError

Name = Literal["births", "steady", "pages", "burst", "rollout", "restart", "day"]
AMOUNTS: dict[Name, float] = {
    "births": 0.0, "steady": 60.0, "pages": 30.0, "burst": 5.0, "rollout": 0.0, "restart": 1.0, "day": 120.0,
}  # fmt: skip
"""What is played where no amount is said: seconds within which all connect (0: as fast as it goes), seconds of
heartbeats alone, and while somebody looks at the pages, samples of each device in a burst and around a restart, seconds
that a day takes."""
EXAMPLE = "births,steady=60,pages=30,burst=5,rollout,restart=1,day=120"


class Step(NamedTuple):
    """A phase, and how much of it."""

    name: Name
    amount: float


class Options(NamedTuple):
    """As the command line has them."""

    devices: tuple[int, ...] = (1000,)  # one simulation each
    processes: int = 1
    steps: tuple[Step, ...] = ()
    broker: str = ""  # of a server that runs; empty: one is started
    fleet: str = "default"  # of that server
    folder: Path | None = None  # what is started works there; None: somewhere, and it goes afterwards
    heartbeat_s: float = 30.0
    body_bytes: int = 1024  # of a sample
    model_bytes: int = 100_000
    bytes_per_s: float = 10_000_000.0  # of all downloads
    soak_s: float = 5.0
    burst_s: float = 10.0  # in which the samples of a burst are selected
    trial_s: float = 5.0
    retry_first_s: float = 2.0  # as an agent's by default
    retry_max_s: float = 300.0
    day_devices: int = 20  # whose day is played on a clock of its own, to see what of it stays; 0: none
    samples_per_day: int = 24  # of each of them
    pages: bool = True
    seed: int = 0


def parse(text: str) -> tuple[Step, ...]:
    """Phases as somebody writes them; ServerConfigError says what to mend.

    >>> parse("births,steady=5")
    (Step(name='births', amount=0.0), Step(name='steady', amount=5.0))
    """
    steps = tuple(_step(part) for part in text.split(",") if part.strip())
    if not steps:
        raise ServerConfigError(f"--scenario: got {text!r}, expected phases as {EXAMPLE}")
    return steps


def numbers(text: str) -> tuple[int, ...]:
    """Numbers of devices, between commas.

    >>> numbers("100, 1_000")
    (100, 1000)
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or len(set(found)) < len(found):
        expected = "expected whole numbers from 1 on, each once, as 100,1000,10000"
        raise ServerConfigError(f"--devices: got {text!r}, {expected}")
    return found


def _step(part: str) -> Step:
    said, given, amount = (piece.strip() for piece in part.partition("="))
    names: Sequence[Name] = get_args(Name)
    name = next((name for name in names if name == said), None)
    if name is None:
        raise ServerConfigError(f"--scenario: got {part!r}{did_you_mean(said, names)}, expected phases as {EXAMPLE}")
    if not given:
        return Step(name, AMOUNTS[name])
    try:
        much = float(amount)
    except ValueError:
        much = math.nan
    if not 0.0 <= much < math.inf:
        raise ServerConfigError(f"--scenario: got {part!r}, expected a number from 0 on, as {name}={AMOUNTS[name]:g}")
    return Step(name, much)
