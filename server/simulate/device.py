"""What does a light device do?

All that a server and a broker see of an agent, without a model, a disk or a thread: birth on every connect and when the
server comes back, heartbeats, samples that leave its outbox by their receipts and are sent again otherwise (the agent's
own window and waits), and a version that it is ordered, fetched block by block (the agent's own requests), checked, run
on trial and committed. It is told the time, and what it says goes through `publish`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edge_agent.contract.artifact import decode_manifest
from edge_agent.contract.errors import MessageError
from edge_agent.contract.wire import (
    BlockHeader,
    Desired,
    EventKind,
    Fetch,
    ModelState,
    OutboxState,
    Receipt,
    ServerState,
    Slot,
    Up,
    decode,
    decode_frame,
    encode,
)
from edge_agent.send.window import Window
from edge_agent.update.fetch import Requests
from server.simulate import words
from server.simulate.fetching import Fetching
from server.simulate.shelf import Shelf
from server.simulate.tally import Tally
from server.simulate.words import Self

Publish = Callable[[Up, bytes, int], Callable[[], bool]]
"""kind, payload, QoS -> whether the broker has it."""

READ_PER_S = 10  # samples that its model sees
WINDOW, WINDOW_BYTES = 32, 8 << 20
TRIAL_SPREAD = 0.5  # longer than `trial_s`, at most


class Habits(NamedTuple):
    """What all devices of a simulation have in common."""

    fleet: str
    heartbeat_s: float
    body_bytes: int  # of a sample
    retry_first_s: float
    retry_max_s: float
    trial_s: float  # in which it has seen enough of a new version; real ones take longer, and cost the server no more


class Device:
    """One of them. Times are seconds of a clock that only grows; `at_ms` is the wall's."""

    def __init__(
        self,
        of: Self,
        habits: Habits,
        *,
        version: int,
        sha256: str,
        shelf: Shelf,
        tally: Tally,
        rng: np.random.Generator,
        publish: Publish,
    ) -> None:
        """It executes `version`, the file `sha256`, from the start."""
        self.of, self._habits = of, habits
        self.version, self._sha256 = version, sha256
        self._slot: Slot = "steady"
        self._shelf, self._tally, self._rng, self._publish = shelf, tally, rng, publish
        self._connected, self._server_there = False, True
        self._beat_due_s = self._trial_ends_s = math.inf
        self._started_s: float | None = None
        self._events = self._sent_bytes = self._revision = 0
        self._put = self._acked = 0
        self._waiting: deque[int] = deque()  # numbers of samples not sent yet
        self._first_sent_s: dict[str, float] = {}  # of those on their way
        self._window: Window | None = None  # made when there is something to send: most devices are idle
        self._fetching: Fetching | None = None

    # --- what happens to it ---

    def connected(self, now_s: float, at_ms: int) -> None:
        """The broker has let it in."""
        self._started_s = now_s if self._started_s is None else self._started_s
        self._connected = True
        self._introduce(at_ms)
        self._beat_due_s = now_s

    def lost(self) -> None:
        """The connection is gone."""
        self._connected = False

    def select(self, count: int) -> None:
        """So many samples are worth a label: they are in the outbox now."""
        self._waiting.extend(range(self._put, self._put + count))
        self._put += count
        self._tally.put += count

    def heard(self, kind: str, payload: bytes, retained: bool, now_s: float, at_ms: int) -> None:
        """The server said something; what is not of the wire format is counted, and set aside."""
        try:
            if kind == "receipt":
                self._on_receipt(decode(Receipt, payload), now_s)
            elif kind == "desired":
                self._on_desired(decode(Desired, payload))
            elif kind == "block":
                self._on_block(*decode_frame(BlockHeader, payload), now_s)
            elif kind == "state":
                self._server_there = decode(ServerState, payload).online
                if self._server_there and not retained:
                    self._introduce(at_ms)  # the server came after us, and heard neither birth nor samples
        except MessageError:
            self._tally.bad += 1

    def step(self, now_s: float, at_ms: int) -> float:
        """Do what is due; returns when something will be."""
        if not self._connected:
            return math.inf
        if now_s >= self._trial_ends_s:
            self._commit(at_ms)
            self._beat_due_s = now_s  # news
        if now_s >= self._beat_due_s:
            self._beat(now_s, at_ms)
        due_s = min(self._beat_due_s, self._trial_ends_s)
        if self._server_there:
            due_s = min(due_s, self._send(now_s, at_ms), self._fetch(now_s))
        return due_s

    @property
    def outstanding(self) -> int:
        """Samples without a receipt."""
        return self._put - self._acked

    # --- what it says ---

    def _say(self, kind: Up, payload: bytes, qos: int = 1) -> Callable[[], bool]:
        self._sent_bytes += len(payload)
        self._tally.said(kind, len(payload))
        return self._publish(kind, payload, qos)

    def _introduce(self, at_ms: int) -> None:
        self._say("birth", encode(words.birth(self.of, self._model(), self._outbox(), at_ms=at_ms)))
        if self._window is not None:
            self._window.all_due()
        if self._fetching is not None:
            self._fetching.requests = Requests()

    def _beat(self, now_s: float, at_ms: int) -> None:
        uptime_s = 0.0 if self._started_s is None else now_s - self._started_s
        seen = int(uptime_s * READ_PER_S) // words.STEP * words.STEP
        read = max(seen, -(-self._put // words.STEP) * words.STEP)
        beat = words.heartbeat(
            self.of, self._model(), self._outbox(), read=read, uptime_s=uptime_s, at_ms=at_ms,
            sent_bytes=self._sent_bytes,
        )  # fmt: skip
        self._say("heartbeat", encode(beat), 0)
        self._beat_due_s = now_s + self._habits.heartbeat_s

    def _tell(self, kind: EventKind, text: str, at_ms: int) -> None:
        self._events += 1
        self._say("event", encode(words.event(self.of, self._events, kind, text, self.version, at_ms=at_ms)))

    def _model(self) -> ModelState:
        fetching = self._fetching
        return ModelState(
            version=self.version,
            sha256=self._sha256,
            slot=self._slot,
            fetching=fetching.assignment.version if fetching else 0,
            fetched_share=fetching.share if fetching else 0.0,
            trying=self.version if self._slot == "trial" else 0,
            provider="cpu",
        )

    def _outbox(self) -> OutboxState:
        rows = self.outstanding
        return OutboxState(
            rows=rows,
            bytes=rows * self._habits.body_bytes,
            put_total=self._put,
            acked_total=self._acked,
            since_boot=self.of.boot,
        )

    # --- samples ---

    def _send(self, now_s: float, at_ms: int) -> float:
        if self._window is None:
            if not self._waiting:
                return math.inf
            habits = self._habits
            self._window = Window(
                WINDOW,
                max_bytes=WINDOW_BYTES,
                first_s=habits.retry_first_s,
                max_s=habits.retry_max_s,
                uniform=self._rng.random,
            )
        for id_ in self._window.due(now_s):
            self._tally.again += 1
            self._send_one(int(id_.rpartition(".")[2]), self._window, now_s, at_ms)
        while self._waiting and self._window.has_room():
            self._send_one(self._waiting.popleft(), self._window, now_s, at_ms)
        return self._window.next_due_s()

    def _send_one(self, seq: int, window: Window, now_s: float, at_ms: int) -> None:
        size, id_ = self._habits.body_bytes, str(words.sample_id(self.of, seq))
        taken = self._say("sample", words.sample_frame(self.of, seq, self.version, body_bytes=size, at_ms=at_ms))
        self._first_sent_s.setdefault(id_, now_s)
        window.sent(id_, size, now_s=now_s, taken=taken)

    def _on_receipt(self, receipt: Receipt, now_s: float) -> None:
        self._tally.duplicates += len(receipt.duplicate)
        self._tally.refused += len(receipt.refused)
        for id_ in (*receipt.accepted, *receipt.duplicate, *receipt.refused):
            sent_s = self._first_sent_s.pop(id_, None)
            if sent_s is not None and self._window is not None:
                self._window.receipted([id_])
                self._acked += 1
                self._tally.receipted(now_s - sent_s)

    # --- versions ---

    def _on_desired(self, desired: Desired) -> None:
        wanted = desired.model
        if desired.revision < self._revision or wanted is None:
            return
        self._revision = desired.revision
        at = self._fetching.assignment.version if self._fetching else self.version
        if wanted.version > at:
            self._fetching = Fetching(wanted)

    def _fetch(self, now_s: float) -> float:
        fetching = self._fetching
        if fetching is None:
            return math.inf
        blocks = fetching.requests.due(fetching.missing, now_s)
        if blocks:
            self._say("fetch", encode(Fetch(sha256=fetching.sha256, blocks=blocks)))
            fetching.requests.asked(blocks, now_s)
        return now_s + 1.0

    def _on_block(self, header: BlockHeader, body: memoryview, now_s: float) -> None:
        fetching = self._fetching
        if fetching is None or header.sha256 != fetching.sha256:
            return
        if header.error:
            if fetching.requests.refused(now_s):
                self._tally.bad += 1
                self._fetching = None
            return
        fetching.requests.arrived(header.index, now_s)
        if not self._shelf.put(header, bytes(body)):
            self._tally.bad += 1
            return
        fetching.missing = tuple(index for index in fetching.missing if index != header.index)
        if not fetching.missing:
            self._whole(fetching, now_s)

    def _whole(self, fetching: Fetching, now_s: float) -> None:
        data = self._shelf.whole(fetching.sha256)
        if fetching.file_is_manifest:
            file = next(iter(decode_manifest(data, where=fetching.sha256).files.values()))
            fetching.follow(file.sha256, file.bytes)
            return
        self.version, self._sha256, self._slot = fetching.assignment.version, fetching.sha256, "trial"
        self._fetching = None
        self._beat_due_s = now_s  # news
        self._trial_ends_s = now_s + self._habits.trial_s * (1.0 + TRIAL_SPREAD * float(self._rng.random()))

    def _commit(self, at_ms: int) -> None:
        self._slot, self._trial_ends_s = "steady", math.inf
        self._tally.commits += 1
        self._tell("commit", f"version {self.version} is committed", at_ms)
