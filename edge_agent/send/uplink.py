"""How do samples reach the server?

    outbox -> window -> broker -> server -> receipt -> outbox empties

Only the server's receipt removes a sample from the outbox: a PUBACK speaks for the broker alone. What gets no receipt
is sent again, so a sample arrives at least once, and the server drops duplicates by id. One thread sends; paho's thread
receives, and calls `on_desired` and `on_block`. While the server says that it is offline, only heartbeats are sent.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

import numpy as np

from edge_agent.contract.broker import TlsFiles
from edge_agent.contract.errors import MessageError, OutboxError, UplinkError
from edge_agent.contract.wire import (
    Birth,
    BlockHeader,
    Death,
    Desired,
    Event,
    Fetch,
    Heartbeat,
    Receipt,
    ServerState,
    Up,
    decode,
    decode_frame,
    down_topic,
    encode,
    sample_frames,
    server_state_topic,
    up_topic,
)
from edge_agent.send.connection import Access, Connection
from edge_agent.send.event_queue import EventQueue
from edge_agent.send.outbox import Outbox, Waiting
from edge_agent.send.window import Window, retry_wait_s

log = logging.getLogger(__name__)

READ_AHEAD = 16  # samples read from the outbox at once; one by one, looking for the next costs more than sending it
READ_AHEAD_BYTES = 1 << 20
WINDOW_MAX_BYTES = 8 << 20  # of bodies on their way; a lower limit starves a fast link, a higher one is memory
DRAIN_LOOK_S = 0.05
FAREWELL_S = 2.0  # longest wait for the broker to have the last words; shorter loses them on a slow link
FAREWELL_LOOK_S = 0.01
JOIN_S = 15.0  # longest wait for the thread to end: a connection that is being made, and a clean close


class Uplink:
    """Keeps a connection, and sends what waits. All methods may be called from any thread."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        tls: TlsFiles | None,
        username: str,
        password: str,
        fleet: str,
        device: str,
        session: str,
        outbox: Outbox,
        window: int,
        retry_first_s: float,
        retry_max_s: float,
        keepalive_s: int,
        heartbeat_s: float,
        birth: Callable[[], Birth],
        heartbeat: Callable[[], Heartbeat],
        on_desired: Callable[[Desired], None],
        on_block: Callable[[BlockHeader, bytes], None],
        rng: np.random.Generator,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is sent before `start`. ConfigError when a file of `tls` cannot be used.

        `device` is the client id; an empty `username` is none; `session` names this run in the will. At most `window`
        samples are sent and not yet receipted. A sample without a receipt, and a connection that fails, is tried again
        after `retry_first_s`, doubling to `retry_max_s`, with jitter from `rng`. `birth` is asked on each connect,
        `heartbeat` every `heartbeat_s`. `on_desired` is called on each connect and each change, `on_block` for each
        block of an artifact; both should return soon, and what they raise is logged.
        """
        self._access = Access(host, port, device, username, password, tls, keepalive_s)
        self._access.context()  # what is wrong with the files now is the operator's to mend
        self._fleet, self._device, self._session = fleet, device, session
        self._outbox = outbox
        self._retry = {"first_s": retry_first_s, "max_s": retry_max_s}
        self._heartbeat_s = heartbeat_s
        self._birth, self._heartbeat = birth, heartbeat
        self._on_desired, self._on_block = on_desired, on_block
        self._rng = rng
        self._monotonic = monotonic
        self._window = Window(window, max_bytes=WINDOW_MAX_BYTES, rng=rng, **self._retry)
        self._readers: dict[str, Callable[[bytes, bool], None]] = {
            down_topic(fleet, device, "desired"): self._read_desired,
            down_topic(fleet, device, "receipt"): self._read_receipt,
            down_topic(fleet, device, "block"): self._read_block,
            server_state_topic(fleet): self._read_state,
        }
        self.messages_bad = 0
        self._bad_kinds: set[str] = set()
        self._events = EventQueue()
        self._receipted: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._server_online = True  # until it says otherwise
        self._server_back = threading.Event()
        self._connection: Connection | None = None
        self._down = False  # and said so
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    def stop(self, *, drain_s: float = 0.0) -> None:
        """Say farewell and disconnect, after at most `drain_s` of waiting for the outbox to empty."""
        deadline_s = self._monotonic() + drain_s
        while self._monotonic() < deadline_s and self._has_more():
            self._stopping.wait(DRAIN_LOOK_S)
        self._stopping.set()
        self._wake.set()
        self._thread.join(JOIN_S)

    @property
    def connected(self) -> bool:
        """Whether the broker has let us in, and knows that we are here."""
        return self._connection is not None and self._connection.alive

    def kick(self) -> None:
        """New rows are waiting in the outbox."""
        self._wake.set()

    def event(self, event: Event) -> None:
        """Say it as soon as there is a connection; of too many that wait the oldest is dropped."""
        self._events.put(event)
        self._wake.set()

    def fetch(self, request: Fetch) -> bool:
        """Ask for blocks; False when there is no connection to ask by."""
        connection = self._connection
        if connection is None or not connection.alive:
            return False
        try:
            connection.publish(self._topic("fetch"), encode(request), qos=1)
        except UplinkError:
            return False
        return True

    # --- sending: the uplink's own thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            connection = self._new_connection()
            cleanly = False
            try:
                connection.open(list(self._readers))
                self._greet(connection)
                failures = 0
                self._serve(connection)
                self._say_farewell(connection)
                cleanly = True
            except (UplinkError, OutboxError) as error:
                self._say_down(error)
            except Exception:  # the supervising loop: without this thread nothing would ever leave the outbox
                log.exception("uplink: a mistake of ours; connecting again")
            finally:
                self._connection = None
                connection.close(cleanly=cleanly)
            self._stopping.wait(retry_wait_s(failures, rng=self._rng, **self._retry))
            failures += 1

    def _new_connection(self) -> Connection:
        will = self._topic("death"), encode(Death(session=self._session))
        return Connection(self._access, will=will, received=self._received, ended=self._wake.set)

    def _greet(self, connection: Connection) -> None:
        self._introduce(connection)
        self._events.restore()
        self._connection = connection
        self._down = False
        log.info("uplink: connected to %s:%d", self._access.host, self._access.port)

    def _introduce(self, connection: Connection) -> None:
        """Birth goes before any sample; what was on its way to whoever was there before goes again."""
        self._server_back.clear()
        connection.publish(self._topic("birth"), encode(self._birth()), qos=1)
        self._window.all_due()

    def _serve(self, connection: Connection) -> None:
        """Until a stop; UplinkError when the connection ends before."""
        heartbeat_at_s = self._monotonic()
        while True:
            self._wake.clear()  # before anything is looked at, or news that come meanwhile would wait
            if self._stopping.is_set():
                return
            if not connection.alive:
                raise UplinkError(connection.why)
            if self._monotonic() >= heartbeat_at_s:
                connection.publish(self._topic("heartbeat"), encode(self._heartbeat()), qos=0)
                heartbeat_at_s = self._monotonic() + self._heartbeat_s
            if self._server_back.is_set():
                self._introduce(connection)
            while not self._receipted.empty():
                self._window.forget(self._receipted.get_nowait())
            if not self._server_online:
                self._wait_until(heartbeat_at_s)
                continue
            self._events.send(lambda event: connection.publish(self._topic("event"), encode(event), qos=1))
            if not self._send_samples(connection):
                self._wait_until(min(heartbeat_at_s, self._window.next_due_s()))

    def _say_farewell(self, connection: Connection) -> None:
        """The last counts, which nothing later makes good, and that this is the end.

        The broker's word is waited for: a socket that closes with it unread may be reset, and the broker take that for
        a crash.
        """
        taken = [
            connection.publish(self._topic("heartbeat"), encode(self._heartbeat()), qos=1),
            connection.publish(self._topic("death"), encode(Death(session=self._session)), qos=1),
        ]
        deadline_s = self._monotonic() + FAREWELL_S
        while connection.alive and self._monotonic() < deadline_s and not all(done() for done in taken):
            time.sleep(FAREWELL_LOOK_S)

    def _wait_until(self, at_s: float) -> None:
        self._wake.wait(max(0.0, at_s - self._monotonic()))

    def _send_samples(self, connection: Connection) -> bool:
        """Send what is due again, then some new ones; whether there may be more to send at once."""
        for id_ in self._window.due(self._monotonic()):
            again = self._outbox.get(id_)
            if again is None:  # evicted meanwhile
                self._window.forget([id_])
            else:
                self._send(connection, again)
        new = self._outbox.peek(self._ahead(), exclude=self._window) if self._window.has_room() else []
        for sample in new:
            if not self._window.has_room():
                return False
            self._send(connection, sample)
        return bool(new)

    def _ahead(self) -> int:
        """How many to read at once: several small ones, a single large one."""
        waiting = self._outbox.status()
        return max(1, min(READ_AHEAD, READ_AHEAD_BYTES * waiting.rows // max(1, waiting.bytes)))

    def _send(self, connection: Connection, sample: Waiting) -> None:
        topic, header = self._topic("sample"), sample.header
        taken = [connection.publish(topic, frame, qos=1) for frame in sample_frames(header, sample.body)]
        self._window.sent(header.id, len(sample.body), now_s=self._monotonic(), taken=taken[-1])

    def _has_more(self) -> bool:
        return self._thread.is_alive() and (bool(self._events) or self._outbox.status().rows > 0)

    def _topic(self, kind: Up) -> str:
        return up_topic(self._fleet, self._device, kind)

    def _say_down(self, error: Exception) -> None:
        if not self._down:
            log.warning(
                "uplink: %s:%d: %s: trying again until it is back; samples wait in the outbox",
                self._access.host,
                self._access.port,
                error,
            )
        self._down = True

    # --- receiving: paho's thread -----------------------------------------------------------------------------------

    def _received(self, topic: str, payload: bytes, retained: bool) -> None:
        kind = topic.rsplit("/", 1)[-1]
        try:
            if (read := self._readers.get(topic)) is None:
                raise MessageError(f"topic {topic[:120]!r} was not subscribed to")
            read(payload, retained)
        except MessageError as error:
            self.messages_bad += 1
            if kind not in self._bad_kinds:
                self._bad_kinds.add(kind)
                log.warning("uplink: the server sent an undecodable %s, more of them are only counted: %s", kind, error)
        except OutboxError as error:
            log.error("uplink: a receipt could not be noted, its samples will be sent again: %s", error)

    def _read_desired(self, payload: bytes, _retained: bool) -> None:
        self._on_desired(decode(Desired, payload))

    def _read_block(self, payload: bytes, _retained: bool) -> None:
        header, body = decode_frame(BlockHeader, payload)
        self._on_block(header, bytes(body))

    def _read_receipt(self, payload: bytes, _retained: bool) -> None:
        """The outbox first: what it could not note stays in the window, and is sent again later, not at once."""
        receipt = decode(Receipt, payload)
        arrived = [*receipt.accepted, *receipt.duplicate]
        self._outbox.ack(arrived)
        for id_, reason in receipt.refused.items():
            if self._outbox.park(id_, reason):
                log.warning("uplink: the server refused sample %s: %s: it stays in the outbox, parked", id_, reason)
        self._receipted.put([*arrived, *receipt.refused])
        self._wake.set()

    def _read_state(self, payload: bytes, retained: bool) -> None:
        """Said just now, not kept by the broker: the server came after us, and heard neither birth nor samples."""
        self._server_online = decode(ServerState, payload).online
        if self._server_online and not retained:
            self._server_back.set()
        self._wake.set()
