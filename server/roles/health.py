"""Is this process well, and does it lead?

    GET /healthz   JSON; 503 when what it leads stands still
    GET /metrics   the same for Prometheus

For the processes that have no pages, at an address that is given to each when it starts; nothing that is secret, and
nothing that can be changed.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from server.errors import ServerConfigError

STILL_S = 120.0  # without a look: shorter ends a server that reads 10,000 devices, longer leaves one that hangs

log = logging.getLogger(__name__)


@dataclass
class Health:
    """What a process says of itself. `leads`: seat -> term. `looked_s`: of `monotonic`, when its last look ended."""

    role: str
    leads: Callable[[], Mapping[str, int]] = dict
    looked_s: Callable[[], float | None] = lambda: None
    monotonic: Callable[[], float] = field(default=time.monotonic)

    def said(self) -> dict[str, Any]:
        """As it is shown; `well` is false when a look is overdue."""
        terms = dict(self.leads())
        looked_s = self.looked_s()
        age_s = self.monotonic() - looked_s if terms and looked_s is not None else 0.0
        return {"role": self.role, "leads": terms, "looked_s_ago": round(age_s, 1), "well": age_s < STILL_S}


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
