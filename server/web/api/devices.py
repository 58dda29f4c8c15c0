"""Devices, for programs and for the fleet page."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import numpy as np
import sqlalchemy as sa
from fastapi import APIRouter, HTTPException, Path, Query, Response
from fastapi.concurrency import run_in_threadpool
from numpy.typing import NDArray
from pydantic import BaseModel, Field, create_model

from edge_agent.contract.artifact import decode_manifest
from server.store import beats, devices, spans, versions
from server.store.store import Store
from server.web.access import Viewer
from server.web.fleet_table import PAGE_MAX, STATES, Row
from server.web.frame import Frame
from server.web.problem import MISSING
from server.web.table import csv_of

Sort = Literal[
    "name", "site", "channel", "state", "version", "slot", "samples_per_s", "selected_share", "outbox_rows",
    "outbox_age_s", "label_tokens", "drift", "held", "clock", "last_seen_ms", "stream", "refused", "online",
]  # fmt: skip
State = Literal["", "online", "drift", "trial", "full", "held", "refused", "offline", "never"]
assert get_args(State)[1:] == STATES  # noqa: S101 - a literal cannot be made of a tuple

_FIELDS: Any = {name: (kind, ...) for name, kind in Row.__annotations__.items()}
DeviceRow = create_model("DeviceRow", **_FIELDS)


class Devices(BaseModel):
    """A page of devices."""

    total: int
    states: dict[str, int]
    rows: list[DeviceRow]  # type: ignore[valid-type]


class FleetMap(BaseModel):
    """Every device that fits: its name, and the place of its state in `states`."""

    states: list[str]
    names: list[str]
    codes: list[int]
    sites: list[str] = Field(description="all that there are")


Search = Annotated[str, Query(max_length=100, description="stands in name, site, channel or version")]
Where = Annotated[str, Query(max_length=63, description="of this site alone")]


class ClassShare(BaseModel):
    """How often a class was predicted, and how often its model expects it; 0 to 1. `expected`: None: not stated."""

    name: str
    share: float
    expected: float | None


class DevicePast(BaseModel):
    """How a device has been: means over slices of time that begin at `at`, ms since 1970; null where nobody said it.

    `classes`: what it took its samples for, sent or not, in all that time.
    """

    since: int
    until: int
    at: list[int]
    series: dict[str, list[float | None]]
    classes: list[ClassShare]


def router(frame: Frame) -> APIRouter:
    """Its routes."""
    made = APIRouter(tags=["devices"])
    table = frame.table

    @made.get("/devices", summary="List devices")
    async def devices(
        _: Viewer,
        search: Search = "",
        state: State = "",
        at: Where = "",
        sort: Sort = "name",
        descending: bool = False,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
    ) -> Devices:
        found = await run_in_threadpool(
            table.page,
            search=search,
            state=state,
            site=at,
            sort=sort,
            descending=descending,
            offset=offset,
            limit=limit,
        )
        return Devices(total=found.total, states=found.states, rows=[DeviceRow(**row._asdict()) for row in found.rows])

    @made.get("/fleet/map", summary="The state of every device")
    async def fleet_map(
        _: Viewer,
        search: Search = "",
        state: State = "",
        at: Where = "",
    ) -> FleetMap:
        codes, names = await run_in_threadpool(table.map, search=search, state=state, site=at)
        sites = await run_in_threadpool(table.sites)
        return FleetMap(states=list(STATES), names=names, codes=list(codes), sites=sites)

    @made.get("/devices.csv", summary="List devices, as CSV", response_class=Response)
    async def as_csv(
        _: Viewer, search: Search = "", state: State = "", at: Where = "", sort: Sort = "name", descending: bool = False
    ) -> Response:
        found = await run_in_threadpool(
            table.page, search=search, state=state, site=at, sort=sort, descending=descending, limit=10_000_000
        )
        return csv_of("devices", Row._fields, found.rows)

    @made.get("/devices/{name}/history", summary="How a device has been", responses=MISSING)
    async def history(
        name: Annotated[str, Path(max_length=63)],
        _: Viewer,
        days: Annotated[float, Query(gt=0.0, le=3650.0)] = 1.0,
    ) -> DevicePast:
        return await run_in_threadpool(_past, frame, name, days)

    return made


def _past(frame: Frame, name: str, days: float) -> DevicePast:
    now_ms = frame.now_ms()
    since_ms = now_ms - int(days * beats.DAY_MS)
    with frame.store.database.read() as connection:
        if not devices.seen(connection, name):
            raise HTTPException(404, f"device {name!r} has never been seen")
        past = beats.past(connection, name, since_ms=since_ms)
        classes = _classes(frame.store, connection, name, since_ms=since_ms)
    series = {figure: _plain(past.mean[:, at]) for at, figure in enumerate(beats.FIGURES)}
    return DevicePast(since=since_ms, until=now_ms, at=past.start_ms.tolist(), series=series, classes=classes)


def _classes(store: Store, connection: sa.Connection, name: str, *, since_ms: int) -> list[ClassShare]:
    """By the version that the device executes: of others it would be told by other classes."""
    device = devices.get(connection, name)
    word = (device.heartbeat or device.birth) if device else None
    version = versions.get(connection, word.model.version) if word else None
    # A slice of an hour or a day counts when it ends within that time.
    seen = spans.of_device(connection, name, since_ms=since_ms - spans.SPAN_MS).classes.sum(axis=0)
    if version is None or not seen.sum():
        return []
    manifest = decode_manifest(store.blobs.get(version.manifest_sha256), where=f"version {version.number}")
    shares = np.zeros(len(manifest.outcomes))
    shares[: len(seen)] = seen[: len(shares)] / seen.sum()
    expected = manifest.reference.class_share or (None,) * len(shares)
    return [
        ClassShare(name=what, share=float(share), expected=usual)
        for what, share, usual in zip(manifest.outcomes, shares, expected, strict=False)
    ]


def _plain(values: NDArray[np.floating[Any]]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
