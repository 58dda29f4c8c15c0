"""Is this process well, and does it lead?

    GET /healthz   JSON; 503 when what it leads stands still
    GET /metrics   the same for Prometheus

For the processes that have no pages, at an address that is given to each when it starts; nothing that is secret, and
nothing that can be changed. Who hangs while it leads renews its seat no more (election.py): another takes over.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from server.errors import ServerConfigError
from server.roles.tick import Step, Tick, always

STILL_S = 120.0  # in one step: shorter ends a server that reads 10,000 devices, longer leaves one that hangs

log = logging.getLogger(__name__)


class Pulse:
    """Whether who leads now and then gets on with it. Asked from any thread."""

    def __init__(self, *, now_ms: Callable[[], int], monotonic: Callable[[], float] = time.monotonic) -> None:
        """It does not lead yet."""
        self._now_ms, self._monotonic = now_ms, monotonic
        self._tick: Tick | None = None

    @contextmanager
    def leading(self) -> Iterator[None]:
        """As long as the block runs: a first look is overdue in time where the beginning hangs."""
        self._tick = Tick((), now_ms=self._now_ms, monotonic=self._monotonic)
        try:
            yield
        finally:
            self._tick = None

    def look(self, steps: Sequence[Step], stopped: threading.Event, *, acts: Callable[[], bool] = always) -> None:
        """Take the steps once a second, until `stopped`, or as long as it `acts`."""
        self._tick = Tick(steps, now_ms=self._now_ms, acts=acts, monotonic=self._monotonic)
        self._tick.until(stopped)

    @property
    def looked_s(self) -> float | None:
        """When its last step ended, by `monotonic`; None: it does not lead."""
        tick = self._tick
        return tick.looked_s if tick else None

    def beats(self) -> bool:
        """False when a look is overdue."""
        looked_s = self.looked_s
        return looked_s is None or self._monotonic() - looked_s < STILL_S


@dataclass
class Health:
    """What a process says of itself.

    leads: seat -> term, from when it has them until all it does with them has ended. acts: whether they are still its.
    looked_s: of `monotonic`, when its last look ended.
    """

    role: str
    leads: Callable[[], Mapping[str, int]] = dict
    looked_s: Callable[[], float | None] = lambda: None
    acts: Callable[[], bool] = always
    monotonic: Callable[[], float] = field(default=time.monotonic)

    def said(self) -> dict[str, Any]:
        """As it is shown; `well` is false when a look is overdue, also when it has lost its seats over that."""
        terms = dict(self.leads())
        looked_s = self.looked_s()
        age_s = self.monotonic() - looked_s if terms and looked_s is not None else 0.0
        leads = terms if self.acts() else {}
        return {"role": self.role, "leads": leads, "looked_s_ago": round(age_s, 1), "well": age_s < STILL_S}


class _Figures(Collector):
    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        said = self._health.said()
        role = GaugeMetricFamily("winnow_process", "What this process is", labels=["role"])
        role.add_metric([said["role"]], 1)
        yield role
        leads = GaugeMetricFamily("winnow_leads_term", "Term under which this process leads", labels=["seat"])
        for seat, term in said["leads"].items():
            leads.add_metric([seat], term)
        yield leads
        yield GaugeMetricFamily("winnow_look_age_seconds", "Since its last look", value=said["looked_s_ago"])


@contextmanager
def told(health: Health, at: str) -> Iterator[None]:
    """Answer at `host:port`, if any, as long as the block runs. ServerConfigError when nobody can listen there."""
    if not at:
        yield
        return
    server = _listening(health, at)
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    log.info("health at http://%s:%d/healthz", *server.server_address[:2])
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _listening(health: Health, at: str) -> ThreadingHTTPServer:
    host, _, port = at.rpartition(":")
    if not host or not port.isdecimal():
        raise ServerConfigError(f"--health: got {at!r}, expected HOST:PORT: 127.0.0.1:9101")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(health))

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/healthz":
                said = health.said()
                self._answer(200 if said["well"] else 503, "application/json", json.dumps(said).encode())
            elif self.path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            else:
                self._answer(404, "text/plain", b"/healthz or /metrics\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Asked every few seconds: no news."""

    try:
        return ThreadingHTTPServer((host.strip("[]"), int(port)), Answers)
    except (OSError, OverflowError) as error:
        raise ServerConfigError(f"--health: cannot listen at {at}: {error}") from error
