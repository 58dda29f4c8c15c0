"""Which of the server's orders stand, from the first moment and over a restart?

What they come to is orders.py's to say. One may come at any time: before there is a loop, and while another model takes
over; one after the other they are taken here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from edge_agent.contract.wire import Budgets, Desired
from edge_agent.loop import Loop
from edge_agent.model import Model
from edge_agent.orders import Orders, desired_over
from edge_agent.outgoing import sample_bytes


class Standing:
    """The server's last word on budgets, acquisition function, strategy and a pause, over what the file says."""

    def __init__(
        self, own: Orders, desired: Desired, *, pause: Callable[[int], None], complain: Callable[[str], None]
    ) -> None:
        """`desired`: the last word of before. `pause` is told since when nothing is sent, or 0."""
        self._own, self._desired = own, desired
        self._pause, self._complain = pause, complain
        self._revision = 0  # the last, this run: a server restored from a backup counts from further back
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._orders = desired_over(own, desired)
        self._obey_pause()

    def budgets(self) -> Budgets:
        """What is in force, as it is said back."""
        return self._orders.budgets()

    def over(self, model: Model | None) -> Orders:
        """What is in force while `model` runs; None: not known yet."""
        return desired_over(
            self._own,
            self._desired,
            members=model.manifest.members if model else 0,
            sample_bytes=sample_bytes(model) if model else 0,
        )

    def begin(self, loop: Loop, model: Model) -> None:
        """There is a loop to obey; an order may have come while it was made."""
        with self._lock:
            self._loop, self._orders = loop, self.over(model)
            loop.change(*self._orders[:3])

    def take(self, desired: Desired, keep: Callable[[bytes], None]) -> bool:
        """Obey; False where it is older than the last. `keep`: before anything is decided by it, for the next start."""
        if desired.revision < self._revision:
            return False
        self._revision = desired.revision
        with self._lock:
            self._desired = msgspec.structs.replace(desired, model=None, requests=(), purges=())
            self._obey_pause()
            self._meet(self._loop.model if self._loop is not None else None)
            keep(msgspec.json.encode(self._desired))
            if self._loop is not None:
                self._loop.change(*self._orders[:3])
        return True

    def meet(self, model: Model) -> None:
        """Another model runs: what of the orders could not be may be now, and the other way round."""
        with self._lock:
            self._meet(model)
            if self._loop is not None:
                self._loop.change(*self._orders[:3])

    def _meet(self, model: Model | None) -> None:
        before, self._orders = self._orders, self.over(model)
        if self._orders.complaint and self._orders.complaint != before.complaint:
            self._complain(self._orders.complaint)

    def _obey_pause(self) -> None:
        self._pause(self._desired.pause.at_ms if self._desired.pause else 0)


def read(saved: bytes) -> Desired:
    """What `take` let be kept; nothing is desired where that is empty."""
    return msgspec.json.decode(saved, type=Desired) if saved else Desired(revision=0)
