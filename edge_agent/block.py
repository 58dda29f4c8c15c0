"""What is known of a block of samples once the running model has scored them?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from edge_agent.choose.acquisition import Scored
from edge_agent.contract.types import Reading, SampleId
from edge_agent.model import Model


class Block(msgspec.Struct, frozen=True):
    """A scored block, as the loop has it."""

    readings: Sequence[Reading]
    scored: Scored  # of the whole ring, rows beyond the readings included
    model: Model
    id_of: Callable[[Reading], SampleId]
    now_ms: int
    pay: Callable[[], bool]  # takes a sample from the limits a day; False when they forbid it
    payable: Callable[[], bool]  # whether they let one through
