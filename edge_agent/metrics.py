"""What does a monitoring program on the device's own network read?

`/metrics`, in the text format of Prometheus (prometheus.io/docs/instrumenting/exposition_formats, 0.0.4): the figures
of a heartbeat, made when somebody asks. Off unless `[metrics] listen` names an address. Only standard library: the
format is a line a figure, and a client library would be one more thing to carry to every device.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Literal, NamedTuple

from edge_agent.contract.wire import Heartbeat

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
IDLE_S = 10.0  # after which whoever says nothing is cut off

log = logging.getLogger(__name__)


class Family(NamedTuple):
    """A figure, or one to each value of a label. `name` as it is written, `_total` included."""

    name: str
    kind: Literal["gauge", "counter"]
    about: str
    values: Mapping[str, float]  # "": without a label
    label: str = ""


class Metrics:
    """Serves them until it is stopped."""

    def __init__(self, host: str, port: int, beat: Callable[[], Heartbeat]) -> None:
        """Listen, from now on; OSError when that cannot be. `beat` is asked by each request, in a thread of its own."""
        self._server = _Server(host, port, _handler(beat))
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Without asking DNS for our own name, as HTTPServer does: out of reach, that holds up the agent's start."""
        TCPServer.server_bind(self)


def _handler(beat: Callable[[], Heartbeat]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = IDLE_S

        def do_GET(self) -> None:
            there = self.path.partition("?")[0] == "/metrics"
            body = text(beat()).encode() if there else b"see /metrics\n"
            self.send_response(200 if there else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            log.debug(format, *args)

    return Handler


def text(beat: Heartbeat) -> str:
    """A heartbeat in the text format.

    >>> next(_lines(Family("winnow_agent_up_seconds", "gauge", "Since its start", {"": 2.5})))
    '# HELP winnow_agent_up_seconds Since its start'
    """
    return "".join(f"{line}\n" for family in _families(beat) if family.values for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.about}"
    yield f"# TYPE {family.name} {family.kind}"
    for value, figure in family.values.items():
        labels = f'{{{family.label}="{_escaped(value)}"}}' if family.label else ""
        whole = float(figure).is_integer()
        yield f"{family.name}{labels} {int(figure) if whole else float(figure)!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _gauge(name: str, about: str, figure: float | None) -> Family:
    return Family(f"winnow_agent_{name}", "gauge", about, {} if figure is None else {"": figure})


def _count(name: str, about: str, figure: float) -> Family:
    return Family(f"winnow_agent_{name}_total", "counter", about, {"": figure})


def _counts(name: str, about: str, figures: Mapping[str, float], label: str) -> Family:
    return Family(f"winnow_agent_{name}_total", "counter", about, figures, label)


def _families(beat: Heartbeat) -> Iterator[Family]:
    yield _gauge("uptime_seconds", "Since the agent started", beat.uptime_s)
    yield _gauge("model_version", "Version that it executes; 0: none", beat.model.version)
    yield _gauge("refused_versions", "Versions that it will not run", len(beat.model.refused))
    yield _count("samples_read", "Samples that its source gave", beat.counts.read)
    yield _count("samples_scored", "Samples that its model judged", beat.counts.scored)
    yield _count("samples_invalid", "Samples, or logits of them, that were not finite", beat.counts.invalid)
    yield _counts("samples_selected", "Samples selected, by why", beat.counts.selected, "reason")
    yield _gauge("latency_p50_seconds", "Of an inference, median", beat.latency_p50_ms / 1000)
    yield _gauge("latency_p95_seconds", "Of an inference, 95th percentile", beat.latency_p95_ms / 1000)
    yield _gauge("label_tokens", "Labels that it may spend at once", beat.label_tokens)
    yield _gauge("resident_memory_bytes", "Memory of the agent", beat.rss_bytes)
    yield _gauge("cpu_cores", "Cores that the agent is using", beat.cpu_share)
    if beat.pace is not None:
        yield _gauge("pace_share", "Of its time that it works; below 1 while the machine is too hot", beat.pace.share)
    yield _gauge("temperature_celsius", "Of the processor", beat.temperature_c)
    yield _count("messages_bad", "Messages from the server that were not of the wire format", beat.messages_bad)
    yield from _of_outbox(beat)
    if beat.link is not None:
        yield _count("link_sent_bytes", "MQTT messages sent", beat.link.sent_bytes)
        yield _count("link_received_bytes", "MQTT messages received", beat.link.received_bytes)
        held = {why: float(beat.link.held == why) for why in ("quiet", "metered", "budget", "paused")}
        yield Family("winnow_agent_link_held", "gauge", "Whether samples are held back, and why", held, "why")
    if beat.drift is not None:
        yield _gauge("drift_statistic", "Of the drift chart; an alarm goes at the threshold", beat.drift.statistic)
        yield _gauge("drift_threshold", "Of the drift chart", beat.drift.threshold)


def _of_outbox(beat: Heartbeat) -> Iterator[Family]:
    outbox = beat.outbox
    yield _gauge("outbox_samples", "Samples that wait for their receipt", outbox.rows)
    yield _gauge("outbox_bytes", "Bytes of samples that wait", outbox.bytes)
    yield _gauge("outbox_oldest_seconds", "Age of the oldest sample that waits", outbox.oldest_age_s)
    yield _gauge("outbox_parked_samples", "Samples that the server refused, kept to be looked at", outbox.parked)
    yield _gauge("outbox_storing", "1 while there is room on the disk", float(outbox.storing))
    yield _counts("outbox_evicted_samples", "Samples let go by a rule, by which", outbox.evicted, "reason")
    yield _count("outbox_delivered_samples", "Samples that the server has", outbox.acked_total)
