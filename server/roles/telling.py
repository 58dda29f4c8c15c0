"""Who looks after the fleet, and who is told of what?

The watch for drift, alarms that begin and end, and their messages to webhooks: each a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from server.config import ServerConfig
from server.drift.watch import Watch
from server.store.store import Store
from server.tell.alarms import Alarms
from server.tell.webhooks import Webhooks

STOP_S = 1.0  # for what a thread has in hand; then it is left behind, and loses nothing


def tell(stack: ExitStack, config: ServerConfig, store: Store, *, now_ms: Callable[[], int]) -> None:
    """Watch and tell, until the stack ends."""
    watch = Watch(store, config.drift)
    watch.start(now_ms)
    stack.callback(watch.stop, timeout_s=STOP_S)
    rng = np.random.default_rng()
    webhooks = Webhooks(store, config.webhook, fleet=config.server.fleet, now_ms=now_ms, rng=rng)
    webhooks.start()
    stack.callback(webhooks.stop, timeout_s=STOP_S)
    alarms = Alarms(store, config, now_ms=now_ms, wake=webhooks.wake)
    alarms.start()
    stack.callback(alarms.stop, timeout_s=STOP_S)
