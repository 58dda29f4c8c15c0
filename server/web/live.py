"""What is new?

One stream of server-sent events (HTML living standard, 9.2) tells how every kind of thing stands: at once, and again
when something changed, at most once a second. A page was made knowing how they stood, and fetches what it shows of
those that stand otherwise: so nothing is missed that changed before the stream began or while it was broken. A browser
opens one for all its tabs (static/live.js): over HTTP/1.1 it has six connections to a server, and a seventh tab would
wait for ever.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import sqlalchemy as sa
from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from server.store.schema import chore, curve, device, event, label, rollout_step, run, trail, version
from server.store.store import Store

PERIOD_S = 1.0
ALIVE_S = 15.0  # a comment now and then, so that proxies do not end a stream that has no news
STREAMS_MAX = 200
KINDS = {
    "fleet": sa.select(
        sa.func.max(device.c.last_seen_ms), sa.func.count(), sa.func.sum(sa.cast(device.c.online, sa.Integer))
    ).select_from(device),
    "events": sa.select(sa.func.max(event.c.id)),
    "labels": sa.select(sa.func.max(label.c.id)),
    "rollouts": sa.select(sa.func.max(rollout_step.c.id)),
    "trail": sa.select(sa.func.max(trail.c.id)),
    "chores": sa.select(sa.func.max(chore.c.id), sa.func.max(chore.c.ended_at_ms)),
    "models": sa.select(
        sa.select(sa.func.max(version.c.number)).scalar_subquery(),
        sa.select(sa.func.max(run.c.id)).scalar_subquery(),
        sa.select(sa.func.max(run.c.ended_at_ms)).scalar_subquery(),
        sa.select(sa.func.max(run.c.id)).where(run.c.state == "judging").scalar_subquery(),
    ),
    "curve": sa.select(sa.func.max(curve.c.id)),
}


class Pulse:
    """Looks at the store once a period, however many watch."""

    def __init__(self, store: Store, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Nothing is read until somebody watches."""
        self._store, self._clock_s = store, clock_s
        self._lock = threading.Lock()
        self._at_s = 0.0
        self._state: dict[str, Any] = {}
        self.streams = 0
        self.ended = False  # streams end by themselves within a period

    def state(self) -> dict[str, Any]:
        """Of every kind, something that differs when it has changed."""
        with self._lock:
            if self._clock_s() - self._at_s >= PERIOD_S or not self._state:
                with self._store.database.read() as connection:
                    self._state = {kind: tuple(connection.execute(query).one()) for kind, query in KINDS.items()}
                self._at_s = self._clock_s()
            return self._state


async def news(pulse: Pulse, request: Request) -> AsyncIterator[str]:
    """The stream: what `Pulse.state` gives, as JSON, when it is another."""
    pulse.streams += 1
    try:
        said, said_s = None, time.monotonic()
        yield "retry: 2000\n\n"
        while not (pulse.ended or await request.is_disconnected()):
            state = await run_in_threadpool(pulse.state)
            if state != said:
                said, said_s = state, time.monotonic()
                yield f"data: {json.dumps(state)}\n\n"
            elif time.monotonic() - said_s > ALIVE_S:
                said_s = time.monotonic()
                yield ": nothing new\n\n"
            await asyncio.sleep(PERIOD_S)
    finally:
        pulse.streams -= 1
