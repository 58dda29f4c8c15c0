"""How do the webhooks do?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from server.config import Webhook
from server.store import deliveries
from server.store.store import Store
from server.tell.alarms import stamp
from server.tell.webhooks import Answer, Receiver


def listed(store: Store, hooks: Sequence[Webhook]) -> list[dict[str, Any]]:
    """One row to each."""
    with store.database.read() as connection:
        counts = deliveries.counts(connection)
        rows = []
        for hook in hooks:
            delivered = deliveries.last(connection, hook.url, "delivered")
            failed = deliveries.last(connection, hook.url, "dead", "waiting")
            row = {
                "url": hook.url,
                "events": ", ".join(hook.events),
                "waiting": counts.get((hook.url, "waiting"), 0),
                "dead": counts.get((hook.url, "dead"), 0),
                "delivered_at_ms": delivered.ended_at_ms if delivered else None,
                "next_at_ms": deliveries.next_ms(connection, hook.url),
                "error": failed.error if failed else "",
            }
            rows.append(row)
    return rows


def probe(hook: Webhook, *, fleet: str, now_ms: int) -> Answer:
    """Send a message of the type `test`, once."""
    body = {"type": "test", "timestamp": stamp(now_ms), "data": {"fleet": fleet}}
    return Receiver(hook).post(f"{fleet}-test-{now_ms}", msgspec.json.encode(body), now_ms=now_ms)
