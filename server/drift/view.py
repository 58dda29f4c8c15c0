"""What does `winnow-server drift` show?

An outlook per version, in figures and in words, with what each device said itself and what was told last. Plain data
first (that is the `--json`, and what a page draws), lines second.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import msgspec
import sqlalchemy as sa

from server.config import Drift
from server.drift import words
from server.drift.outlook import Outlook
from server.drift.watch import KIND, outlooks
from server.store import events
from server.store.store import Store

View = dict[str, Any]


def entries(store: Store, rules: Drift, *, now_ms: int) -> list[View]:
    """One entry per version that devices run."""
    return [_entry(store, outlook) for outlook in outlooks(store, rules, now_ms=now_ms)]


def _entry(store: Store, outlook: Outlook) -> View:
    with store.database.read() as connection:
        alarms = events.last_alarms(connection, version=outlook.version)
        told = events.last_said(connection, KIND, version=outlook.version)
    devices = [
        msgspec.to_builtins(one) | {"text": words.on_device(one), "alarm": _said(alarms.get(one.device))}
        for one in outlook.devices
    ]
    more = {"text": words.in_words(outlook), "told": _said(told), "devices": devices}
    entry: View = msgspec.to_builtins(outlook) | more
    return entry


def _said(event: sa.Row[Any] | None) -> View | None:
    if event is None:
        return None
    at = datetime.fromtimestamp(event.received_at_ms / 1000, timezone.utc)
    return {"at": at.isoformat(timespec="seconds"), "text": event.text}


def lines(found: Sequence[View]) -> list[str]:
    """For people: the fleet, then each device."""
    if not found:
        return ["nothing was heard yet of a whole hour of any device"]
    said = []
    for entry in found:
        said.append(f"version {entry['version']}: {entry['text']}")
        said += [f"  not in the fleet's figure: {name} ({why})" for name, why in entry["left_out"].items()]
        for one in entry["devices"]:
            said.append(f"  {one['device']}: {one['text']}")
            if one["alarm"]:
                said.append(f"    its own alarm, {one['alarm']['at']}: {one['alarm']['text']}")
    return said
