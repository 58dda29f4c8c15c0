"""What if somebody wants something forgotten?

The server's order names samples, or all that the device has. They go from the outbox without a trace (outbox_file.py);
the recent ring is emptied whatever is named, since it tells nobody what of a sample it still holds. Only when all of it
is done is it said, with the last sample that went: what comes later is new, and the server takes it.

An order that fails half-way is obeyed again from its beginning, in the next run too: the server keeps it (it is
retained) until it hears that it was obeyed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from edge_agent.contract.errors import OutboxError
from edge_agent.contract.types import SampleId
from edge_agent.contract.wire import Purge, Purged
from edge_agent.send.outbox import Outbox
from edge_agent.send.recent import Recent

CLEAR_S = 10.0  # longest wait for the ring's thread, which may be comparing; then it is tried again


class Purging:
    """`new` may be called from any thread, the rest from the writer's."""

    def __init__(
        self, outbox: Outbox, recent: Recent | None, *, boot: int, logs: Collection[Path], done: Callable[[], None]
    ) -> None:
        """`logs`: files that go with all the rest. `done` is called when an order was obeyed and noted."""
        self._outbox, self._recent = outbox, recent
        self._logs, self._done = logs, done
        self._last = (boot, -1)  # (boot, seq) of the last sample put
        said = outbox.status().purged
        self._asked = said.id if said else 0

    def new(self, purges: Iterable[Purge]) -> tuple[Purge, ...]:
        """Those that were not asked for before, in their order."""
        found = tuple(sorted((purge for purge in purges if purge.id > self._asked), key=lambda purge: purge.id))
        self._asked = found[-1].id if found else self._asked
        return found

    def put(self, ids: Iterable[SampleId]) -> None:
        """These samples are in the outbox now; one out of the recent ring is older than the last."""
        self._last = max([self._last, *((id_.boot, id_.seq) for id_ in ids)])

    def obey(self, purge: Purge) -> None:
        """Forget what it names. OutboxError or OSError when that cannot be; then it is to be obeyed again."""
        if self._recent is not None and not self._recent.clear(within_s=CLEAR_S):
            raise OutboxError("the recent ring is busy")
        gone = self._outbox.erase(purge.samples or None)
        if not purge.samples:
            for path in self._logs:
                path.unlink(missing_ok=True)
        boot, seq = self._last
        self._outbox.purged(Purged(id=purge.id, boot=boot, seq=seq, samples=gone))
        self._done()
