"""A sample: its picture, and more like it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from server.label import picture
from server.release import requests
from server.store import samples
from server.web.access import Operator, Viewer
from server.web.api.answers import Why
from server.web.frame import Frame
from server.web.recording import KEPT


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.get("/samples/{sample_id}/picture")
    async def look(sample_id: str, _: Viewer) -> Response:
        found = await run_in_threadpool(_picture, frame, sample_id)
        return Response(found.body, media_type=found.media_type, headers=KEPT)

    @made.post("/samples/{sample_id}/more")
    async def more(
        sample_id: str,
        person: Operator,
        why: Annotated[Why, Form()],
        count: Annotated[int, Form(ge=1, le=1000)] = 20,
        device: Annotated[str, Form(max_length=63)] = "",
    ) -> Response:
        def ask() -> None:
            requests.make(
                frame.store,
                sample_id,
                devices_named=[device] if device else None,
                count=count,
                similar=0.9,
                days=7.0,
                now_ms=frame.now_ms(),
                who=person.name,
                why=why,
            )

        await run_in_threadpool(ask)
        return RedirectResponse(f"/devices/{device}" if device else "/fleet", status_code=303)

    return made


def _picture(frame: Frame, sample_id: str) -> picture.Picture:
    with frame.store.database.read() as connection:
        found = samples.rows(connection, [sample_id])
    if not found:
        raise HTTPException(404, f"sample {sample_id!r} is not here")
    return picture.of(samples.sample_array(frame.store, found[0]))
