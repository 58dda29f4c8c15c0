"""Who did what, to what, and why?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from server.store import trail
from server.web.access import Viewer
from server.web.api.answers import After, Anything, Limit, cut
from server.web.discretion import hidden_from
from server.web.frame import Frame


class Entry(BaseModel):
    """One thing that was done."""

    id: int
    at_ms: int
    who: str
    what: str
    subject: str
    why: str
    detail: Anything
    previous_sha256: str
    sha256: str


class Trail(BaseModel):
    """A page of the audit trail, the newest first."""

    entries: list[Entry]
    next: int | None


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["people"])

    @made.get("/trail", summary="Who did what, to what, and why")
    def decided(
        person: Viewer,
        subject: Annotated[str, Query(max_length=200, description="version 7, device cam-1; empty: all")] = "",
        after: After = 0,
        limit: Limit = 100,
    ) -> Trail:
        with frame.store.database.read() as connection:
            found = trail.entries(
                connection, subject=subject, below=after, hidden=hidden_from(person), limit=limit + 1
            )[::-1]
        page, more = cut([Entry(**one._asdict()) for one in found], limit)
        return Trail(entries=list(page), next=page[-1].id if more else None)

    return made
