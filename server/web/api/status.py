"""How is the loop doing?"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from server import status as views
from server.drift.view import entries
from server.store.users import Role
from server.web.access import Viewer
from server.web.api.answers import Anything
from server.web.frame import Frame
from server.web.seldom import Seldom


class Status(BaseModel):
    """The whole loop, in figures: `winnow-server status --json`."""

    fleet: str
    running: bool = Field(description="a server, on this store")
    leaders: dict[str, str] = Field(description="who does what one process alone may; empty: nobody")
    devices: int
    online: int
    samples: dict[str, int] = Field(description="stored, by the reason of their selection")
    as_of_ms: int = Field(
        description="when missing, accuracy and yield were counted: for a large fleet they are not counted each time"
    )
    missing: int = Field(description="kept by devices, and will not come")
    labels: dict[str, int]
    labelling: Anything = Field(description="minutes, money, and what waits")
    accuracy: Anything = Field(description="of the fleet, with its interval")
    yield_: Anything = Field(alias="yield", description="mistakes found, against labels chosen at random")
    classes: list[str]
    champion: int | None = Field(description="version")
    run: Anything | None = Field(description="the last round")
    teaching: Anything = Field(description="what the next round waits for")
    portfolio: list[Anything]
    rollouts: list[Anything] = Field(description="the newest of each channel")
    disk: Anything | None = Field(description="bytes used, bound and free, and when it is full; as of the last hour")


class Accuracy(BaseModel):
    """Of all that the devices see, sent or not, with 95 % intervals."""

    days: int
    by: str
    fleet: Anything
    rows: list[Anything]
    left_out: dict[str, int]


class Drift(BaseModel):
    """By version: which devices moved, of which kind that is, and what it costs."""

    versions: list[Anything]


class Me(BaseModel):
    """Who is asking."""

    name: str
    role: Role
    way: Literal["session", "proxy", "token"]


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["status"])
    over_all = Seldom(lambda: views.figures_over_all(frame.store, now_ms=frame.now_ms()))

    @made.get("/status", summary="How the loop is doing")
    def status(_: Viewer) -> Status:
        return Status(**views.overview(frame.config, frame.store, now_ms=frame.now_ms(), over_all=over_all.get()))

    @made.get("/accuracy", summary="How accurate the fleet is")
    def accuracy(
        _: Viewer,
        by: Literal["fleet", "device", "class", "day", "version"] = "fleet",
        days: Annotated[int, Query(ge=0, le=3650, description="the last ones; 0: all")] = 7,
    ) -> Accuracy:
        return Accuracy(**views.accuracy(frame.store, by, days=days, now_ms=frame.now_ms()))

    @made.get("/drift", summary="What moved")
    def drift(_: Viewer) -> Drift:
        return Drift(versions=entries(frame.store, frame.config.drift, now_ms=frame.now_ms()))

    @made.get("/me", summary="Who you are")
    def me(person: Viewer) -> Me:
        return Me(name=person.name, role=person.role, way=person.way)

    return made
