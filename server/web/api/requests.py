"""More samples like one."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from server.release import requests
from server.store import samples
from server.web.access import Operator, Viewer
from server.web.api.answers import Anything, Number, Order, here
from server.web.frame import Frame
from server.web.problem import EITHER, REFUSED


class More(Order):
    """More like a sample."""

    sample_id: str = Field(max_length=190)
    devices: list[str] | None = Field(None, min_length=1, max_length=10_000, description="null: all, those to come too")
    count: int = Field(20, ge=1, le=1000, description="at most, of each device")
    similar: float = Field(0.9, ge=0.01, le=0.999, description="least cosine of the embeddings")
    days: float = Field(7.0, ge=0.001, le=365.0, description="how long the devices look out")


class Asked(BaseModel):
    """What was asked of whom."""

    request: int
    devices: list[str]
    silent: dict[str, str] = Field(description="who cannot look out yet, and why")


class Requests(BaseModel):
    """The open ones, a row for each device that one concerns."""

    requests: list[Anything]


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["samples"])

    @made.get("/requests", summary="What devices look out for")
    def listed(_: Viewer) -> Requests:
        return Requests(requests=requests.listed(frame.store, now_ms=frame.now_ms()))

    @made.post("/requests", summary="Ask for more like a sample", responses=EITHER, status_code=201)
    def more(wanted: More, person: Operator) -> Asked:
        with frame.store.database.read() as connection:
            here(samples.one(connection, wanted.sample_id), f"sample {wanted.sample_id!r}")
        made = requests.make(
            frame.store,
            wanted.sample_id,
            devices_named=wanted.devices,
            count=wanted.count,
            similar=wanted.similar,
            days=wanted.days,
            now_ms=frame.now_ms(),
            who=person.name,
            why=wanted.why,
        )
        return Asked(request=made.id, devices=made.devices, silent=made.silent)

    @made.post("/requests/{number}/cancel", summary="End a request before its time", responses=REFUSED)
    def cancel(number: Number, order: Order, person: Operator) -> bool:
        requests.cancel(frame.store, number, now_ms=frame.now_ms(), who=person.name, why=order.why)
        return True

    return made
