"""Every device at a glance."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from server.web.access import Viewer
from server.web.fleet_table import STATES
from server.web.frame import Frame


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.get("/fleet")
    async def fleet(request: Request, person: Viewer) -> Response:
        return frame.page(request, "fleet.html", person=person, states=STATES)

    return made
