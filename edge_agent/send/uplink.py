"""How do samples reach the server?

    outbox -> window -> broker -> server -> receipt -> outbox empties

Only the server's receipt removes a sample from the outbox: a PUBACK speaks for the broker alone. What gets no receipt
is sent again, so a sample arrives at least once, and the server drops duplicates by id. One thread sends; paho's thread
receives, and calls `on_desired` and `on_block`. While the server says that it is offline, only heartbeats are sent.

What goes first: the birth, a heartbeat that is due, events, then samples; while one of them waits for the allowance,
nothing behind it goes. In a lull (quiet hours, a link that costs) samples wait, and heartbeats are seldom; while
uploads are paused samples wait, and all else goes on.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_agent.contract.broker import TlsFiles
from edge_agent.contract.errors import OutboxError, UplinkError
from edge_agent.contract.wire import (
    Birth,
    BlockHeader,
    Death,
    Desired,
    Event,
    Fetch,
    Heartbeat,
    Held,
    LinkState,
    Receipt,
    Up,
    encode,
    up_topic,
)
from edge_agent.send.access import Access, packet_bytes
from edge_agent.send.allowance import Allowance
from edge_agent.send.beats import Beats
from edge_agent.send.event_queue import EventQueue
from edge_agent.send.inbox import Inbox
from edge_agent.send.lull import spares_link
from edge_agent.send.outbox import Outbox
from edge_agent.send.sender import Sender
from edge_agent.send.window import Window, retry_wait_s

if TYPE_CHECKING:
    from edge_agent.send.connection import Connection

log = logging.getLogger(__name__)

WINDOW_MAX_BYTES = 8 << 20  # of bodies on their way; a lower limit starves a fast link, a higher one is memory
SPENT_S = 30.0  # a sample that has to wait longer waits for the day's bytes: bytes_per_s makes it wait 5 s at most
FETCH_BYTES = 300  # of a request for a run of blocks by HTTPS
LULL_LOOK_S = 2.0  # how long the end of a lull may go unnoticed
DRAIN_LOOK_S = 0.05
FAREWELL_S = 2.0  # longest wait for the broker to have the last words; shorter loses them on a slow link
FAREWELL_LOOK_S = 0.01
LATEST_S = 2.0  # that a connection lets a device's first answers go before it: the server waits for a silent source
JOIN_S = 15.0  # longest wait for the thread to end: a connection that is being made, and a clean close


class Uplink:
    """Keeps a connection, and sends what waits. All methods may be called from any thread."""

    _after: threading.Event | None = None  # what it lets go before it connects

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
        uniform: Callable[[], float],
        allowance: Allowance | None = None,
        lull: Callable[[], Held] = lambda: "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is sent before `start`. ConfigError when a file of `tls` cannot be used.

        `device` is the client id; an empty `username` is none; `session` names this run in the will. At most `window`
        samples are sent and not yet receipted. A sample without a receipt, and a connection that fails, is tried again
        after `retry_first_s`, doubling to `retry_max_s`, with jitter from `uniform`. `birth` is asked on each connect,
        `heartbeat` every `heartbeat_s`. `on_desired` is called on each connect and each change, `on_block` for each
        block of an artifact; both should return soon, and what they raise is logged. `allowance`: None is without
        limits. `lull` says why samples are to wait now, "" when they are not.
        """
        self._access = Access(host, port, device, username, password, tls, keepalive_s)
        self._access.context()  # what is wrong with the files now is the operator's to mend
        self._topic = functools.partial(up_topic, fleet, device)
        self._session, self._outbox = session, outbox
        self._retry = {"first_s": retry_first_s, "max_s": retry_max_s}
        self._birth, self._heartbeat = birth, heartbeat
        self._uniform, self._monotonic = uniform, monotonic
        self._allowance = allowance or Allowance()
        self._lull, self._paused_ms = lull, 0
        self._held: Held = ""
        self._beats = Beats(heartbeat_s, self._allowance)
        on_its_way = Window(window, max_bytes=WINDOW_MAX_BYTES, uniform=uniform, **self._retry)
        self._sender = Sender(outbox, on_its_way, self._allowance, topic=self._topic("sample"))
        self._inbox = Inbox(
            fleet, device, on_desired=on_desired, on_block=on_block,
            on_receipt=self._note_receipt, on_state=self._note_state,
        )  # fmt: skip
        self._events = EventQueue()
        self._receipted: queue.SimpleQueue[Receipt] = queue.SimpleQueue()
        self._server_online = True  # until it says otherwise
        self._connection: Connection | None = None
        self._down, self._short_s = False, 0.0  # and said so; how long the next part has to wait for the allowance
        self._wake, self._server_back, self._stopping = threading.Event(), threading.Event(), threading.Event()
        self._news = threading.Event()  # for the next heartbeat, which is due then
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    def start(self, after: threading.Event | None = None) -> None:
        """Begin to connect once `after` is set, or soon; returns at once."""
        self._after = after
        self._thread.start()

    def stop(self, *, drain_s: float = 0.0) -> None:
        """Say farewell and disconnect, after at most `drain_s` of waiting for the outbox to empty."""
        deadline_s = self._monotonic() + drain_s
        while self._monotonic() < deadline_s and self._has_more():
            self._stopping.wait(DRAIN_LOOK_S)
        self._stopping.set()
        self._wake.set()
        if self._after is not None:
            self._after.set()
        self._thread.join(JOIN_S)

    @property
    def connected(self) -> bool:
        """Whether the broker has let us in, and knows that we are here."""
        return self._connection is not None and self._connection.alive

    @property
    def messages_bad(self) -> int:
        """From the server, and not to be understood."""
        return self._inbox.messages_bad

    @property
    def link(self) -> LinkState:
        """What travelled, and why samples wait."""
        return LinkState(
            sent_bytes=self._allowance.sent_bytes,
            received_bytes=self._allowance.received_bytes,
            day_tokens=self._allowance.day_tokens(self._monotonic()),
            held=self._held,
            heartbeat_s=self._beats.every_s(self._held),
            paused_ms=self._paused_ms,
        )

    def kick(self) -> None:
        """New rows are waiting in the outbox."""
        self._wake.set()

    def introduce(self) -> None:
        """Say the birth again before any further sample: something changed that the server must know first."""
        self._server_back.set()
        self._wake.set()

    def pause(self, at_ms: int) -> None:
        """Let samples wait, as was said at `at_ms`; 0: let them go on."""
        self._paused_ms = at_ms
        self._wake.set()

    def beat(self) -> None:
        """Say a heartbeat as soon as there is room for it: something changed that somebody waits to see."""
        self._news.set()
        self._wake.set()

    def event(self, event: Event) -> None:
        """Say it as soon as there is a connection; of too many that wait the oldest is dropped."""
        self._events.put(event)
        self._wake.set()

    def fetch(self, request: Fetch) -> bool:
        """Ask for blocks; False when there is no connection to ask by, or the link is not to carry them now."""
        connection = self._connection
        payload = encode(request)
        size = packet_bytes(self._topic("fetch"), payload, qos=1)
        if connection is None or not connection.alive or spares_link(self._held):
            return False
        if self._allowance.wait_s(size, self._monotonic()) > 0:
            return False
        try:
            self._publish(connection, "fetch", payload)
        except (UplinkError, OutboxError):  # the latter: the day's bytes cannot be noted
            return False
        return True

    def carries(self) -> bool:
        """Whether models may come beside the broker now: that is the same link, with the same lulls and limits."""
        return not self._lull() and self._allowance.wait_s(FETCH_BYTES, self._monotonic()) == 0

    def carried(self, size: int) -> None:
        """So many bytes came beside the broker."""
        with contextlib.suppress(OutboxError):  # the day's bytes cannot be noted: they are counted all the same
            self._allowance.received(size, self._monotonic())

    # --- sending: the uplink's own thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        if self._after is not None:
            self._after.wait(LATEST_S)
        failures = 0
        while not self._stopping.is_set():
            connection = self._new_connection()
            cleanly = False
            try:
                connection.open(self._inbox.topics)
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
                self._take_receipts(at_once=True)
            self._stopping.wait(retry_wait_s(failures, uniform=self._uniform, **self._retry))
            failures += 1

    def _new_connection(self) -> Connection:
        from edge_agent.send.connection import Connection  # brings paho, HTTP and TLS: no sample waits for those

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
        payload = encode(self._birth())
        self._publish(connection, "birth", payload)
        self._beats.expect(len(payload))  # it says much the same
        self._sender.begin()

    def _serve(self, connection: Connection) -> None:
        """Until a stop; UplinkError when the connection ends before."""
        self._beats.start(self._monotonic())
        while True:
            self._wake.clear()  # before anything is looked at, or news that come meanwhile would wait
            if self._stopping.is_set():
                self._take_receipts(at_once=True)  # the last counts tell of them
                return
            if not connection.alive:
                raise UplinkError(connection.why)
            if self._server_back.is_set():
                self._introduce(connection)
            wait_s = min(self._take_receipts(), self._send_next(connection))
            if wait_s > 0:
                self._wake.wait(wait_s)

    def _take_receipts(self, *, at_once: bool = False) -> float:
        """Seconds until more is to be done about them."""
        while not self._receipted.empty():
            self._sender.receipt(self._receipted.get_nowait(), self._monotonic())
        return self._sender.settle(self._monotonic(), at_once=at_once)

    def _send_next(self, connection: Connection) -> float:
        """Send what may go now, the most urgent first; seconds until there may be more."""
        lull = self._lull()
        paused = self._paused_ms > 0
        self._held = lull or ("paused" if paused else "") or ("budget" if self._short_s > SPENT_S else "")
        beat_s = self._beat(connection)
        if not self._server_online:
            return beat_s
        if self._server_back.is_set():  # since we looked: its birth goes first
            return 0.0
        if (wait_s := self._tell_events(connection)) > 0:
            return min(wait_s, beat_s)
        if lull or paused or self._beats.is_due(self._monotonic()):
            return min(LULL_LOOK_S, beat_s)
        wait_s = self._sender.send(lambda frame: self._publish(connection, "sample", frame), self._monotonic)
        self._short_s = max(0.0, wait_s)
        return min(wait_s if wait_s >= 0 else self._sender.next_due_s() - self._monotonic(), beat_s)

    def _beat(self, connection: Connection) -> float:
        """Say the heartbeat if it is due and may go; seconds until the next look at it."""
        if self._news.is_set():
            self._news.clear()  # before it is made, or news that come meanwhile would wait
            self._beats.start(self._monotonic())
        if (wait_s := self._beats.wait_s(self._monotonic(), self._held)) > 0:
            return wait_s
        payload = encode(self._heartbeat())
        self._publish(connection, "heartbeat", payload, qos=0)
        self._beats.said(packet_bytes(self._topic("heartbeat"), payload, qos=0), self._monotonic(), self._held)
        return self._beats.every_s(self._held)

    def _tell_events(self, connection: Connection) -> float:
        """Seconds until the next one may go; 0 when all are told."""
        wait_s = 0.0

        def tell(event: Event) -> Callable[[], bool] | None:
            nonlocal wait_s
            payload = encode(event)
            size = packet_bytes(self._topic("event"), payload, qos=1)
            wait_s = self._allowance.wait_s(size, self._monotonic(), urgent=True)
            return self._publish(connection, "event", payload) if wait_s == 0 else None

        self._events.send(tell)
        return wait_s

    def _publish(self, connection: Connection, kind: Up, payload: bytes, *, qos: int = 1) -> Callable[[], bool]:
        topic = self._topic(kind)
        self._allowance.sent(packet_bytes(topic, payload, qos=qos), self._monotonic())
        return connection.publish(topic, payload, qos=qos)

    def _say_farewell(self, connection: Connection) -> None:
        """The last counts, which nothing later makes good, and that this is the end.

        The broker's word is waited for: a socket that closes with it unread may be reset, and the broker take that for
        a crash.
        """
        taken = [
            self._publish(connection, "heartbeat", encode(self._heartbeat())),
            self._publish(connection, "death", encode(Death(session=self._session))),
        ]
        deadline_s = self._monotonic() + FAREWELL_S
        while connection.alive and self._monotonic() < deadline_s and not all(done() for done in taken):
            time.sleep(FAREWELL_LOOK_S)

    def _has_more(self) -> bool:
        return self._thread.is_alive() and (bool(self._events) or (not self._held and self._outbox.status().rows > 0))

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
        try:
            self._allowance.received(packet_bytes(topic, payload, qos=1), self._monotonic())
        finally:  # a disk that fails to note the bytes must not lose what came
            self._inbox.take(topic, payload, retained)

    def _note_receipt(self, receipt: Receipt) -> None:
        self._receipted.put(receipt)
        self._wake.set()

    def _note_state(self, online: bool, retained: bool) -> None:
        """Said just now, not kept by the broker: the server came after us, and heard neither birth nor samples."""
        if online and not retained:
            self.introduce()  # before samples may go
        self._server_online = online
        self._wake.set()
        self._wake.set()
