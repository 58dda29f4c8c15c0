"""Two versions side by side."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from server.web import against
from server.web.access import Viewer
from server.web.api.answers import NUMBER_MAX, Number
from server.web.frame import Frame


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.get("/models/{number}/against")
    async def choose(number: Number, _: Viewer, other: Annotated[int, Query(ge=1, le=NUMBER_MAX)]) -> Response:
        return RedirectResponse(f"/models/{number}/against/{other}", status_code=303)

    @made.get("/models/{number}/against/{other}")
    async def two(request: Request, number: Number, other: Number, person: Viewer) -> Response:
        found = await run_in_threadpool(against.compared, frame.store, other, number)
        if found is None:
            raise HTTPException(404, f"there are no versions {other} and {number}: /models lists those that there are")
        return frame.page(request, "against.html", person=person, two=found)

    @made.get("/models/{number}/against/{other}/data")
    async def data(request: Request, number: Number, other: Number, person: Viewer) -> Response:
        found = await run_in_threadpool(against.data, frame.store, other, number)
        return frame.page(
            request, "against-data.html", person=person, found=found, groups=against.GROUPS, top=against.top
        )

    return made
