"""The page on which people label."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from server.label.queue import PERSON
from server.teach import outcome
from server.web.access import Labeler
from server.web.frame import Frame


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.get("/label")
    async def label(request: Request, person: Labeler) -> Response:
        about: dict[str, Any] = {"asked": frame.config.labeler.kind == PERSON, "task": frame.config.server.task}
        return frame.page(request, "label.html", person=person, **about)

    @made.get("/label/rounds")
    async def rounds(request: Request, person: Labeler) -> Response:
        rows = await run_in_threadpool(outcome.rounds, frame.store, person.name)
        return frame.page(request, "label-rounds.html", person=person, rows=rows)

    return made
