"""What takes in what devices send?"""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.contract.wire import Fetch
from server.collect.collector import Collector
from server.collect.gateway import BrokerAddress
from server.collect.ingest import Ingest
from server.collect.turns import UNLIMITED, Limit
from server.config import ServerConfig
from server.store.store import Store


def collector_of(
    config: ServerConfig,
    store: Store,
    address: BrokerAddress,
    *,
    now_ms: Callable[[], int],
    on_fetch: Callable[[str, Fetch], None],
    on_samples: Callable[[int], None],
) -> Collector:
    """As configured; the callbacks are Collector's."""
    collect, fleet = config.collect, config.server.fleet
    return Collector(
        Ingest(store, fleet=fleet, offline_after_s=collect.offline_after_s),
        address,
        fleet=fleet,
        now_ms=now_ms,
        commit_rows=collect.commit_rows,
        backlog_bytes=collect.backlog_bytes,
        device_share=collect.device_share,
        limit=Limit(collect.device_messages_per_s or UNLIMITED, collect.device_bytes_per_s or UNLIMITED),
        on_fetch=on_fetch,
        on_samples=on_samples,
    )
