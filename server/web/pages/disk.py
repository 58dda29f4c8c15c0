"""How much of the disk is used, for what, and what went since it was not kept for longer?"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from server.store import removed, trail, usage
from server.store.trail import Wanted
from server.web.access import Viewer
from server.web.frame import Frame
from server.web.table import csv_of

LAST = 10  # groups of samples that went
COLUMNS = ("day", "name", "rows", "bytes")


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.get("/governance/disk")
    async def disk(request: Request, person: Viewer) -> Response:
        return frame.page(request, "disk.html", person=person, **await run_in_threadpool(_shown, frame))

    @made.get("/governance/disk.csv")
    async def as_csv(_: Viewer) -> Response:
        with frame.store.database.read() as connection:
            rows = usage.history(connection)
        return csv_of("disk", COLUMNS, rows)

    return made


def _shown(frame: Frame) -> dict[str, Any]:
    retention = frame.config.retention
    with frame.store.database.read() as connection:
        at_ms, found = usage.noted(connection)
        gone = trail.found(connection, Wanted(what="remove"), limit=LAST)
        return {
            "at_ms": at_ms,
            "view": usage.view(connection, found, retention, now_ms=frame.now_ms()) if found else None,
            "days": retention.days(),
            "retention": retention,
            "gone": gone,
            "removed": sum(sum(counts.values()) for counts in removed.counts(connection).values()),
        }
