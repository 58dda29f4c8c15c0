"""What went by lately without being selected?

A bounded ring of recent samples on the disk, for whoever asks for "more like this": what has passed can still be
found. Thinned, so that a flash card lasts: at most `bytes_per_day` are written in any 24 hours (and one sample more),
evenly in time, in writes of WRITE_BYTES or once in FLUSH_S. All of it happens in a thread of its own; the loop hands
over a reference when a sample is due, and never waits. A ring is a help, not a promise: a full queue or a full disk
costs samples of the ring, nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.outputs import said_bytes
from edge_agent.contract.types import Prediction, SampleId
from edge_agent.contract.wire import Request
from edge_agent.send.outbox_file import free_bytes
from edge_agent.send.privacy import Privacy, Private
from edge_agent.send.ring import Gone, Kept, Place, Ring, pack, pack_sample

log = logging.getLogger(__name__)

DAY_S = 86_400.0
WRITE_BYTES = 256 * 1024  # to one write: fewer wear a flash card, whose blocks are larger, more are lost in a power cut
CREDIT_S = 1.0  # of bytes that may be made up for: samples come in blocks; more keeps a run of one scene
FLUSH_S = 60.0  # longest wait of a sample for its write
WAITING = 16  # samples between the loop and the disk: fewer miss some when it is slow, more is memory
AHEAD = 4  # found samples that may wait for the loop
BREATH = 200  # records compared between two pauses that let the loop have the processor
HEADER_BYTES = 500  # of a record, at most, unless `ref` is long; what the model said comes on top
COMPARED_MAX = 4096  # sketches near enough to be compared with each other: more would all be of the same scene

Pick = Callable[[NDArray[np.float32], Request], list[int]]


class Passing(NamedTuple):
    """A sample that was not selected."""

    id: SampleId
    ref: str
    captured_at_ms: int
    data: NDArray[np.generic]
    prediction: Prediction
    utility: float
    version: int
    sketch: NDArray[np.float32] | None


class Hit(msgspec.Struct, frozen=True):
    """A recent sample that is near to what a request asks for."""

    request: Request
    kept: Kept
    data: NDArray[np.generic]
    sketch: NDArray[np.float32]


class Searched(msgspec.Struct, frozen=True):
    """All hits of a request have been handed out. unsearchable: of another version, so they could not be compared."""

    request: Request
    compared: int
    unsearchable: int


class Recent:
    """The ring and its thread. `due`, `keep`, `sent` and `found` are for the loop, `search` and `clear` for anybody."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        bytes_per_day: float,
        min_free_disk_bytes: int,
        pick: Pick,
        privacy: Privacy | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """OSError when `folder` cannot be used.

        `pick`: which of the sketches (N, D) are a request's best answers. `privacy`: what is taken out of samples
        first; one that has to be blanked is not kept.
        """
        self._ring = Ring(folder, max_bytes=max_bytes)
        self._folder = folder
        self._s_per_byte = DAY_S / bytes_per_day
        self._min_free_disk_bytes = min_free_disk_bytes
        self._pick = pick
        self._privacy = privacy or Privacy(())
        self._monotonic = monotonic
        self._due_s = monotonic()
        self._queue: queue.Queue[Passing | Gone | Request | threading.Event | None] = queue.Queue()
        self._room = threading.Semaphore(WAITING)
        self._found: queue.Queue[Hit | Searched] = queue.Queue(AHEAD)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._flush_at_s = 0.0
        self._complained = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recent", daemon=True)

    def start(self) -> None:
        """Begin to keep and to search."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(2.0)

    # --- the loop's side ---

    def due(self) -> bool:
        """Whether the next sample that goes by may be kept."""
        return self._monotonic() >= self._due_s

    def keep(self, passing: Passing) -> None:
        """Keep one, now that it is due; the next one is due when its bytes are earned."""
        if not self._room.acquire(blocking=False):
            return
        cost_s = (passing.data.nbytes + HEADER_BYTES + said_bytes(passing.prediction.said)) * self._s_per_byte
        self._due_s = max(self._due_s, self._monotonic() - CREDIT_S) + cost_s
        self._queue.put(passing)

    def sent(self, id_: str) -> None:
        """This one was sent after all: it is not to be found again."""
        self._queue.put(Gone(id_))

    def found(self) -> Hit | Searched | None:
        """The next of what searches have found, if any; does not wait."""
        with contextlib.suppress(queue.Empty):
            return self._found.get_nowait()
        return None

    def clear(self, *, within_s: float) -> bool:
        """Forget all that was kept, and what was found of it; False when that is not done in time."""
        done = threading.Event()
        self._queue.put(done)
        return done.wait(within_s)

    def search(self, request: Request) -> None:
        """Look for a request among what is here; `found` gives the hits, and then a Searched."""
        self._queue.put(request)

    # --- the thread ---

    def _run(self) -> None:
        going = True
        while going:
            try:
                going = self._step()
                self._complained = False
            except OSError as error:  # of the ring only; the samples that matter go another way
                self._pending, self._pending_bytes = [], 0
                if not self._complained:
                    log.error("%s: %s: recent samples are not kept meanwhile", self._folder, error.strerror or error)
                self._complained = True

    def _step(self) -> bool:
        """Take one thing from the queue; False at the end."""
        wait_s = max(0.0, self._flush_at_s - self._monotonic()) if self._pending else None
        try:
            item = self._queue.get(timeout=wait_s)
        except queue.Empty:
            self._flush()
            return True
        if isinstance(item, Passing):
            self._room.release()
            private = self._privacy.apply(item.data, said=item.prediction.said)
            if private.sound:
                self._add(pack_sample(_kept(item, private), private.data))
        elif isinstance(item, Gone):
            self._add(pack(item))
        elif isinstance(item, threading.Event):
            self._clear()
            item.set()
        else:
            self._flush()
            if item is not None and not self._stopping.is_set():
                self._search(item)
        return item is not None

    def _add(self, record: bytes) -> None:
        if len(record) > self._ring.record_max_bytes:
            log.debug("a recent sample of %d bytes is too large for the ring", len(record))
            return
        if self._pending_bytes + len(record) > min(WRITE_BYTES, self._ring.record_max_bytes):
            self._flush()
        if not self._pending:
            self._flush_at_s = self._monotonic() + FLUSH_S
        self._pending.append(record)
        self._pending_bytes += len(record)

    def _clear(self) -> None:
        self._pending, self._pending_bytes = [], 0
        self._ring.clear()
        news = list(iter(self.found, None))
        for ended in news:
            if isinstance(ended, Searched):  # whoever asked waits for that word
                self._found.put_nowait(ended)

    def _flush(self) -> None:
        records, self._pending, self._pending_bytes = b"".join(self._pending), [], 0
        if records and free_bytes(self._folder) >= self._min_free_disk_bytes + len(records):
            self._ring.append(records)

    def _search(self, request: Request) -> None:
        near, compared, unsearchable = self._compare(request)
        sketches = np.array([sketch for sketch, _ in near], np.float32)
        for row in self._pick(sketches, request) if near else []:
            sketch, place = near[row]
            if (read := self._ring.read(place)) is not None and not self._tell(Hit(request, *read, sketch)):
                return
        self._tell(Searched(request, compared, unsearchable))

    def _compare(self, request: Request) -> tuple[list[tuple[NDArray[np.float32], Place]], int, int]:
        """The nearest, with their sketches; how many were compared, and how many could not be."""
        wanted = np.array(request.sketch, np.float32)
        near: dict[str, tuple[float, NDArray[np.float32], Place]] = {}
        compared = unsearchable = 0
        for number, (record, place) in enumerate(self._ring.records()):
            if number % BREATH == 0:
                self._stopping.wait(0.001)
            if isinstance(record, Gone):
                near.pop(record.id, None)
                continue
            sketch = np.frombuffer(record.sketch, np.float32)
            if record.version != request.version or sketch.shape != wanted.shape:
                unsearchable += 1
                continue
            compared += 1
            if (cosine := float(sketch @ wanted)) >= request.similar:
                near[record.id] = (cosine, sketch, place)
        best = sorted(near.values(), key=lambda one: -one[0])[:COMPARED_MAX]
        return [(sketch, place) for _, sketch, place in best], compared, unsearchable

    def _tell(self, news: Hit | Searched) -> bool:
        """Hand it to the loop, when it has room; False at a stop."""
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Full):
                self._found.put(news, timeout=0.1)
                return True
        return False


def _kept(item: Passing, private: Private) -> Kept:
    return Kept(
        id=str(item.id),
        ref=item.ref[:200].encode("utf-8", "replace").decode(),
        captured_at_ms=item.captured_at_ms,
        dtype=str(item.data.dtype),
        shape=item.data.shape,
        packed=False,
        label=item.prediction.label,
        confidence=item.prediction.confidence,
        utility=item.utility,
        version=item.version,
        sketch=b"" if item.sketch is None else np.asarray(item.sketch, np.float32).tobytes(),
        transforms=private.transforms,
        said=private.said,
    )
