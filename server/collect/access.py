"""Who may say what to whom?

The rules of a broker that knows its clients, in mosquitto's words: a device (`%u` is its name, which its certificate
says) writes below its own `up`, reads below its own `down`, and hears whether the server is there; the server hears
every device, and tells each; a worker hears every device, and tells what became of samples. Everything else is
nobody's: nothing here is granted by a wildcard that a device chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edge_agent.contract.wire import DOWN, ROOT, UP, probe_topic, server_state_topic


class Client(NamedTuple):
    """A process that only takes in: its name as a client, and the one by which it tries the broker (probe.py)."""

    name: str
    probe: str


class Audience(NamedTuple):
    """Home Assistant: its name as a client, and the first part of its topics."""

    client: str
    prefix: str


def rules(fleet: str, *, server: str, workers: Sequence[Client] = (), audience: Audience | None = None) -> str:
    """Mosquitto's `acl_file` for a fleet; `server` is the name by which the server itself comes in.

    `workers`: those that take in, if others do. `audience`: a program that may listen to heartbeats, and is told by the
    server below a topic of its own.

    >>> print(rules("farm", server="winnow.server").splitlines()[-1])
    pattern read winnow/1/farm/server/state
    """
    ours = f"{ROOT}/{fleet}"
    lines = [
        f"user {server}",
        f"topic read {ours}/+/up/+",
        f"topic write {ours}/+/down/+",
        f"topic write {server_state_topic(fleet)}",
        *([f"topic write {audience.prefix}/#", "", *_audience(ours, audience)] if audience else []),
        *(line for worker in workers for line in ("", *_worker(fleet, ours, worker))),
        "",
        *(f"pattern write {ours}/%u/up/{kind}" for kind in UP),
        *(f"pattern read {ours}/%u/down/{kind}" for kind in DOWN),
        f"pattern read {server_state_topic(fleet)}",
    ]
    return "\n".join(lines) + "\n"


def _worker(fleet: str, ours: str, worker: Client) -> list[str]:
    tried = probe_topic(fleet, "+")
    return [
        f"user {worker.name}",
        f"topic read {ours}/+/up/+",
        f"topic write {ours}/+/down/receipt",
        f"topic readwrite {server_state_topic(fleet)}",
        f"topic readwrite {tried}",
        "",
        f"user {worker.probe}",
        f"topic readwrite {tried}",
    ]


def _audience(ours: str, audience: Audience) -> list[str]:
    return [
        f"user {audience.client}",
        f"topic read {audience.prefix}/#",
        f"topic write {audience.prefix}/status",
        f"topic read {ours}/+/up/heartbeat",
    ]
