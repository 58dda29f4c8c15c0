"""Every device at a glance."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from server.web.access import Viewer
from server.web.fleet_table import STATES
from server.web.frame import Frame


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter()

    @made.get("/fleet")
    async def fleet(request: Request, person: Viewer, search: Annotated[str, Query(max_length=100)] = "") -> Response:
        return frame.page(request, "fleet.html", person=person, states=STATES, search=search)

    return made
