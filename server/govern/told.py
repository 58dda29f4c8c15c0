"""What do alarms, and messages of them, tell of a device that is to be forgotten?

An alarm about it is over, and nobody is told so: it has not come back. A message that tells of others too stays,
without it; one that waits is sent so. What a receiver has taken is the receiver's.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import msgspec
import sqlalchemy as sa

from server.store.alarms import of_device
from server.store.schema import alarm, delivery
from server.store.text import holds

SOMEBODY = "an erased device"


def forget(connection: sa.Connection, device: str) -> Counter[str]:
    """Alarms and messages name it no more; table -> rows that went or were changed."""
    counts = Counter[str]()
    counts["alarm"] += connection.execute(sa.delete(alarm).where(alarm.c.subject == of_device(device))).rowcount
    named = sa.select(alarm).where(holds(alarm.c.text, device))
    for row in connection.execute(named).all():
        if (text := _without(row.text, device)) != row.text:
            mine = sa.and_(alarm.c.kind == row.kind, alarm.c.subject == row.subject)
            counts["alarm"] += connection.execute(sa.update(alarm).where(mine).values(text=text)).rowcount
    query = sa.select(delivery.c.id, delivery.c.body).where(holds(delivery.c.body, device))
    for number, body in connection.execute(query).all():
        counts["delivery"] += _leave(connection, number, body, device)
    return +counts


def _leave(connection: sa.Connection, number: int, body: str, device: str) -> int:
    said = msgspec.json.decode(body)
    told: list[dict[str, Any]] = said["data"].get("alarms", [])
    left = [one | {"text": _without(one["text"], device)} for one in told if one["subject"] != of_device(device)]
    if left == told:
        return 0
    mine = delivery.c.id == number
    if not left and said["data"]["count"] == len(told):
        return connection.execute(sa.delete(delivery).where(mine)).rowcount
    said["data"] |= {"alarms": left, "count": said["data"]["count"] - len(told) + len(left)}
    new = msgspec.json.encode(said).decode()
    return connection.execute(sa.update(delivery).where(mine).values(body=new)).rowcount


def _without(text: str, device: str) -> str:
    """The text, with the name left out where it is a word of its own.

    >>> _without("cam-1 and cam-12", "cam-1")
    'an erased device and cam-12'
    """
    return re.sub(rf"(?<![\w-]){re.escape(device)}(?![\w-])", SOMEBODY, text)
