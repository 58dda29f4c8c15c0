"""What takes in what devices send?"""

from __future__ import annotations

from collections.abc import Callable, Collection

from edge_agent.contract.wire import UP, Fetch, Up
from server.collect.collector import Collector, nothing
from server.collect.division import WHOLE, Division
from server.collect.gateway import BrokerAddress, Voice
from server.collect.ingest import Ingest
from server.collect.turns import UNLIMITED, Limit
from server.config import ServerConfig
from server.store.beats import DAY_MS
from server.store.store import Store

ANSWERED: tuple[Up, ...] = ("fetch",)
"""Kinds of messages that are for whoever answers devices, wherever the others are taken in."""
TAKEN: tuple[Up, ...] = tuple(kind for kind in UP if kind not in ANSWERED)
"""What workers take in."""


def collector_of(
    config: ServerConfig,
    store: Store,
    address: BrokerAddress,
    *,
    now_ms: Callable[[], int],
    on_fetch: Callable[[str, Fetch], None] = nothing,
    on_samples: Callable[[int], None] = nothing,
    division: Division = WHOLE,
    among: int = 1,
    kinds: Collection[Up] = UP,
    voice: Voice = "server",
    sweeps: bool = True,
) -> Collector:
    """As configured; the rest as in Collector. `among`: how many share what one device may send."""
    collect, retention, fleet = config.collect, config.retention, config.server.fleet
    rates = (collect.device_messages_per_s, collect.device_bytes_per_s)
    return Collector(
        Ingest(
            store,
            fleet=fleet,
            offline_after_s=collect.offline_after_s,
            min_free_bytes=retention.min_free_bytes,
            kept_ms=(retention.slices_days * DAY_MS, retention.hours_days * DAY_MS),
        ),
        address,
        fleet=fleet,
        now_ms=now_ms,
        commit_rows=collect.commit_rows,
        backlog_bytes=collect.backlog_bytes,
        device_share=collect.device_share,
        limit=Limit(*(rate / among or UNLIMITED for rate in rates)),
        division=division,
        kinds=kinds,
        voice=voice,
        sweeps=sweeps,
        on_fetch=on_fetch,
        on_samples=on_samples,
    )
