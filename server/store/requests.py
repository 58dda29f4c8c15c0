"""Who wants more samples like which, from whom, and until when?

A request is open from when it is made until it is cancelled or its time is over. What came of it stands with the
samples: their strategy names it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from edge_agent.choose.wanted import strategy_of
from server.store.schema import request, sample


@dataclass(frozen=True)
class Request:
    """One request, as made."""

    id: int
    sample_id: str
    devices: list[str] | None  # None: all, those to come included
    similar: float  # least cosine
    count: int  # of each device
    created_at_ms: int
    until_ms: int
    cancelled_at_ms: int | None = None

    def concerns(self, device: str) -> bool:
        """Whether it was made to this device."""
        return self.devices is None or device in self.devices


def insert(connection: sa.Connection, made: Request) -> int:
    """Keep one, whatever its id says; returns the id it has."""
    values = asdict(made)
    del values["id"]
    number: int = connection.execute(sa.insert(request).values(values).returning(request.c.id)).scalar_one()
    return number


def cancel(connection: sa.Connection, number: int, *, now_ms: int) -> bool:
    """End one; False when there is none of that id that is open."""
    mine = sa.and_(request.c.id == number, *_is_open(now_ms))
    return bool(connection.execute(sa.update(request).where(mine).values(cancelled_at_ms=now_ms)).rowcount)


def open_ones(connection: sa.Connection, *, now_ms: int) -> Sequence[Request]:
    """Those that are open, oldest first."""
    query = sa.select(request).where(*_is_open(now_ms)).order_by(request.c.id)
    return [Request(*row) for row in connection.execute(query)]


def _is_open(now_ms: int) -> tuple[sa.ColumnElement[bool], ...]:
    return request.c.cancelled_at_ms.is_(None), request.c.until_ms >= now_ms


def stored(connection: sa.Connection, number: int) -> dict[str, int]:
    """Samples that came for it, by device."""
    query = sa.select(sample.c.device, sa.func.count()).where(
        sample.c.reason == "requested", sample.c.strategy == strategy_of(number)
    )
    found: dict[str, int] = defaultdict(int)
    found.update((name, count) for name, count in connection.execute(query.group_by(sample.c.device)))
    return found
