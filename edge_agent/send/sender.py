"""Which sample goes next, and in which parts?

First what is due again, then new ones in the outbox's order, as far as window and allowance let them. A sample goes
part by part, and between two of them anything more urgent may go. Only the uplink's own thread touches a sender.

Receipts empty the outbox in groups, as each of its commits waits for the disk: until then a sample that has its answer
is remembered here, and not sent again. A crash forgets that, and the server answers the same once more.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from edge_agent.contract.errors import OutboxError
from edge_agent.contract.wire import Receipt, sample_frames
from edge_agent.send.access import packet_bytes
from edge_agent.send.allowance import Allowance
from edge_agent.send.outbox import Outbox, Waiting
from edge_agent.send.window import Window

READ_AHEAD = 64  # samples read from the outbox at once; one by one, looking for the next costs more than sending it
READ_AHEAD_BYTES = 1 << 20

SETTLE_S = 0.05  # longest that a receipt waits: shorter is more commits, longer is more duplicates after a crash
SETTLE_ROWS = 256
SETTLE_AGAIN_S = 1.0

log = logging.getLogger(__name__)

Publish = Callable[[bytes], Callable[[], bool]]  # returns a function that tells whether the broker has it


class Sender:
    """Gives samples to a connection."""

    def __init__(self, outbox: Outbox, window: Window, allowance: Allowance, *, topic: str) -> None:
        """`topic`: that of samples, which counts in every message."""
        self._outbox, self._window, self._allowance, self._topic = outbox, window, allowance, topic
        self._going: _Going | None = None
        self._arrived: set[str] = set()  # receipted, and still in the outbox
        self._refused: dict[str, str] = {}  # id -> reason; not parked yet
        self._erased: set[str] = set()  # to be forgotten, and still in the outbox
        self._settle_at_s = math.inf
        self._again_s = -math.inf  # when it may be tried again after a failure; -inf: it did not fail

    def __contains__(self, id_: object) -> bool:
        """Whether it need not be looked at: on its way, or answered."""
        return any(id_ in ids for ids in (self._window, self._arrived, self._refused, self._erased))

    def begin(self) -> None:
        """A new connection, or a server that is back: what was on its way goes again.

        The sample of which only some parts had gone continues where it was, and then begins anew: a link that never
        lasts for the whole of it would otherwise never get it across.
        """
        self._window.all_due()
        if self._going is not None:
            self._going.turn()

    def receipt(self, receipt: Receipt, now_s: float) -> None:
        """The server has spoken; nothing it speaks of is sent again."""
        arrived = (*receipt.accepted, *receipt.duplicate)
        answered = (*arrived, *receipt.refused, *receipt.erased)
        self._window.receipted(answered)
        if self._going is not None and self._going.sample.header.id in answered:
            self._going = None
        self._arrived.update(arrived)
        self._erased.update(receipt.erased)
        self._refused |= {id_: reason for id_, reason in receipt.refused.items() if id_ not in self._erased}
        if answered:
            self._settle_at_s = min(self._settle_at_s, now_s + SETTLE_S)

    def settle(self, now_s: float, *, at_once: bool = False) -> float:
        """Note the answers in the outbox, when there are enough of them; seconds until there may be.

        When the disk fails, it is tried again later.
        """
        if not (answered := len(self._arrived) + len(self._refused) + len(self._erased)):
            return math.inf
        # With nothing on its way no more is to come, and nothing to wait for.
        due_s = now_s if answered >= SETTLE_ROWS or not self._window else self._settle_at_s
        if not at_once and (wait_s := max(due_s, self._again_s) - now_s) > 0:
            return wait_s
        try:
            self._note_arrived()
            self._park_refused()
            self._forget_erased()
        except OutboxError as error:
            if self._again_s == -math.inf:
                log.error("uplink: receipts cannot be noted, trying again until they can: %s", error)
            self._again_s = now_s + SETTLE_AGAIN_S
            return SETTLE_AGAIN_S
        self._settle_at_s, self._again_s = math.inf, -math.inf
        return math.inf

    def _note_arrived(self) -> None:
        if self._arrived:
            self._outbox.ack(self._arrived)
            self._arrived.clear()

    def _park_refused(self) -> None:
        for id_, reason in list(self._refused.items()):
            if self._outbox.park(id_, reason):
                log.warning("uplink: the server refused sample %s: %s: it stays in the outbox, parked", id_, reason)
            del self._refused[id_]

    def _forget_erased(self) -> None:
        if self._erased:
            gone = self._outbox.erase(self._erased)
            log.warning("uplink: the server wants %d samples forgotten: they are", gone)
            self._erased.clear()

    def next_due_s(self) -> float:
        """When there is something to send again; infinity when nothing waits for a receipt."""
        return self._window.next_due_s()

    def send(self, publish: Publish, clock: Callable[[], float]) -> float:
        """Send some. Seconds until the next part may go; 0: maybe more at once; negative: nothing is waiting to go."""
        if (wait_s := self._go_on(publish, clock)) > 0:
            return wait_s
        for id_ in self._window.due(clock()):
            again = self._outbox.get(id_)
            if again is None:  # evicted meanwhile
                self._window.forget([id_])
            elif (wait_s := self._start(again, publish, clock)) > 0:
                return wait_s
        new = self._outbox.peek(self._ahead(), exclude=self) if self._window.has_room() else []
        for sample in new:
            if not self._window.has_room():
                return -1.0
            if (wait_s := self._start(sample, publish, clock)) > 0:
                return wait_s
        return 0.0 if new else -1.0

    def _ahead(self) -> int:
        """How many to read at once: several small ones, a single large one, and one where it may have to wait."""
        if self._allowance.limited:
            return 1
        waiting = self._outbox.status()
        return max(1, min(READ_AHEAD, READ_AHEAD_BYTES * waiting.rows // max(1, waiting.bytes)))

    def _start(self, sample: Waiting, publish: Publish, clock: Callable[[], float]) -> float:
        frames = sample_frames(sample.header, sample.body, part_bytes=self._allowance.part_bytes)
        self._going = _Going(sample, frames)
        return self._go_on(publish, clock)

    def _go_on(self, publish: Publish, clock: Callable[[], float]) -> float:
        """Parts of the sample that is going, as far as they may; seconds until the next may."""
        going = self._going
        while going is not None and going.left:
            wait_s = self._allowance.wait_s(packet_bytes(self._topic, going.next_frame, qos=1), clock())
            if wait_s > 0:
                return wait_s
            going.sent(publish(going.next_frame))
        if going is not None:
            self._window.sent(going.sample.header.id, len(going.sample.body), now_s=clock(), taken=going.taken[-1])
            self._going = None
        return 0.0


class _Going:
    """A sample on its way, part by part."""

    def __init__(self, sample: Waiting, frames: list[bytes]) -> None:
        self.sample = sample
        self.frames = frames
        self.first = 0  # index of the part that was sent first
        self.taken: list[Callable[[], bool]] = []  # of the parts sent, in the order of sending

    @property
    def left(self) -> int:
        return len(self.frames) - len(self.taken)

    @property
    def next_frame(self) -> bytes:
        return self.frames[(self.first + len(self.taken)) % len(self.frames)]

    def sent(self, taken: Callable[[], bool]) -> None:
        self.taken.append(taken)

    def turn(self) -> None:
        """All parts again, first those that the broker has not taken."""
        had = next((n for n, taken in enumerate(self.taken) if not taken()), len(self.taken))
        self.first, self.taken = (self.first + had) % len(self.frames), []
