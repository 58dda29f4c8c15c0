"""What does the agent say of itself?

The birth on every connect, the heartbeat, status.json for whoever looks on the device, and events (those of updates are
kept on the device too: history.py). Any thread may ask.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import onnxruntime as ort

from edge_agent import __version__
from edge_agent.choose.drift import Alarm
from edge_agent.contract.wire import (
    Birth,
    Budgets,
    Event,
    EventKind,
    Heartbeat,
    LinkState,
    ModelState,
    OutboxState,
    PaceState,
    SourceState,
    StreamCounts,
)
from edge_agent.history import History
from edge_agent.loop import Loop
from edge_agent.send.health import CpuMeter, clock_quality, machine, rss_bytes, temperature_c
from edge_agent.status import STATUS

log = logging.getLogger(__name__)

LOUD = frozenset({"refused", "revert", "error", "alarm"})  # kinds of events that are warnings in the log


class Account:
    """Of one run. `loop` is set once there is one."""

    def __init__(
        self,
        folder: Path,
        *,
        boot: int,
        stream: str,
        heartbeat_s: float,
        model: Callable[[], ModelState],
        outbox: Callable[[], OutboxState],
        messages_bad: Callable[[], int],
        link: Callable[[], LinkState | None],
        budgets: Callable[[], Budgets | None],
        source: Callable[[], SourceState | None],
        pace: Callable[[], PaceState | None],
        tell: Callable[[Event], None],
    ) -> None:
        """`folder` is for status.json; `tell` sends an event, the others are asked whenever something is said."""
        self.session = os.urandom(8).hex()
        self.loop: Loop | None = None
        self._folder = folder
        self._boot = boot
        self._stream = stream
        self._heartbeat_s = heartbeat_s
        self._model = model
        self._outbox = outbox
        self._messages_bad = messages_bad
        self._link = link
        self._budgets = budgets
        self._source = source
        self._pace = pace
        self._tell = tell
        self._history = History(folder)
        self._lock = threading.Lock()  # of the number of events and the history: several threads have something to say
        self._events = 0
        self._samples_per_s = 0.0
        self._cpu, self._cpu_status, self._cpu_look = CpuMeter(), CpuMeter(), CpuMeter()  # since its own last look
        self._started_s = time.monotonic()

    def birth(self) -> Birth:
        """Said on every connect."""
        model = self._model()
        return Birth(
            session=self.session,
            boot=self._boot,
            at_ms=now_ms(),
            agent=__version__,
            runtime=f"onnxruntime {ort.__version__}{f' on {model.provider}' if model.provider else ''}, "
            f"python {sys.version.split()[0]}",
            machine=machine(),
            stream=self._stream,
            model=model,
            outbox=self._outbox(),
            clock=clock_quality(),
            interval_s=self._heartbeat_s,
        )

    def heartbeat(self) -> Heartbeat:
        """Said every `heartbeat_s`."""
        return self._beat(self._cpu)

    def look(self) -> Heartbeat:
        """What a heartbeat would say now, for whoever looks on the device."""
        return self._beat(self._cpu_look)

    def _beat(self, cpu: CpuMeter) -> Heartbeat:
        loop = self.loop
        vitals = loop.record.vitals() if loop else None
        counts, cuts = loop.record.said() if loop else (StreamCounts(read=0, scored=0, invalid=0, selected={}), ())
        return Heartbeat(
            session=self.session,
            boot=self._boot,
            at_ms=now_ms(),
            uptime_s=time.monotonic() - self._started_s,
            model=self._model(),
            counts=counts,
            outbox=self._outbox(),
            samples_per_s=self._samples_per_s,
            latency_p50_ms=vitals.latency_p50_ms if vitals else 0.0,
            latency_p95_ms=vitals.latency_p95_ms if vitals else 0.0,
            label_tokens=loop.selector.purse.label_tokens if loop else 0.0,
            byte_tokens=loop.selector.purse.byte_tokens if loop else None,
            rss_bytes=rss_bytes(),
            cpu_share=cpu.share(),
            temperature_c=temperature_c(),
            messages_bad=self._messages_bad(),
            drift=loop.drift() if loop else None,
            cuts=cuts,
            requests=loop.requests() if loop else (),
            link=self._link(),
            budgets=self._budgets(),
            source=self._source(),
            pace=self._pace(),
        )

    def write_status(self, samples_per_s: float = 0.0) -> None:
        """For `winnow-agent status`; replaced in one step, not flushed: it is worth nothing after a power cut."""
        self._samples_per_s = samples_per_s
        beside = self._folder / (STATUS + ".new")
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(self._beat(self._cpu_status)), indent=1))
        beside.replace(self._folder / STATUS)

    def alarm(self, alarm: Alarm, labels: float) -> None:
        """Tell of drift. During a trial it may be the model that is new, not the world: `slot` says so."""
        model = self._model()
        trial = " during a trial" if model.slot == "trial" else ""
        unit = f" {alarm.unit}" if alarm.unit else ""
        if alarm.kind == "differs":
            what = f"{alarm.signal} differs from the manifest's reference from the start{trial}"
            since = f"over {alarm.since} samples"
        else:
            what = f"{alarm.signal} moved{trial}"
            since = f"since about {alarm.since} samples ({_span(alarm.since_s)}) ago"
        text = f"{what}: {alarm.before:.3g} -> {alarm.after:.3g}{unit}, {since}; {labels:.0f} labels freed"
        detail = {**msgspec.structs.asdict(alarm), "slot": model.slot, "labels": labels}
        self.report("alarm", text, model.version, detail)

    def report(self, kind: EventKind, text: str, version: int, detail: dict[str, str | int | float]) -> None:
        """Log an event, and tell the server."""
        log.log(logging.WARNING if kind in LOUD else logging.INFO, "%s: %s", kind, text)
        with self._lock:
            self._events += 1
            event = Event(
                session=self.session,
                boot=self._boot,
                n=self._events,
                at_ms=now_ms(),
                kind=kind,
                text=text[:1000],
                model_version=version,
                detail=detail,
            )
            self._history.add(event)
        self._tell(event)


def now_ms() -> int:
    """Wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000


def _span(seconds: float) -> str:
    """For people: in the largest unit that gives at least 2.

    >>> [_span(s) for s in (0.5, 119.0, 121.0, 7_300.0, 500_000.0)]
    ['0 s', '119 s', '2 min', '2 h', '6 d']
    """
    for unit, length in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2.0 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
