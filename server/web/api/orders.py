"""What devices are told, for programs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from server.release import orders, places
from server.web.access import Operator, Viewer
from server.web.api.answers import PLACE, Order
from server.web.api.devices import Search, State, Where
from server.web.frame import Frame
from server.web.problem import REFUSED

WHOM_MAX = 1_000_000  # characters: 10,000 names have two thirds of it
ASKED_MAX = 10_000  # in an address


class Meant(Order):
    """Which devices, and why; the devices are told it too."""

    devices: str = Field(max_length=WHOM_MAX, description="`cam-1,cam-2`, `site:NAME`, `ring:NAME` or `all`")


class NewBudget(Meant):
    """What they may spend; null: as their own file says."""

    label_share: float | None = Field(None, ge=0.0, le=1.0)
    labels_per_day: float | None = Field(None, ge=0.0, description="0: no limit")
    bytes_per_day: float | None = Field(None, ge=0.0, description="0: no limit")


class NewPlace(Meant):
    """Where they belong from now on; what is not named stays as it is."""

    channel: str | None = Field(None, pattern=PLACE)
    ring: str | None = Field(None, pattern=PLACE, description="`-`: drawn anew for every version")
    site: str | None = Field(None, pattern=PLACE, description="`-`: none")


class Foreseen(BaseModel):
    """Whom an order would be for, and how things are with them."""

    devices: list[str]
    revoked: list[str] = Field(description="left out: they hear nothing any more")
    unknown: list[str] = Field(description="names that no device has, or none has any more; left out")
    online: int
    paused: int
    budgeted: int = Field(description="with a budget by order")
    channels: dict[str, int]
    rings: dict[str, int] = Field(description="where operators put them; empty: drawn anew for every version")
    sites: dict[str, int]


class Told(BaseModel):
    """Whom the order is for."""

    devices: list[str]


class InForce(BaseModel):
    """One in force. `obeyed`: by the device's last heartbeat; null: it is too old to say."""

    device: str
    word: str
    said: dict[str, float]
    who: str
    why: str
    at_ms: int
    obeyed: bool | None


class Orders(BaseModel):
    """Those in force."""

    orders: list[InForce]


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["devices"], prefix="/orders")

    @made.get("", summary="List the orders in force")
    async def listed(_: Viewer, device: Annotated[str, Query(max_length=63)] = "") -> Orders:
        found = await run_in_threadpool(orders.listed, frame.store, device)
        return Orders(orders=[InForce(**one._asdict()) for one in found])

    @made.get("/meant", summary="Say whom an order would be for", responses=REFUSED)
    async def meant(
        _: Operator,
        devices: Annotated[str, Query(max_length=ASKED_MAX, description="as an order's; empty: those that fit")] = "",
        search: Search = "",
        state: State = "",
        at: Where = "",
    ) -> Foreseen:
        def look() -> orders.Meant:
            fitting = frame.table.map(search=search, state=state, site=at)[1]
            return orders.meant(frame.store, devices or fitting)

        return Foreseen(**(await run_in_threadpool(look))._asdict())

    @made.post("/pause", summary="Keep samples on devices", responses=REFUSED)
    async def pause(person: Operator, meant: Meant) -> Told:
        said: dict[str, Any] = {"why": meant.why, "who": person.name, "now_ms": frame.now_ms()}
        return Told(devices=await run_in_threadpool(orders.pause, frame.store, meant.devices, **said))

    @made.post("/resume", summary="Let samples go again", responses=REFUSED)
    async def resume(person: Operator, meant: Meant) -> Told:
        said: dict[str, Any] = {"why": meant.why, "who": person.name, "now_ms": frame.now_ms()}
        return Told(devices=await run_in_threadpool(orders.resume, frame.store, meant.devices, **said))

    @made.post("/budget", summary="Change budgets", responses=REFUSED)
    async def budget(person: Operator, meant: NewBudget) -> Told:
        wanted = orders.Budget(meant.label_share, meant.labels_per_day, meant.bytes_per_day)
        said: dict[str, Any] = {"why": meant.why, "who": person.name, "now_ms": frame.now_ms()}
        return Told(devices=await run_in_threadpool(orders.set_budget, frame.store, meant.devices, wanted, **said))

    @made.post("/place", summary="Put devices into a channel, a ring, or at a site", responses=REFUSED)
    async def place(person: Operator, meant: NewPlace) -> Told:
        def put() -> list[str]:
            names = orders.meant(frame.store, meant.devices).devices
            said: dict[str, Any] = {"channel": meant.channel, "ring": meant.ring, "site": meant.site}
            said |= {"why": meant.why, "who": person.name, "now_ms": frame.now_ms()}
            places.put(frame.store, names, whom=meant.devices, **said)
            return names

        return Told(devices=await run_in_threadpool(put))

    return made
