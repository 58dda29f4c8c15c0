"""What did models learn from, and what is different between two snapshots?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from server.teach import listing
from server.teach.export.run import FORMATS
from server.teach.splits import WHY
from server.web.access import Viewer
from server.web.frame import Frame
from server.web.pages import exports
from server.web.table import csv_of

IDS_SHOWN = 60  # of each group of a difference


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(prefix="/data/snapshots")

    @made.get("")
    async def every(request: Request, person: Viewer) -> Response:
        rows = await run_in_threadpool(listing.listed, frame.store)
        made_of = await run_in_threadpool(exports.listed, frame)
        formats = {name: exports.ABOUT[name] for name in FORMATS}
        return frame.page(request, "snapshots.html", person=person, rows=rows[::-1], exports=made_of, formats=formats)

    @made.get(".csv")
    async def as_csv(_: Viewer) -> Response:
        rows = await run_in_threadpool(listing.listed, frame.store)
        columns = list(rows[0]) if rows else ["snapshot"]
        return csv_of("snapshots", columns, ([row[name] for name in columns] for row in rows))

    @made.get("/diff")
    async def diff(
        request: Request,
        person: Viewer,
        before: Annotated[str, Query(max_length=64)],
        after: Annotated[str, Query(max_length=64)],
    ) -> Response:
        old, new, found = await run_in_threadpool(listing.compared, frame.store, before, after)
        return frame.page(
            request,
            "snapshot-diff.html",
            person=person,
            before=old,
            after=new,
            found=found,
            most=IDS_SHOWN,
            why=dict(WHY),
        )

    @made.get("/{said}")
    async def one(request: Request, said: str, person: Viewer) -> Response:
        view = await run_in_threadpool(listing.shown, frame.store, said)
        return frame.page(request, "snapshot.html", person=person, one=view, why=dict(WHY))

    return made
