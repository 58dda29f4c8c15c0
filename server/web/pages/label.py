"""The page on which people label."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from server.label.queue import PERSON
from server.web.access import Labeler
from server.web.frame import Frame


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.get("/label")
    async def label(request: Request, person: Labeler) -> Response:
        return frame.page(request, "label.html", person=person, asked=frame.config.labeler.kind == PERSON)

    return made
